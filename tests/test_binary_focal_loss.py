"""BinaryFocalLoss against the 50-digit oracle, exact identities, and Keras's own losses."""

import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from gradients import hessians, suspicious, value_and_gradient
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal
from oracle import GAMMAS, MARGINS, oracle
from test_readme import blocks

from mnist_keras.losses import BinaryFocalLoss, FocalLoss, binary_focal_loss, prior_logit

# Keras's own conversion of PyTorch tensors, with NumPy 2 and a PyTorch that lacks the keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

NAN = float("nan")
LOGITS = np.array([[-2, 1, 0.5], [3, -0.5, 2], [0, 4, -1]], "float32")
LABELS = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0]], "float32")
SIGNED = np.float32([*MARGINS, *np.negative(MARGINS), 0, 3, -3, 13, -13])
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "none", None]


def assert_oracle(found, logits, y, gamma, alpha=None):
    """Compare values and gradients with those of two classes, whose logits are 0 and `logits`."""
    no, yes = (1, 1) if alpha is None else (1 - alpha, alpha)
    for value, gradient, z, share in zip(*found, logits, y, strict=True):
        classes = np.array([0, z], "float64"), np.array([1 - np.float64(share), share])
        right, gradients, error, gradient_error = oracle(*classes, [gamma] * 2, [no, yes])
        assert abs(value - right) <= max(error, 1e-36), (z, share)
        assert abs(gradient - gradients[1]) <= max(gradient_error, 1e-36), (z, share)


def loss_of(y, from_logits=True, **options):
    """Return the loss of each row of labels `y` as a function of scores."""
    return functools.partial(binary_focal_loss, y, from_logits=from_logits, **options)


def values(y, logits, **options):
    return convert_to_numpy(loss_of(y, **options)(logits))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_every_margin_and_gamma_is_right(gamma, alpha, jit):
    """Hard, soft and smoothed labels, y (1 - s) + s / 2, meet the oracle from -1e4 to 1e4."""
    hard, soft = np.zeros_like(SIGNED), np.random.default_rng(0).random(len(SIGNED))
    for y, s in (
        (hard, 0),
        (1 - hard, 0),
        (soft.astype("float32"), 0),
        (hard, 0.01),
        (1 - hard, 0.01),
    ):
        loss = loss_of(y, gamma=gamma, alpha=alpha, label_smoothing=s)
        found = value_and_gradient(loss, SIGNED, jit=jit)
        assert_oracle(found, SIGNED, (1 - s) * y.astype("float64") + s / 2, gamma, alpha)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_probabilities_are_right(gamma):
    """Probabilities from 1e-25 to 1 - 2**-24 give the oracle's value and gradient."""
    p = np.float32([1e-25, 1e-9, 0.3, 0.49, 0.5, 0.51, 0.999, 1 - 2**-24])
    exact = p.astype("float64")
    for y in np.zeros_like(p), np.ones_like(p), np.full_like(p, 0.25):
        value, gradient = value_and_gradient(loss_of(y, False, gamma=gamma), p)
        by_logit = gradient * exact * (1 - exact)  # dL / dz = p (1 - p) dL / dp
        assert_oracle((value, by_logit), np.log(exact) - np.log1p(-exact), y, gamma)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_probabilities_of_0_and_1(gamma):
    """The surely right have the exact gradient; the surely wrong cost 69 and stay alive."""
    loss = loss_of(np.float32([0, 1, 1, 0]), False, gamma=gamma)
    value, gradient = value_and_gradient(loss, np.float32([0, 1, 0, 1]))
    assert_allclose(value, [0, 0, 69.0775528, 69.0775528], rtol=1e-6, atol=1e-20)
    assert_allclose(gradient[:2], [0**gamma, -(0**gamma)], atol=1e-12)
    assert_allclose(gradient[2:], [-1e30, 1e30], rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("label", [0, 1])
def test_one_logit_is_two_classes(gamma, label):
    """A logit is FocalLoss of logits 0 and z, with an alpha for each side."""
    y = np.full(len(SIGNED), label)
    two = FocalLoss(gamma, [0.75, 0.25], from_logits=True, reduction=None)
    right = value_and_gradient(lambda z: two(y, ops.stack([0 * z, z], axis=-1)), SIGNED)
    found = value_and_gradient(loss_of(y, gamma=gamma, alpha=0.25), SIGNED)
    assert_allclose(found[0], right[0], rtol=2e-5, atol=1e-36)
    assert_allclose(found[1], right[1], rtol=2e-5, atol=1e-36)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "mean_with_sample_weight"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "gamma": 0.0}, {"alpha": 0.3}])
