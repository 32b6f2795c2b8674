"""Keras's dropout layers, whose masks are equal on every backend."""

import math
import random
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mnist_keras._foundations.seeds import generator
from mnist_keras._foundations.typing import Tensor


def _mix(x: Tensor) -> Tensor:
    """Scramble 32-bit integers so that every output bit depends on every input bit.

    The xor-shifts and products are those of "lowbias32" (C. Wellons, "Prospecting for hash
    functions", 2018). `int32` is the only integer type whose products wrap around on all three
    backends. Its right shift copies the sign bit, which the mask removes.
    """

    def xor_shift(x: Tensor, bits: int) -> Tensor:
        shifted = ops.bitwise_and(ops.right_shift(x, bits), 2 ** (32 - bits) - 1)
        return ops.bitwise_xor(x, shifted)

    x = xor_shift(x, 16) * 0x7FEB352D
    x = xor_shift(x, 15) * (0x846CA68B - 2**32)
    return xor_shift(x, 16)


@keras.saving.register_keras_serializable(package="mnist_keras")
class Dropout(keras.layers.Layer):
    """`keras.layers.Dropout` whose masks are equal on every backend.

    Sets elements to 0 and scales the others by `1 / (1 - rate)`. The mask is a hash of (seed,
    layer name, step, element) and reads no backend's generator. The step is saved with the model,
    so that a loaded model goes on with the next mask. Files of weights fit networks with Keras's
    dropout or none, and theirs fit here.

    Args:
        rate: Float in [0, 1]. Share of the elements to drop.
        noise_shape: Shape of the mask, with `None` for the size of the inputs. Along a dimension
            of size 1 the mask does not change. Defaults to the shape of the inputs.
        seed: Integer >= 0. Layers of one model may share it. Defaults to a number from Python's
            `random`, as in Keras: masks differ from one program run to the next, unless
            `keras.utils.set_random_seed` was called.
        **kwargs: As `keras.layers.Layer`. Give a `name`: it is part of the hash.

    Call arguments:
        inputs: Tensor of any shape.
        training: Whether to drop. Each call in training counts as one step.

    Example:

    >>> layer = Dropout(0.5, seed=1, name="dropout")
    >>> ops.convert_to_numpy(layer(np.ones((1, 6), "float32"), training=True)).tolist()
    [[0.0, 2.0, 2.0, 0.0, 0.0, 2.0]]
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(
                "Invalid value received for argument `rate`. "
                f"Expected a float value between 0 and 1. Received: rate={rate}"
            )
        self.rate = rate
        self.noise_shape = self._mask_shape = _checked(noise_shape)
        self.seed = seed
        drawn = random.randint(1, 10**9) if seed is None else seed  # Keras's draw
        key = generator(drawn, f"{self.name}/mask").integers(2**31)
        self.mask_state = _MaskState(int(key), name="mask_state", dtype=self.dtype_policy)
        self.supports_masking = True
        self._build_at_init()

    @property
    def seed_generator(self) -> keras.random.SeedGenerator:
        """The holder of (key, step)."""
        return self.mask_state.seed_generator

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return inputs
        if self.rate == 1:
            return ops.zeros_like(inputs)
        keep = self.keep(self.seed_generator.next(), ops.shape(inputs))
        if self.noise_shape is not None:  # which need not fit
            keep = ops.broadcast_to(keep, ops.shape(inputs))
        return self._drop(inputs, keep)

    def _drop(self, inputs: Tensor, keep: Tensor) -> Tensor:
        scale = ops.ones((), inputs.dtype) / (1 - self.rate)
        return ops.where(keep, inputs * scale, ops.zeros((), inputs.dtype))

    def keep(self, key_and_step: Tensor, input_shape: Sequence[int]) -> Tensor:
        """Return the mask of one step: a boolean tensor, true where an element is kept.

        `seed_generator` holds the two integers `key_and_step`. The mask broadcasts to the inputs.
        """
        sizes = input_shape if self._mask_shape is None else self._mask_shape
        shape = [input_shape[i] if size is None else size for i, size in enumerate(sizes)]
        key, step = ops.unstack(ops.cast(key_and_step, "int32"), 2)
        element = ops.arange(math.prod(shape), dtype="int32")
        # Two rounds, so that neighboring steps share no structure with neighboring elements.
        hashed = _mix(ops.bitwise_xor(element, _mix(ops.bitwise_xor(key, _mix(step)))))
        # The lower 24 bits are a uniform integer in [0, 2**24).
        kept = ops.bitwise_and(hashed, 2**24 - 1) >= round(self.rate * 2**24)
        return ops.reshape(kept, shape)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"rate": self.rate, "noise_shape": self.noise_shape, "seed": self.seed}
        return {**super().get_config(), **own}


def _checked(noise_shape: Any) -> tuple[int | None, ...] | None:
    """Return the shape as a tuple, or raise a `ValueError` in Keras's words."""
    if noise_shape is None:
        return None
    wrong = "Invalid value received for argument `noise_shape`. Expected "
    received = f". Received: noise_shape={noise_shape}"
    if isinstance(noise_shape, str) or not isinstance(noise_shape, Iterable):
        raise ValueError(f"{wrong}a tuple or list of integers{received}")
    sizes = tuple(noise_shape)
    given = [size for size in sizes if size is not None]
    if not all(isinstance(size, int) for size in given):
        raise ValueError(f"{wrong}all elements to be integers or None{received}")
    if not all(size > 0 for size in given):
        raise ValueError(f"{wrong}all dimensions to be positive integers or None{received}")
    return sizes


