"""The original's two networks as functional models.

Both return logits. The originals end in log-softmax, to which cross entropy applies softmax's
logarithm again; log-softmax of log-softmax is itself, so losses and gradients are the same.
"""

from itertools import pairwise

import keras
from keras import layers

from mnist_keras.portable import FanInUniform, SpatialDropout2D

_DROPOUT_RATE = 0.25


def basic_net(input_shape=(28, 28, 3), num_classes=10, activation="sigmoid", seed=0):
    """Return the original's "Basic Net": two hidden layers of 512 and 256 units.

    Args:
        input_shape: `(height, width, channels)` of the images, with values in [0, 1].
        num_classes: Number of logits.
        activation: Activation of the hidden layers, as any Keras layer takes it.
        seed: Integer >= 0 for the initial weights, which are equal on every backend.

    Returns:
        An uncompiled `keras.Model` from `(batch, *input_shape)` to `(batch, num_classes)`;
        1,338,634 parameters with the default arguments.

    Example:

    >>> basic_net().count_params()
    1338634

    Reference:
        The report, section 3.3.
    """
    inputs = keras.Input(input_shape, name="images")
    x = layers.Flatten(data_format="channels_last", name="flatten")(inputs)
    x = _dense(x, 512, "fc1", seed, activation)
    x = _dense(x, 256, "fc2", seed, activation)
    return keras.Model(inputs, _dense(x, num_classes, "fc3", seed), name="basic_net")


def cnn(input_shape=(28, 28, 3), num_classes=10, activation="relu", seed=0):
    """Return the original's "My CNN": three convolutions, channel dropout, three dense layers.

    As in the original, the second convolution has no activation.

    Args:
        input_shape: `(height, width, channels)` of the images, with values in [0, 1].
        num_classes: Number of logits.
        activation: Activation of the other hidden layers, as any Keras layer takes it.
        seed: Integer >= 0 for initial weights and dropout, equal on every backend.

    Returns:
        An uncompiled `keras.Model` from `(batch, *input_shape)` to `(batch, num_classes)`;
        21,923,258 parameters with the default arguments.

    Example:

    >>> cnn().count_params()
    21923258

    Reference:
        The report, section 2.1.2.
    """
    inputs = keras.Input(input_shape, name="images")
    x = _conv(inputs, 32, "conv1", seed, activation)
    x = _max_pool(x, "pool1")
    x = _conv(x, 64, "conv2", seed)
    x = _max_pool(x, "pool2")
    x = SpatialDropout2D(_DROPOUT_RATE, seed, name="dropout1")(x)
    x = _conv(x, 128, "conv3", seed, activation)
    x = SpatialDropout2D(_DROPOUT_RATE, seed, name="dropout2")(x)
    x = layers.Flatten(data_format="channels_last", name="flatten")(x)
    x = _dense(x, 3000, "fc1", seed, activation)
    x = _dense(x, 1000, "fc2", seed, activation)
    return keras.Model(inputs, _dense(x, num_classes, "fc3", seed), name="cnn")


def count_parameters(name, input_shape, num_classes):
    """Return how many parameters a network has, without building it.

    Args:
        name: `"basic_net"` or `"cnn"`.
        input_shape: `(height, width, channels)` of the images.
        num_classes: Number of logits.
    """
    height, width, channels = input_shape

    def chain(*sizes):
        return sum((before + 1) * after for before, after in pairwise(sizes))

    if name == "basic_net":
        return chain(height * width * channels, 512, 256, num_classes)
    convolutions = chain(9 * channels, 32) + chain(9 * 32, 64) + chain(9 * 64, 128)
    return convolutions + chain((height // 4) * (width // 4) * 128, 3000, 1000, num_classes)


def _dense(x, units, name, seed, activation=None):
    initial = _torch_initializers(name, seed, fan_in=x.shape[-1])
    return layers.Dense(units, activation, name=name, **initial)(x)


def _conv(x, filters, name, seed, activation=None):
    initial = _torch_initializers(name, seed, fan_in=3 * 3 * x.shape[-1])
    layer = layers.Conv2D(
        filters,
        kernel_size=3,
        padding="same",
        data_format="channels_last",
        activation=activation,
        name=name,
        **initial,
    )
    return layer(x)


def _max_pool(x, name):
    return layers.MaxPooling2D(2, data_format="channels_last", name=name)(x)


def _torch_initializers(name, seed, fan_in):
    """Return PyTorch's default: kernel and bias alike uniform in ±1/√fan_in of the kernel."""
    return {
        f"{variable}_initializer": FanInUniform(f"{name}/{variable}", seed, fan_in)
        for variable in ("kernel", "bias")
    }
