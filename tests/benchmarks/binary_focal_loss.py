"""BinaryFocalLoss beside other focal losses: value and gradient by margin, or what they cost.

    KERAS_BACKEND=jax python tests/benchmarks/binary_focal_loss.py [--cost 1]

The margin is the logit of a positive label, or the negated one of a negative. It is dead where the
gradient is less than half of what it should be, on either side, and NaN where that of gamma 0.5 is.
Keras's two losses are its own. `torchvision` is the documented formula of its `sigmoid_focal_loss`,
and `segmentation_models` that of its `BinaryFocalLoss`, both in `keras.ops`. JAX and TensorFlow
compile the step of `--cost` with XLA, and PyTorch runs it eagerly.
"""

import statistics

import keras
import numpy as np
from keras import ops
from shared import alternate, gradient_step, options, print_table, seconds_per_call

from mnist_keras import BinaryFocalLoss

SHAPES = [(128, 1), (100_000, 1), (512, 1000)]
MARGINS = [-40, -20, -10, 0, 10, 20, 40]
FINE = np.linspace(-40, 40, 1601, dtype="float32")[:, None]


def torchvision(y, z, gamma):
    p = ops.sigmoid(z)
    cross_entropy = (1 - y) * z + ops.softplus(-z)
    return cross_entropy * (1 - (p * y + (1 - p) * (1 - y))) ** gamma


def segmentation_models(y, z, gamma):
    p = ops.clip(ops.sigmoid(z), 1e-7, 1 - 1e-7)
    of_positives = -y * (1 - p) ** gamma * ops.log(p)
    return of_positives - (1 - y) * p**gamma * ops.log(1 - p)


def two_classes(y, z, gamma):
    """Return Keras's softmax loss of logits 0 and z."""
    labels, logits = (ops.concatenate(pair, axis=-1) for pair in ((1 - y, y), (0 * z, z)))
    return keras.losses.categorical_focal_crossentropy(labels, logits, 1.0, gamma, True)


def keras_binary(y, z, gamma):
    return keras.losses.binary_focal_crossentropy(y, z, gamma=gamma, from_logits=True)


def ours(y, z, gamma):
    return BinaryFocalLoss(gamma, from_logits=True, reduction=None)(y, z)


def cross_entropy(y, z, gamma):
    return keras.losses.binary_crossentropy(y, z, from_logits=True)


LOSSES = {
    "BinaryFocalLoss": ours,
    "Keras's BinaryFocalCrossentropy": keras_binary,
    "Keras's CategoricalFocalCrossentropy": two_classes,
    "torchvision": torchvision,
    "segmentation_models": segmentation_models,
}


def value_and_slope(loss, margins, gamma, positive):
    """Return the loss of each label, and its derivative in the margin."""
    side = 1.0 if positive else -1.0
    y = np.full_like(margins, positive)
    values = loss(*(ops.convert_to_tensor(a) for a in (y, side * margins)), gamma)
    step = gradient_step(lambda z, y: ops.sum(loss(y, z, gamma)), side * margins, y)
    return np.ravel(ops.convert_to_numpy(values)), side * np.ravel(ops.convert_to_numpy(step()))


def exact_slope(margins, gamma):
    """Return the derivative in float64: -(1 - p)^gamma (1 - p - gamma p log p)."""
    m = np.ravel(margins).astype("float64")
    cross_entropy, other = np.logaddexp(0, -m), np.logaddexp(0, m)
    p, q = np.exp(-cross_entropy), np.exp(-other)
    return -np.exp(-gamma * other) * (q + gamma * p * cross_entropy)


def found_on(margins, wrong):
    """Return the margins where something is wrong, from the first to the last."""
    where = np.ravel(margins)[wrong]
    return f"{where.min():g}…{where.max():g}" if where.size else "–"


def margin_rows():
    yield [f"{keras.backend.backend()}: gamma 2", *(f"{m}" for m in MARGINS), "dead", "NaN"]
    at = np.float32(MARGINS)[:, None]
    for name, loss in LOSSES.items():
        (values, slopes), wrong = value_and_slope(loss, at, 2.0, True), []
        for positive in (True, False):
            _, slope = value_and_slope(loss, FINE, 2.0, positive)
            exact = exact_slope(FINE, 2.0)
            wrong.append((exact < -1e-3) & (slope > exact / 2))
        _, half = value_and_slope(loss, FINE, 0.5, True)
        cells = (f"{v:.4g}; {s:.3g}" for v, s in zip(values, slopes, strict=True))
        yield [name, *cells, found_on(FINE, wrong[0] | wrong[1]), found_on(FINE, np.isnan(half))]


def seconds(shape, rounds):
    """Return the seconds per step of each loss, one number per round."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=shape).astype("float32"), rng.integers(2, size=shape).astype("float32")
    steps = {
        name: gradient_step(lambda z, y, loss=loss: ops.mean(loss(y, z, 2.0)), z, y)
        for name, loss in [("cross entropy", cross_entropy), *LOSSES.items()]
    }
    for step in steps.values():
        step()  # compiles
    return alternate(lambda step: seconds_per_call(step, 0.05), steps, rounds)


def cost_rows(rounds):
    yield [keras.backend.backend(), *("×".join(map(str, shape)) for shape in SHAPES)]
    columns = [seconds(shape, rounds) for shape in SHAPES]
    microseconds = (1e6 * statistics.median(times["cross entropy"]) for times in columns)
    yield ["BinaryCrossentropy, µs", *(f"{value:.0f}" for value in microseconds)]
    for name in LOSSES:
        ratios = (np.divide(times[name], times["cross entropy"]) for times in columns)
        yield [name, *(f"{statistics.median(ratio):.2f}" for ratio in ratios)]


given = options(__doc__, cost=0, rounds=15)
print_table(cost_rows(given.rounds) if given.cost else margin_rows())
