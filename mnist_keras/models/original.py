"""The original's two networks as functional models.

Both return logits. The original's networks end in log-softmax, and its cross entropy applies
log-softmax again. Twice is the same as once, so losses and gradients are the same.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
from keras import layers

from mnist_keras._foundations.typing import Tensor
from mnist_keras.portable import FanInUniform, SpatialDropout2D

_DROPOUT_RATE = 0.25


def basic_net(
    input_shape: Sequence[int] = (28, 28, 3),
    num_classes: int = 10,
    activation: str | None = "sigmoid",
    seed: int = 0,
) -> keras.Model:
    """Return the original's "Basic Net": two hidden layers of 512 and 256 units.

    Args:
        input_shape: `(height, width, channels)` of the images, with values in [0, 1].
        num_classes: Number of logits.
        activation: Activation of the hidden layers, as any Keras layer takes it.
        seed: Integer >= 0 for the initial weights, which are equal on every backend.

    Returns:
        An uncompiled `keras.Model` from `(batch, *input_shape)` to `(batch, num_classes)`, with
        1,338,634 parameters for the default arguments.

    Example:

    >>> basic_net().count_params()
    1338634

    Reference:
        The original's paper, section 3.3.
    """
    inputs = keras.Input(input_shape, name="images")
    x = layers.Flatten(data_format="channels_last", name="flatten")(inputs)
    x = _dense(x, 512, "fc1", seed, activation)
    x = _dense(x, 256, "fc2", seed, activation)
    return keras.Model(inputs, _dense(x, num_classes, "fc3", seed), name="basic_net")


def cnn(
    input_shape: Sequence[int] = (28, 28, 3),
    num_classes: int = 10,
    activation: str | None = "relu",
    seed: int = 0,
) -> keras.Model:
    """Return the original's "My CNN": three convolutions, channel dropout, three dense layers.

    As in the original, the second convolution has no activation.

    Args:
        input_shape, num_classes: As for `basic_net`.
        activation: Activation of the other hidden layers, as any Keras layer takes it.
        seed: Integer >= 0 for the initial weights and dropout, which are equal on every backend.

    Returns:
        An uncompiled `keras.Model` from `(batch, *input_shape)` to `(batch, num_classes)`, with
        21,923,258 parameters for the default arguments.

    Example:

    >>> cnn().count_params()
    21923258

    Reference:
        The original's paper, section 2.1.2.
    """
    inputs = keras.Input(input_shape, name="images")
    x = _conv(inputs, 32, "conv1", seed, activation)
    x = layers.MaxPooling2D(2, data_format="channels_last", name="pool1")(x)
    x = _conv(x, 64, "conv2", seed)
    x = layers.MaxPooling2D(2, data_format="channels_last", name="pool2")(x)
    x = SpatialDropout2D(_DROPOUT_RATE, "channels_last", seed, name="dropout1")(x)
    x = _conv(x, 128, "conv3", seed, activation)
    x = SpatialDropout2D(_DROPOUT_RATE, "channels_last", seed, name="dropout2")(x)
    x = layers.Flatten(data_format="channels_last", name="flatten")(x)
    x = _dense(x, 3000, "fc1", seed, activation)
    x = _dense(x, 1000, "fc2", seed, activation)
    return keras.Model(inputs, _dense(x, num_classes, "fc3", seed), name="cnn")


def count_parameters(name: str, input_shape: Sequence[int], num_classes: int) -> int:
    """Return the number of parameters of `"basic_net"` or `"cnn"`, without building it."""
    height, width, channels = input_shape

    def chain(*sizes: int) -> int:
        return sum((before + 1) * after for before, after in pairwise(sizes))

    if name == "basic_net":
        return chain(height * width * channels, 512, 256, num_classes)
    convolutions = chain(9 * channels, 32) + chain(9 * 32, 64) + chain(9 * 64, 128)
    return convolutions + chain((height // 4) * (width // 4) * 128, 3000, 1000, num_classes)


def _dense(x: Tensor, units: int, name: str, seed: int, activation: str | None = None) -> Tensor:
    return layers.Dense(units, **_options(name, activation, seed, fan_in=x.shape[-1]))(x)


def _conv(x: Tensor, filters: int, name: str, seed: int, activation: str | None = None) -> Tensor:
    options = _options(name, activation, seed, fan_in=3 * 3 * x.shape[-1])
    return layers.Conv2D(filters, 3, padding="same", data_format="channels_last", **options)(x)


def _options(name: str, activation: str | None, seed: int, fan_in: int) -> dict[str, Any]:
    """Return a layer's options, with PyTorch's default: kernel and bias uniform in ±1/√fan_in."""
    kernel, bias = (
        FanInUniform(seed, path=f"{name}/{part}", fan_in=fan_in) for part in ("kernel", "bias")
    )
    initial = {"kernel_initializer": kernel, "bias_initializer": bias}
    return {"name": name, "activation": activation, **initial}
