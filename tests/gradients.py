"""Values and derivatives of functions of one tensor, on the backend that the tests run on."""

import contextlib
import functools

import keras
import numpy as np
from keras import ops
from keras.ops import convert_to_numpy


def compiled(function):
    """Compile a function of one tensor with XLA; PyTorch stays eager."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return function


def with_gradient(function, x):
    """Return `function(x)` and the gradient of its sum."""
    match keras.backend.backend():
        case "jax":
            import jax

            value, pull = jax.vjp(function, x)
            return value, pull(ops.ones_like(value))[0]
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x)
            return value, tape.gradient(value, x)
        case _:
            import torch

            x = x.detach().requires_grad_()
            value = function(x)
            return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def value_and_gradient(function, x, dtype="float32", jit=False):
    """Return `function(x)` as an array and the gradient of its sum."""
    both = functools.partial(with_gradient, function)
    found = (compiled(both) if jit else both)(ops.convert_to_tensor(x, dtype))
    return tuple(convert_to_numpy(ops.cast(a, "float32")) for a in found)


def hessians(function, x):
    """Return the second derivatives of each row's value in the row."""
    x = ops.convert_to_tensor(x, "float32")
    if keras.backend.backend() == "torch":
        import torch

        found = torch.autograd.functional.hessian(lambda z: function(z).sum(), x)
        return np.einsum("iaib->iab", convert_to_numpy(found))
    columns = (
        with_gradient(lambda z, i=i: with_gradient(function, z)[1][:, i], x)[1]
        for i in range(x.shape[-1])
    )
    return np.stack([convert_to_numpy(column) for column in columns], axis=1)


@contextlib.contextmanager
def suspicious():
    """Each backend's search for NaN, JAX's refusal of implied ranks, TensorFlow's in a graph."""
    match keras.backend.backend():
        case "jax":
            import jax

            with jax.debug_nans(True), jax.numpy_rank_promotion("raise"):
                yield lambda function: function
        case "tensorflow":
            import tensorflow as tf

            tf.debugging.enable_check_numerics()
            try:
                yield tf.function
            finally:
                tf.debugging.disable_check_numerics()
        case _:
            import torch

            with torch.autograd.detect_anomaly(check_nan=True):
                yield lambda function: function
