"""Print what FocalLoss costs beside Keras's losses: value and gradient, on the active backend.

Run `KERAS_BACKEND=jax python tests/benchmarks/focal_loss.py`. JAX and TensorFlow compile the
step with XLA, PyTorch runs it eagerly. The losses take turns, so that other work on the machine
slows all of them alike; a cell is the median ratio over the rounds.
"""

import argparse
import statistics

import keras
import numpy as np
from timing import seconds_per_call

from mnist_keras.losses.focal import FocalLoss

SHAPES = [(128, 10), (4096, 10), (512, 1000), (2, 128, 128, 21)]
CROSS_ENTROPY = "SparseCategoricalCrossentropy"
LOSSES = {
    CROSS_ENTROPY: (keras.losses.SparseCategoricalCrossentropy(from_logits=True), "integer"),
    "FocalLoss, integer labels": (FocalLoss(from_logits=True), "integer"),
    "FocalLoss, one-hot labels": (FocalLoss(from_logits=True), "one-hot"),
    "CategoricalFocalCrossentropy": (
        keras.losses.CategoricalFocalCrossentropy(alpha=1.0, from_logits=True),
        "one-hot",
    ),
}


def make_step(loss, labels, logits):
    """Return a function of no arguments that computes value and gradient and waits for both."""
    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(jax.value_and_grad(lambda z, y: loss(y, z)))
        labels, logits = jax.numpy.asarray(labels), jax.numpy.asarray(logits)
        return lambda: jax.block_until_ready(compiled(logits, labels))

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def compiled(z, y):
            with tf.GradientTape() as tape:
                tape.watch(z)
                value = loss(y, z)
            return value, tape.gradient(value, z)

        labels, logits = tf.constant(labels), tf.constant(logits)
        return lambda: compiled(logits, labels)[1].numpy()

    import torch

    torch.set_num_threads(1)  # threads that wait for a busy core would be all we measure

    labels, logits = torch.tensor(labels), torch.tensor(logits, requires_grad=True)
    return lambda: torch.autograd.grad(loss(labels, logits), logits)


def measure(shape, rounds, seconds):
    """Return the seconds per step of each loss, one number per round."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype("float32")
    integers = rng.integers(shape[-1], size=shape[:-1]).astype("int32")
    labels = {"integer": integers, "one-hot": np.eye(shape[-1], dtype="float32")[integers]}
    steps = {name: make_step(loss, labels[form], logits) for name, (loss, form) in LOSSES.items()}
    for step in steps.values():
        step()  # compiles
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds_per_call(step, seconds))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.05, help="per loss and round")
    arguments = parser.parse_args()

    columns = [measure(shape, arguments.rounds, arguments.seconds) for shape in SHAPES]
    print(f"| {keras.backend.backend()} |", *("x".join(map(str, shape)) + " |" for shape in SHAPES))
    print("|---" * (1 + len(SHAPES)) + "|")
    microseconds = (f"{1e6 * statistics.median(times[CROSS_ENTROPY]):.0f}" for times in columns)
    print(f"| {CROSS_ENTROPY}, µs |", *(cell + " |" for cell in microseconds))
    for name in [name for name in LOSSES if name != CROSS_ENTROPY]:
        ratios = [
            statistics.median(a / b for a, b in zip(times[name], times[CROSS_ENTROPY], strict=True))
            for times in columns
        ]
        print(f"| {name} |", *(f"{ratio:.2f} |" for ratio in ratios))


if __name__ == "__main__":
    main()