class _MaskState(keras.layers.Layer):
    """Saves dropout's key and step in a place of a file where Keras's dropout reads nothing."""

    def __init__(self, key: int, **kwargs: Any):
        super().__init__(**kwargs)
        # Keras's holder of (key, step): state that JAX threads through, but not a weight.
        self.seed_generator = keras.random.SeedGenerator(key)
        self.built = True

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        store["key_and_step"] = ops.convert_to_numpy(self.seed_generator.state).astype("int64")

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        if "key_and_step" in store:
            self.seed_generator.state.assign(np.array(store["key_and_step"]))


@keras.saving.register_keras_serializable(package="mnist_keras")
class AlphaDropout(Dropout):
    """`keras.layers.AlphaDropout` whose masks are equal on every backend.

        y = a · (x if kept, else α′) + b,    α′ = −1.7581,  a² = 1 / ((1 − p)(1 + p α′²)),
                                             b = −a p α′

    α′ is the value at which SELU saturates. For inputs of mean 0 and variance 1, so are the
    outputs. At rate p = 1 they are the limit, 0. Arguments are those of `Dropout`.

    Reference:
        [Klambauer et al., 2017](https://arxiv.org/abs/1706.02515)
    """

    def _drop(self, inputs: Tensor, keep: Tensor) -> Tensor:
        saturated = -1.6732632423543772 * 1.0507009873554805
        a = ((1 - self.rate) * (1 + self.rate * saturated**2)) ** -0.5
        x = ops.where(keep, inputs, ops.cast(saturated, inputs.dtype))
        return a * x - a * self.rate * saturated


class _SpatialDropout(Dropout):
    """Drops whole channels: along the other axes the mask does not change."""

    _rank: int

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        data_format = str(data_format or keras.config.image_data_format()).lower()
        ones = (1,) * (self._rank - 2)
        shapes = {"channels_first": (None, None, *ones), "channels_last": (None, *ones, None)}
        if data_format not in shapes:
            raise ValueError(
                "The `data_format` argument must be one of {'channels_first', 'channels_last'}. "
                f"Received: data_format={data_format}"
            )
        super().__init__(rate, seed=seed, name=name, dtype=dtype, **kwargs)
        self.data_format = data_format
        self._mask_shape = shapes[data_format]
        self.input_spec = keras.layers.InputSpec(ndim=self._rank)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "data_format": self.data_format}
        del config["noise_shape"]
        return config


@keras.saving.register_keras_serializable(package="mnist_keras")
class SpatialDropout1D(_SpatialDropout):
    """`keras.layers.SpatialDropout1D` whose masks are equal on every backend.

    Drops whole channels of inputs of shape `(batch, steps, channels)`. `rate` is the share of the
    channels to drop; it, `seed` and `name` are as for `Dropout`.
    """

    _rank = 3

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        super().__init__(rate, "channels_last", seed, name, dtype, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["data_format"]
        return config


@keras.saving.register_keras_serializable(package="mnist_keras")
class SpatialDropout2D(_SpatialDropout):
    """`keras.layers.SpatialDropout2D` whose masks are equal on every backend.

    Drops whole channels of images of shape `(batch, height, width, channels)`, or
    `(batch, channels, height, width)` if `data_format` is `"channels_first"`. It defaults to that
    of Keras's configuration. `rate` is the share of the channels to drop; it, `seed` and `name`
    are as for `Dropout`.
    """

    _rank = 4


@keras.saving.register_keras_serializable(package="mnist_keras")
class SpatialDropout3D(_SpatialDropout):
    """`keras.layers.SpatialDropout3D` whose masks are equal on every backend.

    As `SpatialDropout2D`, with three axes between, before or after `batch` and `channels`.
    """

    _rank = 5
