"""Initial weights and dropout masks whose random numbers are equal on every backend."""

import math

import keras
import numpy as np
from keras import ops

from mnist_keras.seeds import generator


@keras.saving.register_keras_serializable(package="mnist_keras")
class FanInUniform(keras.initializers.Initializer):
    """Draws weights from the uniform distribution on ±1/√fan_in, equal on every backend.

    This is the distribution PyTorch gives the kernels and biases of its linear and
    convolutional layers. The numbers come from NumPy, keyed by `(seed, path)`.

    Args:
        path: Name of the variable, e.g. `"fc1/kernel"`. Variables of one model must
            have different paths, or they get equal numbers.
        seed: Integer >= 0. Defaults to `0`.
        fan_in: Number of inputs of one unit. Defaults to the product of all
            dimensions but the last, which is right for the kernels of `Dense` and
            `Conv` layers; a bias needs the fan-in of its kernel.

    Example:

    >>> layer = keras.layers.Dense(2, kernel_initializer=FanInUniform("fc/kernel", seed=1))
    """

    def __init__(self, path, seed=0, fan_in=None):
        if fan_in is not None and fan_in < 1:
            raise ValueError(f"`fan_in` must be at least 1. Received: fan_in={fan_in}")
        self.path = path
        self.seed = seed
        self.fan_in = fan_in

    def __call__(self, shape, dtype=None):
        fan_in = self.fan_in or math.prod(shape[:-1])
        values = generator(self.seed, self.path).random(shape, dtype=np.float32)
        bound = np.float32(1 / math.sqrt(fan_in))
        values *= 2 * bound
        values -= bound
        return ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self):
        return {"path": self.path, "seed": self.seed, "fan_in": self.fan_in}


def _mix(x):
    """Scramble 32-bit integers so that every output bit depends on every input bit.

    Xor-shifts and products with the constants of "lowbias32" (C. Wellons, "Prospecting for
    hash functions", 2018). `int32` is the one integer type whose products wrap around on all
    three backends; its right shift copies the sign bit, which the mask takes away.
    """

    def xor_shift(x, bits):
        shifted = ops.bitwise_and(ops.right_shift(x, bits), 2 ** (32 - bits) - 1)
        return ops.bitwise_xor(x, shifted)

    x = xor_shift(x, 16) * 0x7FEB352D
    x = xor_shift(x, 15) * (0x846CA68B - 2**32)
    return xor_shift(x, 16)


@keras.saving.register_keras_serializable(package="mnist_keras")
class SpatialDropout2D(keras.layers.Layer):
    """`keras.layers.SpatialDropout2D` whose masks are equal on every backend.

    Drops whole channels of channels-last images and scales the others by `1 / (1 - rate)`. The
    mask is a hash of (seed, layer name, step, image, channel); no backend's generator is read.

    Args:
        rate: Float in [0, 1). Share of the channels to drop.
        seed: Integer >= 0. Defaults to `0`. Layers of one model may share it.
        **kwargs: As `keras.layers.Layer`. Give a `name`: it is part of the hash.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        training: Whether to drop. Every training call counts as one step.
    """

    def __init__(self, rate, seed=0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}")
        self.rate = rate
        self.seed = seed
        # Keras's holder of (key, step): state that JAX threads through, yet no weight.
        key = generator(seed, f"{self.name}/mask").integers(2**31)
        self.seed_generator = keras.random.SeedGenerator(int(key))
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self.supports_masking = True
        self.built = True

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        batch, _, _, channels = ops.shape(inputs)
        key, step = ops.unstack(ops.cast(self.seed_generator.next(), "int32"), 2)
        element = ops.arange(batch * channels, dtype="int32")
        # Two rounds, so that neighbouring steps share no structure with neighbouring elements.
        hashed = _mix(ops.bitwise_xor(element, _mix(ops.bitwise_xor(key, _mix(step)))))
        # The lower 24 bits are a uniform integer in [0, 2**24).
        keep = ops.bitwise_and(hashed, 2**24 - 1) >= round(self.rate * 2**24)
        scale = ops.cast(keep, inputs.dtype) / (1 - self.rate)
        return inputs * ops.reshape(scale, (batch, 1, 1, channels))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}

    def save_own_variables(self, store):
        store["key_and_step"] = ops.convert_to_numpy(self.seed_generator.state).astype("int64")

    def load_own_variables(self, store):
        self.seed_generator.state.assign(np.array(store["key_and_step"]))
