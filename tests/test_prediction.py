"""Images through a model: every image once, in its place."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose

from mnist_keras.models.prediction import BATCH, log_softmax, of_classes, predict, softmax


@pytest.fixture(scope="module")
def network():
    """A small network from images to three numbers."""
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten(data_format="channels_last")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 7])
def test_any_count(network, count):
    """Padding to whole calls adds and loses no image."""
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    expected = np.empty((0, 3))
    if count:
        expected = convert_to_numpy(network(images.astype("float32") / 255))
    assert_allclose(predict(network, images), expected, atol=1e-6)


@pytest.mark.any_backend
def test_softmax():
    """Probabilities are those of float64, at logits of any size."""
    logits = np.array([[0.0, 1.0, 2.0], [1000.0, 0.0, -1000.0]], np.float32)
    total = 1 + np.e + np.e**2
    expected = [[1 / total, np.e / total, np.e**2 / total], [1, 0, 0]]
    assert_allclose(softmax(logits), expected, atol=1e-15)
    assert softmax(np.empty((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.any_backend
def test_log_softmax_of_classes():
    """Log-probabilities are those of softmax, and stay exact where probabilities round to 0."""
    logits = np.random.default_rng(0).normal(0, 5, (6, 4)).astype(np.float32)
    classes = np.array([0, 1, 2, 3, 0, 1])
    found = of_classes(log_softmax(logits), classes)
    assert_allclose(found, np.log(softmax(logits))[np.arange(6), classes], atol=1e-14)
    assert log_softmax(np.array([[1000.0, 0.0, -1000.0]])).tolist() == [[0, -1000, -2000]]
    assert log_softmax(np.empty((0, 3), np.float32)).shape == (0, 3)
