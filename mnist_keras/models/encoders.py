"""A small modern network: an encoder of five normalized convolutions, with and without classes."""

from collections.abc import Sequence

import keras
from keras import layers

from mnist_keras._foundations.typing import Tensor
from mnist_keras.portable import Dropout, HeUniform

_DROPOUT_RATE = 0.4
# Few images make few batches: Keras's 0.99 would average over more batches than there are.
_MOMENTUM = 0.9


def encoder(
    input_shape: Sequence[int] = (28, 28, 1),
    activation: str | None = "relu",
    width: int = 16,
    seed: int = 0,
) -> keras.Model:
    """Return a network from images to features: five convolutions in three stages.

    Each convolution is normalized over the batch. Each stage ends in a max pooling by 2 and has
    twice the channels of the stage before.

    Args:
        input_shape: `(height, width, channels)` of the images, with values in [0, 1].
        activation: Activation of all layers, as any Keras layer takes it.
        width: Channels of the first convolution.
        seed: Integer >= 0 for the initial weights, which are equal on every backend.

    Returns:
        An uncompiled `keras.Model` from `(batch, *input_shape)` to `(batch, features)`, with
        `(image height // 8) * (image width // 8) * 4 * width` features.

    Reference:
        [Ioffe & Szegedy, 2015](https://arxiv.org/abs/1502.03167), batch normalization.
    """
    inputs = keras.Input(input_shape, name="images")
    return keras.Model(inputs, _features(inputs, activation, width, seed), name="encoder")


def small_cnn(
    input_shape: Sequence[int] = (28, 28, 1),
    num_classes: int = 10,
    activation: str | None = "relu",
    width: int = 16,
    seed: int = 0,
) -> keras.Model:
    """Return `encoder` followed by dropout and one dense layer, whose logits are 0 at first.

    Args:
        num_classes: Number of logits.
        input_shape, activation, width: As for `encoder`.
        seed: Integer >= 0 for the initial weights and dropout, which are equal on every backend.

    Returns:
        An uncompiled `keras.Model` from `(batch, *input_shape)` to `(batch, num_classes)`, with
        76,122 parameters for the default arguments.

    Example:

    >>> small_cnn().count_params()
    76122
    """
    inputs = keras.Input(input_shape, name="images")
    x = _features(inputs, activation, width, seed)
    x = Dropout(_DROPOUT_RATE, seed=seed, name="dropout")(x)
    # Rounding grows a hundredfold in the first steps from random logits, and not from 0.
    logits = layers.Dense(num_classes, name="logits", kernel_initializer="zeros")(x)
    return keras.Model(inputs, logits, name="small_cnn")


def count_parameters(input_shape: Sequence[int], num_classes: int, width: int) -> int:
    """Return the number of parameters of `small_cnn`, or of `encoder` if `num_classes` is 0."""
    height, columns, channels = input_shape
    convolutions = 25 * channels * width + 9 * width * width * (2 + 4 + 8 + 16)
    normalizations = 4 * width * (1 + 2 + 2 + 4 + 4)
    features = (height // 8) * (columns // 8) * 4 * width
    return convolutions + normalizations + (features + 1) * num_classes


def _features(x: Tensor, activation: str | None, width: int, seed: int) -> Tensor:
    layout = {"data_format": "channels_last"}
    for stage, numbers in enumerate(((1,), (2, 3), (4, 5))):
        for number in numbers:
            options = {"padding": "same", "use_bias": False, "name": f"conv{number}"} | layout
            options["kernel_initializer"] = HeUniform(seed, path=f"conv{number}/kernel")
            x = layers.Conv2D(2**stage * width, 5 if stage == 0 else 3, **options)(x)
            x = layers.BatchNormalization(axis=-1, momentum=_MOMENTUM, name=f"norm{number}")(x)
            x = layers.Activation(activation, name=f"activation{number}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{stage + 1}", **layout)(x)
    return layers.Flatten(data_format="channels_last", name="flatten")(x)
