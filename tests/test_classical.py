"""Classifiers without a network, and their features."""

from unittest.mock import patch

import numpy as np
import pytest

from mnist_keras.datasets import sources
from mnist_keras.datasets.images import LabeledImages
from mnist_keras.datasets.splits import draw
from mnist_keras.training.classical import classify, deskew, histograms_of_gradients
from mnist_keras.training.settings import Settings

pytestmark = pytest.mark.any_backend


def slant(image):
    """Return the center of mass and the two second moments that give an image's slant."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    mass = image.sum()
    middle = (image * y).sum() / mass, (image * x).sum() / mass
    dy, dx = y - middle[0], x - middle[1]
    return middle, (image * dy * dx).sum() / mass, (image * dy**2).sum() / mass


def leaning(shift, lean):
    """Return a soft bar whose middle is off the image's and which leans."""
    y, x = np.mgrid[:28, :28]
    along = (y - 13.5 - shift) / 5
    across = (x - 13.5 - 2 * shift - lean * (y - 13.5 - shift)) / 1.5
    return 200 * np.exp(-(along**2) - across**2)


@pytest.mark.parametrize("lean", [-0.7, 0.0, 0.5])
def test_a_leaning_bar_stands_upright_in_the_middle(lean):
    """Center of mass in the middle of the image, and no covariance of its two coordinates."""
    bar = leaning(2, lean)
    (upright,) = deskew(bar[None])
    (middle_y, middle_x), covariance, variance = slant(upright)
    assert slant(bar)[1] / slant(bar)[2] == pytest.approx(lean, abs=0.02)
    assert covariance / variance == pytest.approx(0, abs=0.01)
    assert (middle_y, middle_x) == pytest.approx((13.5, 13.5), abs=0.05)
    assert upright.sum() == pytest.approx(bar.sum(), rel=0.01)


def test_an_empty_image_and_a_level_line_stay():
    """They have no slant to measure."""
    images = np.zeros((2, 28, 28))
    images[1, 14, 4:24] = 100
    empty, line = deskew(images)
    assert not empty.any()
    assert np.isfinite(line).all()
    assert line.sum() == pytest.approx(2000, rel=0.01)


def naive_histograms(image):
    """The same histograms, pixel by pixel and vote by vote."""
    height, width = image.shape
    cells = np.zeros((5, 5, 9))
    gradient = np.gradient(image)
    for y, x in np.ndindex(height, width):
        down, right = gradient[0][y, x], gradient[1][y, x]
        angle = np.degrees(np.arctan2(down, right)) % 180 / 20
        for i, j, k in np.ndindex(5, 5, 9):
            near_y = max(0, 1 - abs((y + 0.5) * 5 / height - 0.5 - i))
            near_x = max(0, 1 - abs((x + 0.5) * 5 / width - 0.5 - j))
            apart = min(abs(angle - k), 9 - abs(angle - k))
            cells[i, j, k] += near_y * near_x * max(0, 1 - apart) * np.hypot(down, right)
    parts = []
    for i, j in np.ndindex(4, 4):
        block = cells[i : i + 2, j : j + 2].reshape(-1)
        block = np.minimum(block / np.sqrt((block**2).sum() + 1e-3), 0.2)
        parts.append(block / np.sqrt((block**2).sum() + 1e-3))
    return np.concatenate(parts)


def test_histograms_are_those_of_plain_loops():
    """The images are random, and not 28×28."""
    images = np.random.default_rng(0).random((2, 20, 15))
    expected = list(map(naive_histograms, images))
    np.testing.assert_allclose(histograms_of_gradients(images), expected, atol=1e-9)


def test_histograms_do_not_see_brightness():
    """Twice the contrast and any background give nearly the same histograms."""
    image = leaning(0, 0.4)[None] / 255
    plain, bright = histograms_of_gradients(image), histograms_of_gradients(0.5 + image / 2)
    np.testing.assert_allclose(bright, plain, atol=0.05)
    np.testing.assert_allclose(histograms_of_gradients(image + 0.5), plain, atol=1e-9)
    assert plain.max() > 0.2


@pytest.fixture(scope="module")
def digits():
    """A hundred digits to learn from, and others."""
    images, others = draw(sources.load("digits", channels=3), 10, seed=0)
    return images, others.take(np.arange(300))


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "nearest_neighbor"},
        {"model": "svm"},
        {"model": "svm", "augmentation": "affine", "copies": 2},
        {"model": "hog_svm"},
    ],
)
def test_they_learn(settings, digits):
    """Ten images of each digit are enough for most of the others, in any order of the images."""
    images, others = digits
    settings = Settings(**settings)
    classes = classify(settings, images, others.images, 0)
    assert (classes == others.labels).mean() > 0.85
    np.testing.assert_array_equal(classify(settings, images, others.images[:5], 0), classes[:5])


def test_nearest_neighbor_is_the_nearest(digits):
    """The class of the training image with the least squared distance."""
    images, others = digits
    x = images.images.reshape(len(images), -1).astype(float)
    y = others.images.reshape(len(others), -1).astype(float)
    nearest = ((y[:, None] - x) ** 2).sum(-1).argmin(-1)
    classes = classify(Settings(model="nearest_neighbor"), images, others.images, 0)
    np.testing.assert_array_equal(classes, images.labels[nearest])


def test_copies_are_seen(digits):
    """An SVM with two copies is trained on three times the images, each copy another view."""
    from sklearn.svm import SVC

    images, others = digits
    settings = Settings(model="svm", augmentation="shifts", copies=2)
    with patch.object(SVC, "fit", autospec=True, side_effect=SVC.fit) as fit:
        classify(settings, images, others.images[:1], 0)
    *chosen, last = (call.args[1] for call in fit.call_args_list)
    assert len(last) == 300
    assert max(map(len, chosen)) == 100  # cross-validation sees no copy
    assert np.any(last[100] != last[0])
    assert np.any(last[200] != last[100])


def test_two_classes_of_color():
    """Classes, channels and sizes are the data's own."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 99, (40, 12, 9, 3)).astype(np.uint8)
    images[20:, :6] += 100
    data = LabeledImages.of("two", images, np.repeat([0, 1], 20), ["a", "b"])
    for model in ("nearest_neighbor", "svm", "hog_svm"):
        assert (classify(Settings(model=model), data, images, 0) == data.labels).mean() > 0.9
