"""Labeled images, images that are read when they are needed, and samples of each class."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mnist_keras.datasets.images import LabeledImages, LazyImages, class_samples, joined

pytestmark = pytest.mark.any_backend

IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3, 1)


@pytest.fixture
def lazy():
    """Five images that are read from an array, and the positions read so far."""
    read = []

    def rows(positions):
        read.extend(positions.tolist())
        return IMAGES[positions]

    return LazyImages(rows, IMAGES.shape, IMAGES.dtype), read


@pytest.mark.parametrize("index", [slice(None), slice(1, 4), [3, 0, 3], np.arange(5) % 2 == 0, 2])
def test_lazy_images_are_indexed_like_an_array(lazy, index):
    """Slices, lists, masks and single rows give what an array gives, once they are read."""
    images, read = lazy
    assert read == []
    np.testing.assert_array_equal(images[index], IMAGES[index])
    assert (len(images), images.shape, images.dtype) == (5, IMAGES.shape, np.uint8)
    np.testing.assert_array_equal(np.asarray(images, "float32"), IMAGES)


def test_taking_reads_nothing(lazy):
    """Images that are taken from lazy images are read when they are indexed."""
    images, read = lazy
    chosen = images.take([4, 1]).take([0])
    assert read == []
    np.testing.assert_array_equal(chosen[:], IMAGES[[4]])
    assert read == [4]


@pytest.mark.parametrize("first_lazy", [True, False])
@pytest.mark.parametrize("second_lazy", [True, False])
def test_joined(lazy, first_lazy, second_lazy):
    """Joined images follow each other, and are unread if a part is."""
    images, _ = lazy
    parts = [images if is_lazy else IMAGES for is_lazy in (first_lazy, second_lazy)]
    both = joined(*parts)
    np.testing.assert_array_equal(both[[7, 2, 5]], np.concatenate([IMAGES, IMAGES])[[7, 2, 5]])
    assert isinstance(both, LazyImages if first_lazy or second_lazy else np.ndarray)
    assert joined(parts[0], IMAGES[:0]) is parts[0]


def test_lazy_or_not_the_images_are_the_same(lazy):
    """Order and fingerprint do not depend on where the images are."""
    images, _ = lazy
    plain = LabeledImages.of("", IMAGES, np.array([1, 0, 1, 0, 0]), ["a", "b"])
    same = LabeledImages("", images, plain.labels, plain.class_names, plain.fingerprints)
    assert same.fingerprint == plain.fingerprint
    np.testing.assert_array_equal(same.canonical().images[:], plain.canonical().images)


def strip(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_eight_of_each_class(picture, channels):
    """A sample shows images of one class, sorted by content; an empty class has no sample."""
    pictures = np.stack([picture(number) for number in range(14)])
    images = np.repeat(pictures[..., np.newaxis], channels, axis=-1)
    labeled = LabeledImages.of("", images, np.repeat([0, 2], [10, 4]), ["a", "b", "c"])
    samples, own = class_samples(labeled), labeled.canonical()
    assert list(samples) == ["a", "c"]
    for name, count, number in (("a", 8, 0), ("c", 4, 2)):
        expected = np.concatenate(own.images[own.labels == number][:count].squeeze(), axis=1)
        np.testing.assert_array_equal(strip(samples[name]), expected)


def test_large_images_and_many_classes_stay_small(picture):
    """Images in samples have at most 64 pixels per side, and twenty classes have a sample."""
    images = np.stack([picture(number, 150, 90) for number in range(30)])[..., np.newaxis]
    names = [str(n) for n in range(30)]
    samples = class_samples(LabeledImages.of("", images, np.arange(30), names))
    assert len(samples) == 20
    assert strip(samples["0"]).shape == (50, 30)