def test_where_nothing_is_clipped_or_ignored_it_is_keras(reduction, weighted, options):
    """Every reduction, with masks and weights, is that of Keras's binary losses."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5, 3)).astype("float32") * [[[1]] * 4 + [[0]]]
    logits, y = keras.layers.Masking()(logits), rng.integers(2, size=(4, 5, 3))
    weights = rng.random((4, 5)).astype("float32") if weighted else None
    options = {"gamma": 1.5, "from_logits": True, "reduction": reduction} | options
    balanced = {"apply_class_balancing": "alpha" in options}
    theirs = keras.losses.BinaryFocalCrossentropy(**options, **balanced)
    right = convert_to_numpy(theirs(y, logits, weights))
    found = convert_to_numpy(BinaryFocalLoss(**options)(y, logits, weights))
    assert_allclose(found, right, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [-1, 0, 1, -3])
def test_numbers_per_label_follow_the_axis(axis):
    """The loss of a row is the mean over its labels, each with its own gamma and alpha."""
    gamma, alpha = [0, 0.5, 5], [0.1, 0.5, 1]
    each = [values(LABELS[:, i], LOGITS[:, i], gamma=gamma[i], alpha=alpha[i]) for i in range(3)]
    moved = [np.moveaxis(np.stack([a, a[::-1]]), -1, axis) for a in (LABELS, LOGITS)]
    right = np.mean(each, axis=0)
    found = values(*moved, gamma=gamma, alpha=alpha, axis=axis)
    assert_allclose(found, [right, right[::-1]], rtol=1e-6)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "mean_with_sample_weight"])
@pytest.mark.parametrize("ignore_value", [-1, 0.5, 255])
def test_ignored_labels_leave_no_trace(reduction, ignore_value):
    """Rows are means over the known labels, the batch one over rows that have any."""
    holes = np.array([[0, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
    y, z = np.where(holes, ignore_value, LABELS), np.where(holes, NAN, LOGITS)
    loss = BinaryFocalLoss(from_logits=True, ignore_value=ignore_value, reduction=reduction)
    value, gradient = value_and_gradient(lambda z: loss(y, z, np.float32([2, 3, 5])), z)
    rows = 2 * values(LABELS[:1, ::2], LOGITS[:1, ::2])[0], 3 * values(LABELS, LOGITS)[1]
    divisor = {"sum": 1, "mean_with_sample_weight": 5}.get(reduction, 2)
    right = [*rows, 0] if reduction in (None, "none") else sum(rows) / divisor
    assert_allclose(value, right, rtol=1e-6)
    assert_array_equal(gradient == 0, holes)
    assert np.all(convert_to_numpy(loss(np.full_like(y, ignore_value), z)) == 0)


def test_normalizing_by_positives():
    """The sum over all labels is divided by the positives of rows that count, or by 1."""
    each = values(LABELS.ravel(), LOGITS.ravel(), alpha=0.25).reshape(3, 3)
    options = {"alpha": 0.25, "from_logits": True, "ignore_value": -1}
    loss = BinaryFocalLoss(normalize_by="positives", **options)
    assert float(loss(LABELS, LOGITS)) == pytest.approx(each.sum() / 5, rel=1e-6)
    y, weights = np.where([[1], [0], [0]], 7, LABELS), np.float32([0, 10, 1])
    found = float(loss(y, LOGITS, weights))
    assert found == pytest.approx(weights @ each.sum(1) / 3, rel=1e-6)
    y[0] = -1
    assert float(loss(y, LOGITS)) == pytest.approx(each[1:].sum() / 3, rel=1e-6)
    padded = keras.layers.Masking(9.0)(np.stack([LOGITS, 9 + 0 * LOGITS], axis=1))
    found = float(loss(np.stack([LABELS, LABELS], axis=1), padded))
    assert found == pytest.approx(each.sum() / 5, rel=1e-6)
    for y in 0 * LABELS, 0.1 * LABELS:  # the sum of soft positives is less than 1
        right = 9 * values(y.ravel(), LOGITS.ravel(), alpha=0.25).mean()
        assert float(loss(y, LOGITS)) == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("of_labels", [(3,), (3, 1)])
@pytest.mark.parametrize("of_scores", [(3,), (3, 1)])
def test_one_label_per_row(of_labels, of_scores):
    """Labels and scores of one per row may each lack the axis of size 1; weights are of rows."""
    y, z = LABELS[:, 0].reshape(of_labels), LOGITS[:, 0].reshape(of_scores)
    right = values(LABELS[:, :1], LOGITS[:, :1])
    assert_array_equal(values(y, z), right)
    for weights in np.float32([1, 2, 3]), np.float32([[1], [2], [3]]):
        found = BinaryFocalLoss(from_logits=True, reduction="sum")(y, z, weights)
        assert float(found) == pytest.approx(right @ [1, 2, 3], rel=1e-6)


BAD = {
    "alpha": [-0.1, 1.1, "balanced", True, [0.5, 2], [], NAN],
    "gamma": [-1, NAN, None, [1, -1], "2"],
    "label_smoothing": [-0.1, 1.1, True, [0.1, 0.1, 0.1]],
    "ignore_value": [NAN, "unknown", True, [0]],
    "axis": [1.0, True],
    "normalize_by": ["positive", None, True],
    "reduction": ["sum", None, "none", "mean_with_sample_weight"],
}
ALIKE = r"`y_true` must be shaped like `y_pred`.*: axis=.*y_true.shape=\(.*y_pred.shape=\("
RANGE = r"`y_true` must be in \[0, 1\]{}\. Received: y_true with"
INDICES = RANGE.format("; these look like class indices: use `FocalLoss`")
REFUSED = [
    *(({k: v}, LABELS, f"`{k}` must be .*: {k}=") for k in [*BAD][:-1] for v in BAD[k]),
    *(({"normalize_by": "positives", "reduction": v}, LABELS, "'rows'") for v in BAD["reduction"]),
    *(({}, np.zeros(s), ALIKE) for s in [(3,), (1,), (3, 1), (1, 3), (3, 4), (1, 3, 3), ()]),
    ({"axis": 2}, LABELS, r"`axis` must be in \[-2, 2\)\. Received: axis=2"),
    ({"gamma": [1, 2]}, LABELS, "`gamma` must be .*3 labels on axis -1.* 2 numbers.*shape="),
    ({"alpha": [1]}, LABELS, "`alpha` must be .*3 labels on axis -1.* 1 numbers.*shape="),
    *(({}, y, RANGE.format("")) for y in (LABELS - 0.5, -LABELS, 1.5 * LABELS)),
    *(({}, y, INDICES) for y in (3 * LABELS, ops.convert_to_tensor([[0, 1, 2]] * 3))),
]


@pytest.mark.parametrize(("options", "y", "message"), REFUSED)
def test_what_is_wrong_is_refused(options, y, message):
    """Options, shapes that would broadcast and labels outside [0, 1] are named."""
    with pytest.raises(ValueError, match=message):
        BinaryFocalLoss(**options)(y, LOGITS)


@pytest.mark.parametrize("jit", [False, True])
def test_labels_that_nobody_looks_at_are_nan_in_their_row_alone(jit):
    """Compiled, or in a tensor of floats, a label outside [0, 1] marks its row."""
    y = ops.convert_to_tensor([[0, 1, 0], [0, 1.5, 1], [NAN, 0, 1], [1, -0.1, 0], [1, 0, 255]])
    value, gradient = value_and_gradient(loss_of(y), np.tile(LOGITS[:1], (5, 1)), jit=jit)
    assert np.isnan(value).tolist() == [False] + [True] * 4
    assert np.all(np.isfinite(gradient[0]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_computed_in_32(dtype):
    """On 16-bit logits, and with a 16-bit dtype, the loss has float32's accuracy."""
    logits = ops.cast(10 * LOGITS, dtype)
    right = values(LABELS, convert_to_numpy(ops.cast(logits, "float32")))
    assert_array_equal(values(LABELS, logits), right)
    loss = BinaryFocalLoss(from_logits=True, dtype=dtype, reduction=None)
    assert_array_equal(convert_to_numpy(loss(LABELS, logits)), right)
    assert loss.get_config()["dtype"] == dtype


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("options", [{}, {"ignore_value": 1, "gamma": [0, 0.5, 5]}, {"alpha": 0.3}])
@pytest.mark.parametrize("scale", [1, 100, 1e38])
def test_searches_for_nan_find_nothing(options, scale):
    """No step of value, gradient and Hessian is NaN or infinite, and none is of another rank."""
    loss, logits = BinaryFocalLoss(**options, from_logits=True), LOGITS / 4 * scale
    with suspicious() as made:
        found = value_and_gradient(made(lambda z: loss(LABELS, z)), logits)
    assert np.all(np.isfinite(found[0]) & np.isfinite(found[1]))
    assert np.all(np.isfinite(hessians(loss_of(LABELS, **options), logits)))


