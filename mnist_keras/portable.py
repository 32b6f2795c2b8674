"""Initial weights and dropout masks whose random numbers are equal on every backend."""

import math
from collections.abc import MutableMapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mnist_keras._foundations.seeds import generator
from mnist_keras._foundations.typing import Tensor


class _Uniform(keras.initializers.Initializer):
    """Draws between ± a limit with NumPy, keyed by `(seed, path)`. Subclasses give the limit."""

    def __init__(self, path: str, seed: int = 0):
        self.path = path
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        values = generator(self.seed, self.path).random(shape, dtype=np.float32)
        limit = np.float32(self._limit(shape))
        values *= 2 * limit
        values -= limit
        return ops.convert_to_tensor(values, dtype=dtype)

    def _limit(self, shape: Sequence[int]) -> float:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {"path": self.path, "seed": self.seed}


@keras.saving.register_keras_serializable(package="mnist_keras")
class FanInUniform(_Uniform):
    """Draws weights from the uniform distribution on ±1/√fan_in, equal on every backend.

    PyTorch gives this distribution to the kernels and biases of its linear and convolutional
    layers. The numbers come from NumPy, keyed by `(seed, path)`.

    Args:
        path: Name of the variable, e.g. `"fc1/kernel"`. Variables of one model need different
            paths, or they get equal numbers.
        seed: Integer >= 0. Defaults to `0`.
        fan_in: Number of inputs of one unit. Defaults to the product of all dimensions but the
            last, which is right for kernels of `Dense` and `Conv` layers. A bias needs the
            fan-in of its kernel.

    Example:

    >>> layer = keras.layers.Dense(2, kernel_initializer=FanInUniform("fc/kernel", seed=1))
    """

    def __init__(self, path: str, seed: int = 0, fan_in: int | None = None):
        if fan_in is not None and fan_in < 1:
            raise ValueError(f"`fan_in` must be at least 1. Received: fan_in={fan_in}")
        super().__init__(path, seed)
        self.fan_in = fan_in

    def _limit(self, shape: Sequence[int]) -> float:
        return 1 / math.sqrt(self.fan_in or math.prod(shape[:-1]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fan_in": self.fan_in}


@keras.saving.register_keras_serializable(package="mnist_keras")
class GlorotUniform(_Uniform):
    """`keras.initializers.GlorotUniform`, ±√(6 / (fan_in + fan_out)), equal on every backend.

    `path` and `seed` are as for `FanInUniform`.

    Reference: [Glorot et al., 2010](http://proceedings.mlr.press/v9/glorot10a.html)
    """

    def _limit(self, shape: Sequence[int]) -> float:
        return math.sqrt(6 / sum(_fans(shape)))


@keras.saving.register_keras_serializable(package="mnist_keras")
class HeUniform(_Uniform):
    """`keras.initializers.HeUniform`, ±√(6 / fan_in), equal on every backend.

    `path` and `seed` are as for `FanInUniform`.

    Reference: [He et al., 2015](https://arxiv.org/abs/1502.01852)
    """

    def _limit(self, shape: Sequence[int]) -> float:
        return math.sqrt(6 / _fans(shape)[0])


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """Return Keras's fan-in and fan-out of a kernel: receptive field times channels."""
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


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
        seed: Integer >= 0. Defaults to `0`. Layers of one model may share it.
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
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(f"`rate` must be in [0, 1]. Received: rate={rate}")
        self.rate = rate
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)
        self.seed = seed
        key = generator(seed, f"{self.name}/mask").integers(2**31)
        self.mask_state = _MaskState(int(key), name="mask_state", dtype=self.dtype_policy)
        self.seed_generator = self.mask_state.seed_generator
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return inputs
        if self.rate == 1:
            return ops.zeros_like(inputs)
        keep = self.keep(self.seed_generator.next(), ops.shape(inputs))
        scale = ops.ones((), inputs.dtype) / (1 - self.rate)
        return ops.where(keep, inputs * scale, ops.zeros((), inputs.dtype))

    def keep(self, key_and_step: Tensor, input_shape: Sequence[int]) -> Tensor:
        """Return the mask of one step: a boolean tensor, true where an element is kept.

        `seed_generator` holds the two integers `key_and_step`. The mask broadcasts to the inputs.
        """
        noise_shape = self.noise_shape or input_shape
        pairs = zip(noise_shape, input_shape, strict=True)
        shape = [given if size is None else size for size, given in pairs]
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
class SpatialDropout2D(Dropout):
    """`keras.layers.SpatialDropout2D` whose masks are equal on every backend.

    Drops whole channels of images of shape `(batch, height, width, channels)`, and otherwise
    works like `Dropout`. `rate` is the share of the channels to drop.
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any):
        super().__init__(rate, noise_shape=(None, 1, 1, None), seed=seed, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["noise_shape"]
        return config
