"""What images show together: duplicates, near duplicates, odd images, classes that differ."""

import io

import numpy as np
import pytest
from PIL import Image

from mnist_keras.datasets.image_folder import oddities
from mnist_keras.datasets.image_folder.oddities import look
from mnist_keras.datasets.images import LabeledImages

pytestmark = pytest.mark.any_backend


def said(images, labels=None, heldout=(), **encodings):
    """Return (kind, path) of each finding; the path is the number of the image."""
    images = np.asarray(images)
    images = images[..., np.newaxis] if images.ndim == 3 else images
    labels = np.zeros(len(images), int) if labels is None else np.asarray(labels)
    names, paths = ([str(n) for n in range(count)] for count in (labels.max() + 1, len(images)))
    labeled = LabeledImages.of("", images, labels, names, paths)
    aside = np.isin(np.arange(len(images)), heldout)
    found = oddities.findings(labeled, aside, look(images), encodings)
    return [(finding.kind, finding.path) for finding in found]


@pytest.fixture
def pictures(picture):
    return [picture(number) for number in range(20)]


def test_pictures_are_not_remarkable(pictures):
    """Different pictures have no finding."""
    assert said(pictures, [0, 1] * 10) == []


def test_duplicates(pictures):
    """Equal pixels are a duplicate in one class, and refused across sides or under two labels."""
    twice = [*pictures[:4], pictures[1]]
    assert said(twice) == [("duplicate", "4")]
    assert said(twice, heldout=[4]) == [("leak", "4")]
    assert said(twice, heldout=[1]) == [("leak", "1")]
    assert said(twice, heldout=[1, 4]) == [("duplicate", "4")]
    assert said(twice, [0, 0, 0, 0, 1]) == [("two_labels", "1"), ("two_labels", "4")]
    both = said(twice, [0, 0, 0, 0, 1], heldout=[4])
    assert both == [("two_labels", "1"), ("two_labels", "4"), ("leak", "4")]


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: np.roll(image, 1, 0),
        lambda image: np.roll(image, (-1, 1), (0, 1)),
        lambda image: jpeg(image, 90),
        lambda image: image ^ 1,
    ],
    ids=["down", "left and up", "jpeg", "one level"],
)
def test_near_duplicates(pictures, change):
    """Shifts by a pixel, JPEG copies and changes by a level are found; other pictures are not."""
    assert said([*pictures, change(pictures[3])]) == [("near_duplicate", "20")]


def test_genuine_digits_are_not_near_duplicates(mnist_idx):
    """Of 10,000 digits and a shifted copy of one, only the copy is a near duplicate."""
    from mnist_keras.datasets import sources

    digits = sources.load("mnist", mnist_idx)
    images = np.concatenate([digits.images[..., 0], np.roll(digits.images[7:8, :, :, 0], 1, 2)])
    labels = np.append(digits.labels, digits.labels[7])
    near = [path for kind, path in said(images, labels) if kind == "near_duplicate"]
    assert near == ["10000"]


def test_many_near_duplicates_stay_quick(pictures):
    """For a film of one scene, the number of pairs grows like the number of images."""
    film = [pictures[0] + np.uint8(n % 2) * (np.arange(28) == n // 2) for n in range(40)]
    found = [path for kind, path in said(film) if kind == "near_duplicate"]
    assert 0 < len(found) <= 4 * len(film)


def test_odd_images(pictures):
    """Images without contrast, without order or on the other background are named."""
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    floats = (pictures[1] > 100).astype(np.uint8)  # values of 0 and 1, saved as bytes
    odd = [np.full((28, 28), 9, np.uint8), floats, noise, 255 - pictures[0]]
    assert said([*pictures, *odd]) == [
        *(("no_contrast", "20"), ("no_contrast", "21"), ("noise", "22"), ("inverted", "23")),
    ]


def test_a_colored_image_among_gray_ones(pictures):
    """Colored images are named if they are the exception, not if they are the rule."""
    gray = [np.repeat(image[..., np.newaxis], 3, axis=-1) for image in pictures]
    colored = [image * np.array([1, 0, 0], np.uint8) for image in gray]
    assert said([*gray[:19], colored[19]]) == [("colored", "19")]
    assert said([*gray[:10], *colored[10:]]) == []


def test_a_class_with_a_telltale_difference(pictures):
    """Another type, size or brightness of a whole class is named, but not of a part of it."""
    labels = [0] * 10 + [1] * 10
    types = ["JPEG"] * 10 + ["PNG"] * 10
    assert said(pictures, labels, type=types) == [("class_differs", "0"), ("class_differs", "1")]
    assert said(pictures, labels, type=["JPEG"] * 5 + ["PNG"] * 15) == []
    bright = [image // 2 + 120 if n < 10 else image for n, image in enumerate(pictures)]
    differs = [path for kind, path in said(bright, labels) if kind == "class_differs"]
    assert differs == ["0", "1"]
    assert said(pictures[:9], [0] * 4 + [1] * 5, type=["JPEG"] * 4 + ["PNG"] * 5) == []


def test_numbers_of_images():
    """Five times as many images in one class are accepted, six times are refused."""

    def kinds(counts, per_class=None):
        labels = np.repeat(np.arange(len(counts)), counts)
        found = oddities.counts([*map(str, range(len(counts)))], labels, per_class)
        return [(finding.kind, finding.path) for finding in found]

    assert kinds([10, 10]) == []
    assert kinds([10, 50]) == [("uneven", ".")]
    assert kinds([10, 60]) == [("imbalanced", ".")]
    assert kinds([10, 60], per_class=10) == []
    assert kinds([10, 9, 60], per_class=10) == [("too_few", "1")]
