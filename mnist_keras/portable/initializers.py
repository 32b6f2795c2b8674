"""Keras's random initializers with numbers from NumPy, equal on every backend.

Each class is a subclass of Keras's class of the same name, takes its arguments and has its
distribution. Only the numbers are others: those of NumPy's generator of (seed, path).
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mnist_keras._foundations.seeds import generator
from mnist_keras._foundations.typing import Tensor

Axes = Sequence[int] | None


class _VarianceScaling(keras.initializers.VarianceScaling):
    """Draws with NumPy what a subclass of `keras.initializers.VarianceScaling` describes."""

    def __init__(
        self, seed: Any = None, input_axes: Axes = None, output_axes: Axes = None, *, path: str = ""
    ):
        super().__init__(seed=seed, input_axes=input_axes, output_axes=output_axes)
        self.path = path

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        numbers = _generator(self.seed, self.path)
        fan_in, fan_out = self._fans(shape)
        fan = fan_in if self.mode == "fan_in" else (fan_in + fan_out) / 2
        if self.distribution == "uniform":
            limit = np.float32(math.sqrt(3 * self.scale / max(1, fan)))
            uniform = numbers.random(shape, dtype=np.float32)
            uniform *= 2 * limit
            uniform -= limit
            return _tensor(uniform, dtype)
        normal = np.asarray(numbers.standard_normal(shape))
        while (beyond := abs(normal) > 2).any():
            normal[beyond] = numbers.standard_normal(beyond.sum())
        normal /= 0.87962566103423978  # the deviation that is left between -2 and 2
        return _tensor(normal * math.sqrt(self.scale / max(1, fan)), dtype)

    def _fans(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return Keras's fan-in and fan-out of a kernel: receptive field times channels."""
        if self.input_axes is not None and self.output_axes is not None:
            fan_in = math.prod(shape[axis] for axis in self.input_axes)
            return fan_in, math.prod(shape[axis] for axis in self.output_axes)
        if len(shape) < 2:
            return math.prod(shape), math.prod(shape)
        field = math.prod(shape[:-2])
        return field * shape[-2], field * shape[-1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "path": self.path}


@keras.saving.register_keras_serializable(package="mnist_keras")
class GlorotUniform(_VarianceScaling, keras.initializers.GlorotUniform):
    """`keras.initializers.GlorotUniform`, ±√(6 / (fan_in + fan_out)), equal on every backend.

    Args:
        seed: Integer >= 0, or a `keras.random.SeedGenerator`, which gives other numbers at each
            call. Defaults to a number from Python's `random`, as in Keras.
        input_axes, output_axes: Axes of a kernel's inputs and outputs. Their sizes are fan_in and
            fan_out. Default to the last two axes, each times all axes before them.
        path: Name of the variable, e.g. `"fc1/kernel"`. Variables of equal seed, path and shape
            have equal numbers. Defaults to `""`.

    Example:

    >>> layer = keras.layers.Dense(2, kernel_initializer=GlorotUniform(1, path="fc/kernel"))

    Reference: [Glorot et al., 2010](http://proceedings.mlr.press/v9/glorot10a.html)
    """


@keras.saving.register_keras_serializable(package="mnist_keras")
class GlorotNormal(_VarianceScaling, keras.initializers.GlorotNormal):
    """As `GlorotUniform`, but truncated normal, of deviation √(2 / (fan_in + fan_out))."""


@keras.saving.register_keras_serializable(package="mnist_keras")
class HeUniform(_VarianceScaling, keras.initializers.HeUniform):
    """`keras.initializers.HeUniform`, ±√(6 / fan_in), equal on every backend.

    Arguments are those of `GlorotUniform`.

    Reference: [He et al., 2015](https://arxiv.org/abs/1502.01852)
    """


@keras.saving.register_keras_serializable(package="mnist_keras")
class HeNormal(_VarianceScaling, keras.initializers.HeNormal):
    """As `HeUniform`, but truncated normal, of deviation √(2 / fan_in)."""


@keras.saving.register_keras_serializable(package="mnist_keras")
class LecunNormal(_VarianceScaling, keras.initializers.LecunNormal):
    """`keras.initializers.LecunNormal`, deviation √(1 / fan_in), equal on every backend.

    Arguments are those of `GlorotUniform`.

    Reference: [Klambauer et al., 2017](https://arxiv.org/abs/1706.02515)
    """


@keras.saving.register_keras_serializable(package="mnist_keras")
class FanInUniform(_VarianceScaling, keras.initializers.LecunUniform):
    """Draws weights from the uniform distribution on ±1/√fan_in, equal on every backend.

    PyTorch gives this distribution to the kernels and biases of its linear and convolutional
    layers. It is `keras.initializers.LecunUniform` with a third of the variance.

    Args:
        seed: As for `GlorotUniform`.
        fan_in: Number of inputs of one unit. Defaults to that of a kernel. A bias needs the
            fan-in of its kernel.
        **kwargs: `path` and others, as for `GlorotUniform`.
    """

    def __init__(self, seed: Any = None, *, fan_in: int | None = None, **kwargs: Any):
        if fan_in is not None and fan_in < 1:
            raise ValueError(f"`fan_in` must be at least 1. Received: fan_in={fan_in}")
        super().__init__(seed, **kwargs)
        self.scale = 1 / 3
        self.fan_in = fan_in

    def _fans(self, shape: Sequence[int]) -> tuple[int, int]:
        fan_in, fan_out = super()._fans(shape)
        return self.fan_in or fan_in, fan_out

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fan_in": self.fan_in}


@keras.saving.register_keras_serializable(package="mnist_keras")
class Orthogonal(keras.initializers.Orthogonal):
    """`keras.initializers.Orthogonal`, equal on every backend of one machine.

    The factor Q is computed by NumPy in float64, from float64 normals. Another build of LAPACK may
    round it to other last bits.

    Args:
        gain: Factor of the orthogonal matrix. Defaults to `1.0`.
        seed, path: As for `GlorotUniform`.

    Raises:
        ValueError: If the shape has fewer than two dimensions.

    Reference: [Saxe et al., 2014](https://openreview.net/forum?id=_wzZwKpTDF_9C)
    """

    def __init__(self, gain: float = 1.0, seed: Any = None, *, path: str = ""):
        super().__init__(gain, seed)
        self.path = path

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        if len(shape) < 2:
            raise ValueError(
                "The tensor to initialize must be at least two-dimensional. "
                f"Received: shape={shape} of rank {len(shape)}."
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = max(rows, columns), min(rows, columns)
        q, r = np.linalg.qr(_generator(self.seed, self.path).standard_normal(tall))
        q *= np.sign(np.diag(r))  # otherwise Q would not be uniform
        return _tensor(self.gain * (q if rows >= columns else q.T).reshape(shape), dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "path": self.path}


def _generator(seed: Any, path: str) -> np.random.Generator:
    if isinstance(seed, keras.random.SeedGenerator):
        key, step = ops.convert_to_numpy(seed.next()).tolist()
        return generator(key, f"{path}/{step}")
    return generator(seed, path)


def _tensor(values: np.ndarray, dtype: str | None) -> Tensor:
    # Backends round float32 to 16 bits alike, and float64 in one step or in two.
    values = values.astype(np.float32, copy=False)
    return ops.convert_to_tensor(values, dtype=dtype or keras.config.floatx())