@pytest.mark.parametrize("alpha", [None, 0.25, np.float32([0.5, 0.25, 1])])
def test_saved_models_and_configs(alpha, tmp_path):
    """The config is plain JSON and complete, and a .keras file has the loss and the bias."""
    options = {"gamma": np.array([1, 2, 3]), "alpha": alpha, "ignore_value": np.int64(-1)}
    loss = BinaryFocalLoss(**options, label_smoothing=np.float64(0.25), from_logits=True, axis=1)
    config = loss.get_config()
    assert json.loads(json.dumps(config)) == config
    assert BinaryFocalLoss.from_config(config).get_config() == config
    layer = keras.layers.Dense(3, bias_initializer=prior_logit(0.1))
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", loss)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (type(again.loss), again.loss.get_config()) == (BinaryFocalLoss, config)
    y = np.where(LABELS, LABELS, -1)
    right = model.evaluate(LOGITS, y, verbose=0)
    assert again.evaluate(LOGITS, y, verbose=0) == pytest.approx(right, rel=1e-6)
    assert again.fit(LOGITS, y, verbose=0).history["loss"] == [pytest.approx(right, rel=1e-6)]
    assert again.layers[0].bias_initializer.get_config() == prior_logit(0.1).get_config()


@pytest.mark.parametrize("p", [0.01, 0.5, 1e-9, np.float32(0.25)])
def test_prior_logit(p):
    """A new layer with this bias gives each input the probability p."""
    layer = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=prior_logit(p))
    assert_allclose(convert_to_numpy(ops.sigmoid(layer(LOGITS))), p, rtol=1e-5)


