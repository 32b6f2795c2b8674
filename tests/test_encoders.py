"""The small modern network: its layers, its parameters, and its first step."""

import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal

from mnist_keras.models.encoders import count_parameters, encoder, small_cnn
from mnist_keras.training.networks import get_weights


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("shape", "classes", "width"),
    [((28, 28, 1), 10, 16), ((28, 28, 3), 10, 24), ((40, 33, 1), 2, 5)],
)
def test_parameters_are_counted_without_building(shape, classes, width):
    """Of every shape, of the network with classes and of the encoder, which has none."""
    assert small_cnn(shape, classes, width=width).count_params() == count_parameters(
        shape, classes, width
    )
    assert encoder(shape, width=width).count_params() == count_parameters(shape, 0, width)


def test_the_encoder_is_the_beginning_of_the_network():
    """Same names, same initial weights, so that the weights of one are those of the other."""
    own, whole = get_weights(encoder(seed=3)), get_weights(small_cnn(seed=3))
    assert set(whole) - set(own) == {"logits/kernel", "logits/bias"}
    for path, weights in own.items():
        assert_array_equal(weights, whole[path])
    assert np.any(own["conv1/kernel"] != get_weights(encoder(seed=4))["conv1/kernel"])


def test_features_by_hand():
    """The encoder is what its docstring says, computed here with plain operations."""
    model = encoder((8, 8, 1), width=2, seed=1)
    x = np.random.default_rng(0).random((3, 8, 8, 1), dtype=np.float32)
    expected = x
    for number in range(1, 6):
        kernel = model.get_layer(f"conv{number}").kernel
        expected = ops.conv(expected, kernel, padding="same", data_format="channels_last")
        expected = ops.relu(expected / np.sqrt(1 + 1e-3))  # mean 0, variance 1 at first
        if number in (1, 3, 5):
            expected = ops.max_pool(expected, 2, 2, data_format="channels_last")
    assert_allclose(
        convert_to_numpy(model(x)), convert_to_numpy(expected).reshape(3, -1), rtol=1e-4, atol=1e-6
    )


def test_all_classes_are_equally_likely_at_first():
    """The first loss is the logarithm of the number of classes, whatever the image."""
    x = np.random.default_rng(0).random((3, 28, 28, 1), dtype=np.float32)
    assert not convert_to_numpy(small_cnn(num_classes=7)(x)).any()


def test_masks_differ_from_step_to_step():
    """Dropout stands before the logits, and is the portable one."""
    layer = small_cnn().get_layer("dropout")
    ones = np.ones((2, 576), "float32")
    first, second = (convert_to_numpy(layer(ones, training=True)) for _ in range(2))
    assert np.any(first != second)
    assert 0.5 < (first > 0).mean() < 0.7
