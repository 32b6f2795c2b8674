"""Print what portable dropout costs beside Keras's own: a training step of one layer.

    KERAS_BACKEND=jax python tests/benchmarks/dropout.py

JAX and TensorFlow compile the step, and PyTorch runs it eagerly. The layers take turns, so that
other work on the machine slows all of them alike. A cell is the median ratio of ours to Keras's
over the rounds.
"""

import argparse
import statistics

import keras
import numpy as np
from timing import seconds_per_call

from mnist_keras import Dropout, SpatialDropout2D

PAIRS = {
    "Dropout, 100×512": ((100, 512), Dropout, keras.layers.Dropout),
    "Dropout, 100×3000": ((100, 3000), Dropout, keras.layers.Dropout),
    "Dropout, 100×28×28×32": ((100, 28, 28, 32), Dropout, keras.layers.Dropout),
    "SpatialDropout2D, 100×7×7×64": (
        (100, 7, 7, 64),
        SpatialDropout2D,
        keras.layers.SpatialDropout2D,
    ),
    "SpatialDropout2D, 100×28×28×32": (
        (100, 28, 28, 32),
        SpatialDropout2D,
        keras.layers.SpatialDropout2D,
    ),
}


def make_step(layer, shape):
    """Return a function of no arguments that computes output and gradient and waits for both."""
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        state = [v.value for v in layer.non_trainable_variables]

        def loss(x, state):
            y, state = layer.stateless_call([], state, x, training=True)
            return (y * y).sum(), state

        compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
        x = jax.numpy.asarray(x)
        return lambda: jax.block_until_ready(compiled(x, state))

    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)

        @tf.function
        def compiled():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                value = tf.reduce_sum(y * y)
            return tape.gradient(value, x)

        return lambda: compiled().numpy()

    import torch

    torch.set_num_threads(1)  # threads that wait for a busy core would be all we measure
    x = torch.tensor(x, requires_grad=True)

    def step():
        y = layer(x, training=True)
        return torch.autograd.grad((y * y).sum(), x)

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="per layer and round")
    arguments = parser.parse_args()

    print(f"| {keras.backend.backend()} | Keras's own, µs | ours / Keras's |")
    print("|---|---:|---:|")
    for name, (shape, ours, keras_own) in PAIRS.items():
        steps = [make_step(kind(0.25, seed=1, name="dropout"), shape) for kind in (ours, keras_own)]
        for step in steps:
            step()  # compiles
        rounds = [
            [seconds_per_call(step, arguments.seconds) for step in steps]
            for _ in range(arguments.rounds)
        ]
        ratio = statistics.median(a / b for a, b in rounds)
        print(f"| {name} | {1e6 * statistics.median(b for _, b in rounds):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
