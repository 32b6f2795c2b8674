"""Print what portable dropout costs beside Keras's own: a training step of one layer.

    KERAS_BACKEND=jax python tests/benchmarks/dropout.py

JAX and TensorFlow compile the step, and PyTorch runs it eagerly. A cell is the median ratio of
ours to Keras's over the rounds. `--seconds` is the time for each layer and round.
"""

import statistics

import keras
import numpy as np
from shared import alternate, gradient_step, options, print_table, seconds_per_call

import mnist_keras

CASES = [
    ("Dropout", (100, 512)),
    ("Dropout", (100, 3000)),
    ("Dropout", (100, 28, 28, 32)),
    ("SpatialDropout2D", (100, 7, 7, 64)),
    ("SpatialDropout2D", (100, 28, 28, 32)),
]


def make_step(layer, shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")

    def squares(x, *state):
        if state:
            y, _ = layer.stateless_call([], state, x, training=True)
        else:
            y = layer(x, training=True)
        return keras.ops.sum(y * y)

    # JAX would compile a state that is not an argument into the step as a constant.
    jax = keras.backend.backend() == "jax"
    state = [v.value for v in layer.non_trainable_variables] if jax else []
    return gradient_step(squares, x, *state, xla=False)


def rows(rounds, seconds):
    yield [keras.backend.backend(), "Keras's own, µs", "ours / Keras's"]
    for name, shape in CASES:
        steps = {
            library: make_step(getattr(library, name)(0.25, seed=1, name="dropout"), shape)
            for library in (mnist_keras, keras.layers)
        }
        for step in steps.values():
            step()  # compiles
        ours, theirs = alternate(
            lambda step: seconds_per_call(step, seconds), steps, rounds
        ).values()
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        case = f"{name}, {'×'.join(map(str, shape))}"
        yield [case, f"{1e6 * statistics.median(theirs):.0f}", f"{ratio:.2f}"]


print_table(rows(**vars(options(__doc__, rounds=15, seconds=0.1))))
