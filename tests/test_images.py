"""Labeled images in memory and images that are read when they are asked for."""

import numpy as np
import pytest

from mnist_keras.datasets.images import LabeledImages, LazyImages, joined

pytestmark = pytest.mark.any_backend

IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3, 1)


@pytest.fixture
def lazy():
    """Five images that are read from an array, and the positions that were read."""
    read = []

    def rows(positions):
        read.extend(positions.tolist())
        return IMAGES[positions]

    return LazyImages(rows, IMAGES.shape, IMAGES.dtype), read


@pytest.mark.parametrize("index", [slice(None), slice(1, 4), [3, 0, 3], np.arange(5) % 2 == 0, 2])
def test_lazy_images_are_indexed_like_an_array(lazy, index):
    """Slices, lists, masks and single rows give what an array gives."""
    images, read = lazy
    assert read == []
    np.testing.assert_array_equal(images[index], IMAGES[index])
    assert (len(images), images.shape, images.dtype) == (5, IMAGES.shape, np.uint8)
    np.testing.assert_array_equal(np.asarray(images, "float32"), IMAGES)


def test_taking_reads_nothing(lazy):
    """A choice of images is read when its images are."""
    images, read = lazy
    chosen = images.take([4, 1]).take([0])
    assert read == []
    np.testing.assert_array_equal(chosen[:], IMAGES[[4]])
    assert read == [4]


@pytest.mark.parametrize("first_lazy", [True, False])
@pytest.mark.parametrize("second_lazy", [True, False])
def test_joined(lazy, first_lazy, second_lazy):
    """One after the other, in whichever form; unread if one of them is."""
    images, _ = lazy
    parts = [images if is_lazy else IMAGES for is_lazy in (first_lazy, second_lazy)]
    both = joined(*parts)
    np.testing.assert_array_equal(both[[7, 2, 5]], np.concatenate([IMAGES, IMAGES])[[7, 2, 5]])
    assert isinstance(both, LazyImages if first_lazy or second_lazy else np.ndarray)
    assert joined(parts[0], IMAGES[:0]) is parts[0]


def test_lazy_or_not_the_images_are_the_same(lazy):
    """Order, fingerprint and choice do not depend on where the images are."""
    images, _ = lazy
    plain = LabeledImages.of("", IMAGES, np.array([1, 0, 1, 0, 0]), ["a", "b"])
    same = LabeledImages("", images, plain.labels, plain.class_names, plain.fingerprints)
    assert same.fingerprint == plain.fingerprint
    np.testing.assert_array_equal(same.canonical().images[:], plain.canonical().images)
