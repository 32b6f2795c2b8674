"""FocalLoss beside Keras's losses: what value and gradient cost, or a plot of both.

    KERAS_BACKEND=jax python tests/benchmarks/focal_loss.py [--plot docs/focal_loss.png]

JAX and TensorFlow compile the step with XLA, and PyTorch runs it eagerly. A cell of the table is
the median ratio over the rounds. `--seconds` is the time for each loss and round. Any backend draws
the plot.
"""

import statistics

import keras
import numpy as np
from shared import alternate, gradient_step, options, print_table, seconds_per_call

from mnist_keras import FocalLoss
from mnist_keras._foundations.pictures import COLORS, canvas

SHAPES = [(128, 10), (4096, 10), (512, 1000), (2, 128, 128, 21)]
KERAS_FOCAL = keras.losses.CategoricalFocalCrossentropy
CROSS_ENTROPY = "SparseCategoricalCrossentropy"
LOSSES = {
    CROSS_ENTROPY: (keras.losses.SparseCategoricalCrossentropy(from_logits=True), "integer"),
    "FocalLoss, integer labels": (FocalLoss(from_logits=True), "integer"),
    "FocalLoss, one-hot labels": (FocalLoss(from_logits=True), "one-hot"),
    "CategoricalFocalCrossentropy": (KERAS_FOCAL(alpha=1.0, from_logits=True), "one-hot"),
}
MARGINS = np.linspace(-30, 30, 1201, dtype="float32")
GAMMAS = (0.0, 0.5, 2.0)


def make_step(loss, labels, logits):
    return gradient_step(lambda z, y: loss(y, z), logits, labels)


def measure(shape, rounds, seconds):
    """Return the seconds per step of each loss, one number per round."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype("float32")
    integers = rng.integers(shape[-1], size=shape[:-1]).astype("int32")
    labels = {"integer": integers, "one-hot": np.eye(shape[-1], dtype="float32")[integers]}
    steps = {name: make_step(loss, labels[form], logits) for name, (loss, form) in LOSSES.items()}
    for step in steps.values():
        step()  # compiles
    return alternate(lambda step: seconds_per_call(step, seconds), steps, rounds)


def loss_and_slope(loss, **options):
    """Return the loss of logits (margin, 0), true class 0, and its derivative by the margin."""
    logits = np.stack([MARGINS, np.zeros_like(MARGINS)], axis=-1)
    labels = np.tile(np.float32([1, 0]), (len(MARGINS), 1))
    values = loss(reduction=None, **options)(labels, logits)
    gradient = make_step(loss(reduction="sum", **options), labels, logits)()
    return keras.ops.convert_to_numpy(values), keras.ops.convert_to_numpy(gradient)[:, 0]


def plot(path):
    """Draw loss and gradient against the margin, of FocalLoss and of Keras's own."""
    figure = canvas(11, 4.2)
    left, right = figure.subplots(1, 2)
    for gamma, color in zip(GAMMAS, COLORS, strict=False):
        options = {"gamma": gamma, "alpha": 1.0, "from_logits": True}
        ours = loss_and_slope(FocalLoss, **options)
        theirs = loss_and_slope(KERAS_FOCAL, **options)
        name = f"gamma = {gamma:g}"
        for axes, solid, dashed in zip((left, right), ours, theirs, strict=True):
            axes.plot(MARGINS, np.abs(solid), color=color, lw=3, alpha=0.5, label=name)
            axes.plot(MARGINS, np.abs(dashed), "--", color=color, lw=1.5, label=f"{name}, Keras")
    left.set(title="loss", ylabel="loss")
    right.set(title="gradient", ylabel="|d loss / d margin|", yscale="log", ylim=(1e-12, 5))
    for axes in (left, right):
        axes.set_xlabel("margin: logit of the true class minus the other")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    theirs = f"CategoricalFocalCrossentropy of Keras {keras.__version__} (dashed)"
    figure.suptitle(f"FocalLoss (solid) and {theirs}, two classes, float32", fontsize=10)
    figure.savefig(path, dpi=120)


def rows(rounds, seconds):
    yield [keras.backend.backend(), *("x".join(map(str, shape)) for shape in SHAPES)]
    columns = [measure(shape, rounds, seconds) for shape in SHAPES]
    microseconds = (1e6 * statistics.median(times[CROSS_ENTROPY]) for times in columns)
    yield [f"{CROSS_ENTROPY}, µs", *(f"{value:.0f}" for value in microseconds)]
    for name in [name for name in LOSSES if name != CROSS_ENTROPY]:
        ratios = (np.divide(times[name], times[CROSS_ENTROPY]) for times in columns)
        yield [name, *(f"{statistics.median(ratio):.2f}" for ratio in ratios)]


given = options(__doc__, plot="", rounds=15, seconds=0.05)
if given.plot:
    plot(given.plot)
else:
    print_table(rows(given.rounds, given.seconds))
