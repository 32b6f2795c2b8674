"""A few images of each class, as a reader sees them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mnist_keras.datasets.images import LabeledImages, class_samples

pytestmark = pytest.mark.any_backend


def strip(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_eight_of_each_class(picture, channels):
    """Each class has its own images, sorted by content, in one strip; an empty class has none."""
    pictures = np.stack([picture(number) for number in range(14)])
    images = np.repeat(pictures[..., np.newaxis], channels, axis=-1)
    labeled = LabeledImages.of("", images, np.repeat([0, 2], [10, 4]), ["a", "b", "c"])
    samples = class_samples(labeled)
    assert list(samples) == ["a", "c"]
    for name, count, number in (("a", 8, 0), ("c", 4, 2)):
        own = labeled.canonical()
        expected = np.concatenate(own.images[own.labels == number][:count].squeeze(), axis=1)
        np.testing.assert_array_equal(strip(samples[name]), expected)


def test_large_images_and_many_classes_stay_small(picture):
    """No sample is larger than 64 pixels a side, and no more than twenty classes are shown."""
    images = np.stack([picture(number, 150, 90) for number in range(30)])[..., np.newaxis]
    samples = class_samples(
        LabeledImages.of("", images, np.arange(30), [str(n) for n in range(30)])
    )
    assert len(samples) == 20
    assert strip(samples["0"]).shape == (50, 30)