@pytest.mark.parametrize("p", [0, 1, -0.5, NAN, True, [0.1], "0.1"])
def test_bad_options_of_rare_classes_are_refused(p):
    """A prior of 0 or 1 has no finite logit, and "balanced" is told what gives such weights."""
    with pytest.raises(ValueError, match=r"`p` must be a number in \(0, 1\). Received: p="):
        prior_logit(p)
    with pytest.raises(ValueError, match=r"`alpha` must be .*class_balanced_alpha.*'balanced'"):
        FocalLoss(alpha="balanced")


def test_detection_trains_from_the_prior_and_not_without_it():
    """Of 1e5 anchors 10 are positive: twenty steps find them, or are lost on the negatives."""
    x = np.random.default_rng(0).normal(size=(100_000, 4)).astype("float32")
    y = np.zeros((100_000, 1), "float32")
    x[:10, 0], y[:10] = 6, 1

    def train(bias):
        layer = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=bias)
        model = keras.Sequential([keras.Input((4,)), layer])
        loss = BinaryFocalLoss(alpha=0.25, from_logits=True, normalize_by="positives")
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        losses = [float(model.train_on_batch(x, y)) for _ in range(20)]
        return losses, convert_to_numpy(model(x))[:, 0]

    losses, scores = train(prior_logit(0.01))
    assert losses[-1] < 0.2 * losses[0]
    assert min(scores[:10]) > max(scores[10:]) + 0.5
    lost, scores = train("zeros")
    assert lost[-1] > 10 * losses[0]
    assert max(scores) < -50  # it says no to everything


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_the_page_shows_steps_outside_fit_on_each_backend():
    """The examples of docs/focal_loss.md for this backend run, and the loss falls."""
    page = Path(__file__).parents[1] / "docs" / "focal_loss.md"
    (example,) = blocks(f"python {keras.backend.backend()}", page)
    exec(compile(example, str(page), "exec"), names := {})
    assert names["losses"][-1] < names["losses"][0]
