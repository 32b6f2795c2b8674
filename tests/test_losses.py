"""FocalLoss against a 50-digit oracle, exact identities, and Keras's own losses."""

import functools
import itertools
import json

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from gradients import hessians, suspicious, value_and_gradient
from hypothesis import given, settings
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal
from oracle import GAMMAS, MARGINS, margin_cases, oracle, soft_cases

from mnist_keras._foundations import backends
from mnist_keras.losses import FocalLoss, class_balanced_alpha, focal_loss

# Keras's own conversion of PyTorch tensors, with NumPy 2 and a PyTorch that lacks the keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

ROWS = np.array([[2, 1, 0], [0, 3, 1], [1, 1, 1.5]], "float32")
LABELS = np.array([0, 1, 2])
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "none", None]
NAN = float("nan")


def assert_oracle(values, gradients, logits, y, gamma, alpha):
    """Compare with the oracle; figures below 1e-36 need only be below 1e-36 themselves."""
    shape = logits.shape
    gamma, alpha = np.broadcast_to(gamma, shape[-1]), np.broadcast_to(alpha, shape[-1])
    rows = (np.reshape(a, (-1, shape[-1])) for a in (gradients, logits, y))
    for value, gradient, z, target in zip(np.ravel(values), *rows, strict=True):
        right_value, right_gradient, value_error, gradient_error = oracle(z, target, gamma, alpha)
        assert abs(value - right_value) <= max(value_error, 1e-36), (z, target)
        assert np.max(np.abs(gradient - right_gradient)) <= max(gradient_error, 1e-36), (z, target)


def nine(rows):
    """Repeat rows until there are nine: JAX compiles each operation once for each shape."""
    return np.resize(rows, (9, *np.shape(rows)[1:]))


def focal(y, gamma=2.0, **options):
    """Return the loss of labels `y` as a function of logits."""
    return functools.partial(focal_loss, y, gamma=gamma, from_logits=True, **options)


def values(y, logits, **options):
    """Return the loss of each row of logits as an array."""
    return convert_to_numpy(focal(y, **options)(logits))


def one_hot(labels, num_classes):
    return np.eye(num_classes, dtype="float32")[labels]


def both_forms(labels, num_classes):
    """Return integer labels and the same labels one-hot."""
    return labels, one_hot(labels, num_classes)


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize(
    ("num_classes", "jit"), [(2, False), (10, False), (10, True), (100, False), (1000, False)]
)
def test_every_margin_and_gamma_is_right(num_classes, form, jit):
    """Values and gradients meet the oracle from margin -1e4 to 1e4, for any number of classes."""
    logits, gammas = margin_cases(num_classes)
    forms = both_forms(np.zeros(len(logits), "int32"), num_classes)
    for gamma in gammas:
        found = value_and_gradient(focal(forms[form], gamma), logits, jit=jit)
        assert_oracle(*found, logits, forms[1], gamma, 1.0)
        assert np.all(found[1][:, 0][np.isin(logits[:, 0], np.negative(MARGINS[2:]))] < -0.9)


def test_soft_labels_are_right():
    """Soft labels meet the oracle class by class, with gamma and alpha per class."""
    logits, y, alpha, gammas = soft_cases()
    for gamma in gammas:
        found = value_and_gradient(focal(y, gamma, alpha=alpha), logits)
        assert_oracle(*found, logits, y, gamma, alpha)


def test_probabilities_are_right():
    """Probabilities down to 1e-20, normalized or not, give the oracle's value and gradient."""
    p = np.array([[0.3, 0.7, 1e-20], [1e-20, 0.5, 0.5], [1, 1e-12, 1e-13], [2, 3, 5]], "float32")
    p, forms = nine(p), both_forms(np.zeros(9, "int32"), 3)
    for y, gamma in itertools.product(forms, GAMMAS):
        value, gradient = value_and_gradient(functools.partial(focal_loss, y, gamma=gamma), p)
        # dL / d log p = p dL / dp
        assert_oracle(value, gradient * p, np.log(p, dtype="float64"), forms[1], gamma, 1)


def test_backends_agree():
    """Figures that all backends must reproduce within 2e-5, easy rows included."""
    logits = np.array([[17, 0, 0], [12, 0.5, 0.25], [-20, 0, 0], [0.1, 0.2, 0.3]], "float32")
    value, _ = value_and_gradient(focal([0, 0, 0, 0], 0.5), logits)
    right = [oracle(row, one_hot(0, 3), [0.5] * 3, [1] * 3)[0] for row in logits]
    assert_allclose(value, right, rtol=1e-5)


# Numbers computed by hand, one for each of GAMMAS.

MEANS = [0.457276251139, 0.297029722432, 0.199469371359, 0.0961653590605, 0.0136788845807]
WEIGHTED_MEANS = [0.654134180205, 0.453766396554, 0.321870236985, 0.168110399534, 0.0264957184456]
EQUAL_STEPS = [0.4076059644, 0.2358341481, 0.1364497831, 0.04567779897, 0.00171357109]
OF_TWO = [0.126928011, 0.04382288099, 0.0151301898, 0.001803562835, 3.054864711e-6]
SMOOTHED = [0.5076059644, 0.3374442125, 0.2358188818, 0.1358510243, 0.0632029287]
SOFT = [0.8076059644, 0.6394108361, 0.5272245719, 0.3919244776, 0.2206039591]
WEIGHTED = [0.9057044733, 0.7865359972, 0.6985519298, 0.5752977014, 0.3702213239]


@pytest.mark.parametrize(
    ("logits", "right"),
    [
        ([0.0] * 10, [2.302585093, 2.18442402, 2.072326584, 1.865093925, 1.359653472]),
        ([0, 0], [0.6931471806, 0.4901290717, 0.3465735903, 0.1732867951, 0.02166084939]),
        ([2, 1, 0], EQUAL_STEPS),
        ([10001, 10000, 9999], EQUAL_STEPS),
        ([-9999, -10000, -10001], EQUAL_STEPS),
        ([2, -np.inf, 0], OF_TWO),
        ([5, 0], [0.006715348489, 5.493816266e-4, 4.494482634e-5, 3.008090225e-7, 9.018292425e-14]),
        ([15, 0], [3.059022737e-7, 1.691897405e-10, 9.357618675e-14, 2.862516391e-20, 0]),
        ([17, 0], [4.139937633e-8, 8.423463406e-12, 1.713908325e-15, 7.095473428e-23, 0]),
        ([40, 0], [4.248354255e-18, 8.756510763e-27, 1.804851388e-35, 0, 0]),
        ([100, 0], [0, 0, 0, 0, 0]),
        ([1e4, 0], [0, 0, 0, 0, 0]),
        ([-5, 0], [5.006715348, 4.989932621, 4.973206149, 4.939921222, 4.841397112]),
        ([-16, 0], [16.00000011, 15.99999921, 15.99999831, 15.99999651, 15.99999111]),
        ([-20, 0], [20, 19.99999998, 19.99999996, 19.99999992, 19.9999998]),
        ([-100, 0], [100] * 5),
        ([-1e4, 0], [1e4] * 5),
    ],
)
def test_known_values(logits, right):
    """The values of one row of class 0 come out, in both label forms."""
    for gamma, expected in zip(GAMMAS, right, strict=True):
        for y in both_forms([0] * 9, len(logits)):
            found = values(y, nine(np.array([logits], "float32")), gamma=gamma)
            assert_allclose(found, [expected] * 9, rtol=1e-5, atol=1e-36)


@pytest.mark.parametrize(
    ("logits", "gamma", "right"),
    [
        ([2, 1, 0], 2.0, [-0.09828779484, 0.07185413559, 0.02643365925]),
        ([-20, 0, 0], 2.0, [-1.00000004, 0.5000000198, 0.5000000198]),
        ([17, 0, 0], 0.5, [-3.573772512e-11, 1.786886256e-11, 1.786886256e-11]),
        ([2, -np.inf, 0], 0.5, [-0.06045526681, 0, 0.06045526681]),
        ([-1e4, 0], 5.0, [-1, 1]),
    ],
)
def test_known_gradients(logits, gamma, right):
    """Whole gradients, which sum to 0, come out in both label forms."""
    for y in both_forms([0] * 9, len(logits)):
        _, gradient = value_and_gradient(focal(y, gamma), nine([logits]))
        assert_allclose(gradient, [right] * 9, rtol=1e-5)


@pytest.mark.parametrize(
    ("gamma", "mean", "weighted_mean"), [*zip(GAMMAS, MEANS, WEIGHTED_MEANS, strict=True)]
)
def test_known_means(gamma, mean, weighted_mean):
    """The mean divides by the number of rows, not by the sum of the alphas."""
    for y in both_forms(LABELS, 3):
        assert float(FocalLoss(gamma, from_logits=True)(y, ROWS)) == pytest.approx(mean, rel=1e-6)
        loss = FocalLoss(gamma, [0.5, 1, 2], from_logits=True)
        assert float(loss(y, ROWS)) == pytest.approx(weighted_mean, rel=1e-6)


@pytest.mark.parametrize(
    ("y", "logits", "right", "options"),
    [
        ([[0.7, 0.2, 0.1]], [2, 1, 0], SOFT, {}),
        ([[0.7, 0.2, 0.1]], [2, 1, 0], WEIGHTED, {"alpha": [0.5, 1, 2]}),
        ([[0.7, 0.2, 0.1]], [50, 0, -50], [20] * 5, {}),
        ([[0.7, 0.2, 0.1]], [50, 0, -50], [30] * 5, {"alpha": [0.5, 1, 2]}),
        ([0], [2, 1, 0], SMOOTHED, {"label_smoothing": 0.1}),
        ([[1, 0, 0]], [2, 1, 0], SMOOTHED, {"label_smoothing": 0.1}),
        ([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]], [2, 1, 0], SMOOTHED, {}),
    ],
)
def test_known_soft_labels(y, logits, right, options):
    """Soft labels weight the loss of each class, and smoothing makes labels soft."""
    for gamma, expected in zip(GAMMAS, right, strict=True):
        found = values(np.array(y, "float32"), [logits], gamma=gamma, **options)
        assert_allclose(found, [expected], rtol=1e-6)


def test_gamma_zero_is_cross_entropy():
    """With gamma 0, value and gradient are cross entropy's, on saturated rows too."""
    logits = np.array([[0, 0, 0], [2, 1, 0], [30, 0, 0], [100, 0, 0], [-30, 0, 0]], "float32")
    logits, labels = nine(logits), np.zeros(9, "int32")
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    right = value_and_gradient(lambda z: keras_loss(one_hot(labels, 3), z), logits)
    for y in both_forms(labels, 3):
        found = value_and_gradient(focal(y, 0), logits)
        assert_allclose(found[0], right[0], rtol=1e-6, atol=2e-7)
        assert_allclose(found[1], right[1], rtol=1e-6, atol=2e-7)
        assert np.all(np.isfinite(found[1]))


def test_probabilities_inside_the_clip_are_keras_focal_loss():
    """Where Keras clips nothing, both give the same, with label smoothing and alpha."""
    p = np.random.default_rng(0).dirichlet(np.ones(4), 20).astype("float32")
    y = one_hot(np.arange(20) % 4, 4)
    options = {"alpha": [0.5, 1, 2, 3], "gamma": 1.5, "label_smoothing": 0.1}
    right = keras.losses.CategoricalFocalCrossentropy(**options)(y, p)
    assert float(FocalLoss(**options)(y, p)) == pytest.approx(float(right), rel=1e-5)


def test_log_probabilities_count_as_logits():
    """log softmax of the logits gives the loss of the logits; softmax as probabilities too."""
    p = np.exp(ROWS) / np.exp(ROWS).sum(-1, keepdims=True)
    right = values(LABELS, ROWS)
    assert_allclose(values(LABELS, np.log(p)), right, rtol=1e-5)
    assert_allclose(convert_to_numpy(focal_loss(LABELS, p)), right, rtol=1e-5)


def test_ratio_to_cross_entropy_is_the_focal_factor():
    """Focal loss over cross entropy is (1 - p_t)^gamma, and alpha is applied last."""
    p_t = np.exp(-values(LABELS, ROWS, gamma=0))
    alpha = np.array([0.5, 3.0, 2.0])
    ratio = values(LABELS, ROWS, gamma=2, alpha=alpha) / values(LABELS, ROWS, gamma=0)
    assert_allclose(ratio, alpha * (1 - p_t) ** 2, rtol=1e-5)


def test_gamma_per_class_is_the_gamma_of_the_true_class():
    """A sequence of gammas acts row by row, in both label forms."""
    right = [values(LABELS, ROWS, gamma=g)[i] for i, g in enumerate([0, 0.5, 5])]
    for y in both_forms(LABELS, 3):
        assert_allclose(values(y, ROWS, gamma=[0, 0.5, 5]), right, rtol=1e-6)


@pytest.mark.parametrize("axis", [1, 2, -2, -3])
@pytest.mark.parametrize("options", [{"alpha": [0.5, 1, 2]}, {"label_smoothing": 0.1}])
def test_any_class_axis(axis, options):
    """Moving the class axis moves nothing else, also when all axes have one length."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 3, 3, 3)).astype("float32")
    labels = rng.integers(3, size=(3, 3, 3))
    right = values(labels, logits, **options)
    moved = np.moveaxis(logits, -1, axis)
    column, vectors = np.expand_dims(labels, axis), np.moveaxis(one_hot(labels, 3), -1, axis)
    for y in labels, column, vectors:
        assert_allclose(values(y, moved, axis=axis, **options), right, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "float32", "float64", "bool"])
def test_labels_of_every_dtype_and_shape(dtype):
    """Integer labels of any dtype, with or without a class axis of size 1, mean the same."""
    logits = ROWS[:, :2] if dtype == "bool" else ROWS
    labels = (LABELS % logits.shape[-1]).astype(dtype)
    right = values(one_hot(labels.astype(int), logits.shape[-1]), logits)
    for y in labels, labels[:, None]:
        assert_allclose(values(y, logits), right, rtol=1e-6)


def test_segmentation_shapes():
    """Labels (B, H, W) against logits (B, H, W, C) give one value per pixel."""
    logits = np.tile(ROWS[:, None, None], (1, 4, 5, 1))
    labels = np.tile(LABELS[:, None, None], (1, 4, 5))
    found = values(labels, logits)
    assert found.shape == (3, 4, 5)
    assert_allclose(found[:, 2, 3], values(LABELS, ROWS), rtol=1e-6)


def test_infinite_logits():
    """Classes masked with -inf drop out; a masked true class stays finite."""
    logits = nine(np.array([[1, -np.inf, -np.inf], [-np.inf, 0, 0]], "float32"))
    for y, gamma in itertools.product(both_forms([0] * 9, 3), GAMMAS):
        value, gradient = value_and_gradient(focal(y, gamma), logits)
        assert value[0] == 0
        assert 1e29 < value[1] < np.inf
        assert np.all(gradient[0] == 0)
        assert np.all(np.isfinite(gradient))


def test_a_probability_of_zero_costs_69():
    """Probabilities have a floor of 1e-30, with finite gradients on both sides."""
    value, gradient = value_and_gradient(lambda p: focal_loss([0, 1], p), [[0, 1.0], [0, 1.0]])
    assert_allclose(value, [69.0775528, 0], rtol=1e-6, atol=1e-36)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_label_that_names_no_class_is_nan_in_its_row_alone(jit, label_smoothing):
    """Labels out of range, broken or NaN mark their own row, eager and compiled."""
    labels = np.array([0, 3, -1, 0.7, NAN, 1e30, np.inf, -np.inf, 1], "float32")
    logits = nine(ROWS[:1])
    loss = focal(labels, label_smoothing=label_smoothing)
    value, gradient = value_and_gradient(loss, logits, jit=jit)
    assert np.isnan(value).tolist() == [False] + [True] * 7 + [False]
    right = values([0, 1], logits[:2], label_smoothing=label_smoothing)
    assert_allclose(value[[0, -1]], right, rtol=1e-6)
    assert np.all(np.isfinite(gradient[[0, -1]]))


@pytest.mark.parametrize("y", both_forms([0] * 9, 3))
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_second_derivatives_are_finite(gamma, y):
    """The Hessian has no NaN at margins of 100, and its rows sum to 0."""
    found = hessians(focal(y, gamma), nine([[margin, 0, 0.5] for margin in (-100, 17, 100)]))
    assert found.shape == (9, 3, 3)
    assert np.all(np.isfinite(found))
    assert_allclose(found.sum(-1), 0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_logits_are_computed_in_float32(dtype):
    """On 16-bit logits the value has float32 accuracy and the gradient one unit of 16 bits."""
    logits = np.concatenate([s * ROWS for s in (1, 5, 10)])
    logits = convert_to_numpy(ops.cast(ops.cast(logits, dtype), "float32"))
    for y, gamma in itertools.product(both_forms(np.tile([2, 1, 0], 3), 3), [0, 0.5, 2]):
        right = value_and_gradient(focal(y, gamma), logits)
        value, gradient = value_and_gradient(focal(y, gamma), logits, dtype=dtype)
        assert_array_equal(value, right[0])
        assert_allclose(gradient, right[1], rtol=2**-8, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_bfloat16"])
def test_16_bit_losses_keep_large_labels(dtype):
    """A 16-bit loss dtype is promoted, so label 301 of 400 is not rounded."""
    logits = np.zeros((2, 400), "float32")
    logits[[0, 1], [300, 301]] = 20
    loss = FocalLoss(0, from_logits=True, dtype=dtype, reduction=None)
    assert loss.dtype == "float32"
    assert np.all(convert_to_numpy(loss([300, 301], logits)) < 1e-5)
    assert FocalLoss.from_config(loss.get_config()).get_config() == loss.get_config()
    assert loss.get_config()["dtype"] == dtype


def test_16_bits_are_promoted_and_64_are_kept():
    """set_floatx("bfloat16") leaves the loss in float32; float64 is kept where asked for."""
    keras.config.set_floatx("bfloat16")
    try:
        assert FocalLoss().dtype == "float32"
    finally:
        keras.config.set_floatx("float32")
    loss = FocalLoss(dtype="float64")
    assert loss.dtype == loss.get_config()["dtype"] == "float64"
    assert FocalLoss().get_config()["dtype"] is None


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 by default")
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_class": 5}])
def test_float64_logits_are_computed_in_float64(options):
    """On float64 logits both forms have float64 accuracy."""
    logits = np.array([[2, 1, 0], [-20.5, 0, 0.1]], "float64")
    smoothing = options.get("label_smoothing", 0)
    y = (1 - smoothing) * np.eye(3)[[0, 0]] + smoothing / 3
    right = [oracle(*row, [0.5] * 3, [1] * 3)[0] for row in zip(logits, y, strict=True)]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for value in (
        values([0, 0], logits, gamma=0.5, **options),
        values(y, logits, gamma=0.5),
        convert_to_numpy(focal_loss([0, 0], p, gamma=0.5, **options)),
    ):
        assert value.dtype == "float64"
        assert_allclose(value, right, rtol=1e-12)
    loss = FocalLoss(0.5, from_logits=True, dtype="float64", reduction="sum", **options)
    assert_allclose(float(loss([0, 0], logits)), sum(right), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("ignore_class", "dtype"), [(-1, "int32"), (255, "uint8"), (1, "int64")])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_ignored_rows_leave_no_trace(ignore_class, dtype, label_smoothing):
    """Ignored rows count neither in the mean nor, even if NaN, in the gradient."""
    labels = np.array([0, ignore_class, 2], dtype)
    logits = np.where(labels[:, None] == ignore_class, NAN, ROWS)
    options = {"from_logits": True, "label_smoothing": label_smoothing}
    loss = FocalLoss(ignore_class=ignore_class, **options)
    value, gradient = value_and_gradient(lambda z: loss(labels, z), logits)
    right = value_and_gradient(lambda z: FocalLoss(**options)([0, 2], z), ROWS[[0, 2]])
    assert value == pytest.approx(right[0], rel=1e-6)
    assert_allclose(gradient[[0, 2]], right[1], rtol=1e-6)
    assert np.all(gradient[1] == 0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_rows_ignored_is_zero(reduction):
    """If every label is ignored the loss is 0."""
    loss = FocalLoss(ignore_class=-1, from_logits=True, reduction=reduction)
    assert np.all(convert_to_numpy(loss([-1, -1, -1], ROWS)) == 0)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "mean_with_sample_weight"])
@pytest.mark.parametrize("ignore_class", [None, 1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_reductions_weights_and_masks_are_those_of_keras(reduction, ignore_class, weighted, masked):
    """With gamma 0, every combination equals SparseCategoricalCrossentropy."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5, 3)).astype("float32")
    labels = rng.integers(3, size=(4, 5))
    weights = rng.random((4, 5)).astype("float32") if weighted else None
    if masked:
        logits[:, 3:] = 0
        logits = keras.layers.Masking()(logits)
    options = {"from_logits": True, "reduction": reduction, "ignore_class": ignore_class}
    found = FocalLoss(0, **options)(labels, logits, sample_weight=weights)
    right = keras.losses.SparseCategoricalCrossentropy(**options)(labels, logits, weights)
    assert_allclose(convert_to_numpy(found), convert_to_numpy(right), rtol=1e-5)


def test_ignored_rows_with_known_weights():
    """The weighted means come out as computed by hand, with weights in a row or a column."""
    labels, logits = [0, 1, 2, -1], np.concatenate([ROWS, [[NAN] * 3]])
    for reduction, right in ("mean", 0.256663), ("mean_with_sample_weight", 0.128331):
        loss = FocalLoss(from_logits=True, ignore_class=-1, reduction=reduction)
        for weights in [1.0, 2.0, 3.0, 4.0], [[1.0], [2.0], [3.0], [4.0]]:
            found = loss(labels, logits, sample_weight=np.array(weights))
            assert float(found) == pytest.approx(right, abs=1e-6)


# What a row that does not count may hold.
NOTHING = {
    "no class": ([0, 255, 2], ROWS),
    "negative": ([0, -1, 2], ROWS),
    "NaN label": ([0, NAN, 2], ROWS),
    "infinite label": ([0, np.inf, 2], ROWS),
    "NaN scores": ([0, 1, 2], np.where([[False], [True], [False]], NAN, ROWS)),
    "NaN in one-hot": (np.where([[False], [True], [False]], NAN, np.eye(3)), ROWS),
}


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("wrong", NOTHING)
def test_a_row_of_weight_0_leaves_no_trace(wrong, reduction):
    """Neither value nor gradient show what the row holds; the other rows are as without it."""
    labels, logits = NOTHING[wrong]
    loss = FocalLoss(from_logits=True, reduction=reduction)
    weights = np.array([2, 0, 0.5], "float32")
    found = value_and_gradient(lambda z: loss(labels, z, sample_weight=weights), logits)
    right = value_and_gradient(lambda z: loss([0, 2], z, weights[[0, 2]]), ROWS[[0, 2]])
    share = 2 / 3 if reduction == "sum_over_batch_size" else 1  # Keras counts the row
    assert found[0] == pytest.approx(share * right[0], rel=1e-6)
    assert_allclose(found[1][[0, 2]], share * right[1], rtol=1e-6)
    assert np.all(found[1][1] == 0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label", [255, -1, NAN])
def test_a_masked_row_leaves_no_trace(label, reduction):
    """Under a mask the label may be anything, and the mean is over the other rows."""
    logits = keras.layers.Masking()(np.stack([ROWS, [[2, 1, 0], [0, 0, 0], [0, 0, 0]]]))
    labels = np.array([[0, 1, 2], [0, label, label]], "float32")
    loss = FocalLoss(from_logits=True, reduction=reduction)
    found = convert_to_numpy(loss(labels, logits))
    kept = np.array([[1, 1, 1], [1, 0, 0]], bool)
    right = values([0, 1, 2, 0], ROWS[[0, 1, 2, 0]])
    if reduction in (None, "none"):
        assert_allclose(found[kept], right, rtol=1e-6)
        assert np.all(found[~kept] == 0)
    else:
        assert found == pytest.approx(right.sum() if reduction == "sum" else right.mean(), rel=1e-6)


@pytest.mark.parametrize("axis", [1, -3, 2, -1])
@pytest.mark.parametrize("options", [{}, {"ignore_class": 2}])
def test_weights_may_have_the_labels_class_axis(axis, options):
    """Weights with size 1 on the class axis weigh the pixels that they weigh without it."""
    rng = np.random.default_rng(0)
    logits = np.moveaxis(rng.normal(size=(2, 4, 3, 3)), -1, axis).astype("float32")
    labels, weights = rng.integers(3, size=(2, 4, 3)), rng.random((2, 4, 3)).astype("float32")
    loss = FocalLoss(from_logits=True, axis=axis, **options)
    right = float(loss(labels, logits, sample_weight=weights))
    forms = [labels, np.expand_dims(labels, axis)]
    for y in forms if options else [*forms, np.moveaxis(one_hot(labels, 3), -1, axis)]:
        found = loss(y, logits, sample_weight=np.expand_dims(weights, axis))
        assert float(found) == pytest.approx(right, rel=1e-6)
    of_images = np.array([0.5, 2], "float32")[:, None, None]
    found = loss(labels, logits, sample_weight=np.expand_dims(of_images, axis))
    right = loss(labels, logits, sample_weight=np.broadcast_to(of_images, labels.shape))
    assert float(found) == pytest.approx(float(right), rel=1e-6)
    with pytest.raises(ValueError, match=r"`sample_weight` must have one number per row.*shape="):
        loss(labels, logits, sample_weight=np.ones_like(logits))


@pytest.mark.parametrize("shape", [(0, 3), (0, 4, 3), (2, 0, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"from_logits": False},
        {"gamma": [1, 2, 3]},
        {"label_smoothing": 0.1},
        {"ignore_class": 1},
    ],
)
def test_a_batch_without_rows(shape, options):
    """Nothing costs what it costs in Keras's losses, and has an empty gradient."""
    options = {"from_logits": True} | options
    for y in np.zeros(shape[:-1], "int32"), np.zeros(shape, "float32"):
        if "ignore_class" in options and y.shape == shape:
            continue
        loss, theirs = FocalLoss(**options), keras.losses.CategoricalFocalCrossentropy()
        logits = np.zeros(shape, "float32")
        value, gradient = value_and_gradient(lambda z: loss(y, z), logits)  # noqa: B023
        assert_array_equal(value, convert_to_numpy(theirs(np.zeros(shape), logits)))
        assert gradient.shape == shape
        found = loss(y, logits, sample_weight=np.ones(shape[:-1], "float32"))
        assert_array_equal(convert_to_numpy(found), value)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize(
    ("y", "options"),
    [
        (LABELS, {}),
        (LABELS, {"gamma": [0, 0.5, 5], "alpha": [0.5, 1, 2]}),
        (one_hot(LABELS, 3), {"gamma": [0, 0.5, 5], "alpha": [0.5, 1, 2]}),
        (one_hot(LABELS, 3), {"gamma": 0.5}),
        (LABELS, {"label_smoothing": 0.1}),
        ([0, 255, 2], {"ignore_class": 255}),
        (NOTHING["no class"][0], {"sample_weight": np.array([1, 0, 2], "float32")}),
    ],
)
@pytest.mark.parametrize("scale", [1, 100])
def test_searches_for_nan_blame_it_only_for_wrong_labels(y, options, scale):
    """Where labels are right, no step of value and gradient is NaN, infinite or of another rank."""
    options, logits = dict(options), scale * ROWS
    weights = options.pop("sample_weight", None)
    loss = FocalLoss(**options, from_logits=True)
    right = value_and_gradient(lambda z: loss(y, z, weights), logits)
    with suspicious() as made:
        found = value_and_gradient(made(lambda z: loss(y, z, weights)), logits)
    assert_allclose(found[0], right[0], rtol=1e-6)
    assert_allclose(found[1], right[1], rtol=1e-5, atol=1e-36)


BAD = {
    "gamma": [-1, NAN, np.inf, True, "2", None, [], [1, -1], [[1, 2]], {}],
    "alpha": [-1, NAN, np.inf, True, "1", [], [1, -1], [[1, 2]], {0: 1}, 0, [0, 0], [1, [2]]],
    "label_smoothing": [-0.1, 1.1, True, NAN],
    "axis": [1.0, True, None],
    "ignore_class": [1.5, True, "void"],
}


@pytest.mark.parametrize(("name", "value"), [(name, bad) for name in BAD for bad in BAD[name]])
def test_bad_options_are_refused(name, value):
    """The message names the option and what was received, of the class and of the function."""
    for refuse in FocalLoss, functools.partial(focal_loss, LABELS, ROWS):
        with pytest.raises(ValueError, match=f"`{name}` must (not )?be .* Received: {name}="):
            refuse(**{name: value})


CLASSES = r"`{}` must be .*\b3 classes.*axis -1.* {} numbers.*shape="
FORMS = r"`y_true` must be integer labels, .* or one-hot .* Received: .*y_pred.shape=\(3, 3\)"
SHAPES = [(2,), (3, 2), (3, 4), (3, 3, 3), (1, 3), (3, 1, 1), (4,), (), (3, 3, 1)]
IGNORED = "`ignore_class` needs integer labels.*ignore_class=-1"
ALIEN = [
    *(
        ({option: [1.0] * length}, y, ROWS, CLASSES.format(option, length))
        for option in ("alpha", "gamma")
        for length in (1, 2, 4)
        for y in both_forms(LABELS, 3)
    ),
    *(({"from_logits": True}, np.zeros(shape), ROWS, FORMS) for shape in SHAPES),
    ({"axis": 2}, LABELS, ROWS, r"`axis` must be in \[-2, 2\)\. Received: axis=2"),
    ({}, [0, 1], [[0.3], [0.4]], "at least 2 classes.*BinaryFocalLoss"),
    ({"ignore_class": -1}, one_hot(LABELS, 3), ROWS, IGNORED),
    ({"reduction": "average"}, LABELS, ROWS, "reduction"),  # Keras's own message
]


@pytest.mark.parametrize(("options", "y", "logits", "message"), ALIEN)
def test_what_does_not_fit_together_is_refused(options, y, logits, message):
    """Options per class of another length, labels of neither form, and no such axis are named."""
    with pytest.raises(ValueError, match=message):
        FocalLoss(**options)(y, logits)


@pytest.mark.parametrize(
    ("beta", "right"),
    [
        (0.999, [0.1256288628, 0.317016825, 2.557354312]),
        (0.9999, [0.0341073618, 0.2751672254, 2.690725413]),
        (0, [1, 1, 1]),
        (1 - 1e-12, [3 / 111, 30 / 111, 300 / 111]),
    ],
)
def test_class_balanced_alpha(beta, right):
    """Weights by effective number have mean 1 and reach 1/n as beta nears 1."""
    for counts in [5000, 500, 50], np.array([5000, 500, 50], "uint16"):
        alpha = class_balanced_alpha(counts, beta)
        assert alpha == pytest.approx(right, rel=1e-6)
        assert np.mean(alpha) == pytest.approx(1)
        json.dumps(alpha)


BAD_COUNTS = [[1, 0], [1, -1], [], 5, [[1, 2]], ["1", "2"], [1, NAN], None]
BAD_BETAS = [1, -0.1, 2, NAN, True, "0.9", [0.9], 1.0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("counts", [c]) for c in BAD_COUNTS] + [("beta", [[1, 2], beta]) for beta in BAD_BETAS],
)
def test_bad_counts_and_betas_are_refused(name, arguments):
    """Every class needs at least one sample, and beta lies in [0, 1)."""
    with pytest.raises(ValueError, match=rf"`{name}` must .* Received: {name}="):
        class_balanced_alpha(*arguments)


def tiny_model(loss, jit_compile="auto", **dense):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, **dense)])
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit_compile)
    return model


X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = np.arange(12) % 3


def losses_of(model, y=Y, **kwargs):
    return model.fit(X, y, batch_size=12, verbose=0, **kwargs).history["loss"]


# torch.compile needs a C++ compiler and a minute: out of proportion here.
JIT = [False] if keras.backend.backend() == "torch" else [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", JIT)
def test_fit(jit_compile):
    """A model trains, compiled or not, with integer, one-hot and ignored labels."""
    for y in Y, Y[:, None], one_hot(Y, 3):
        model = tiny_model(FocalLoss(from_logits=True), jit_compile=jit_compile)
        right = FocalLoss(from_logits=True)(Y, model.predict(X, verbose=0))
        first, second = losses_of(model, y, epochs=2)
        assert first == pytest.approx(float(right), rel=1e-5)
        assert second < first
    ignoring = tiny_model(FocalLoss(from_logits=True, ignore_class=0), jit_compile=jit_compile)
    kept = FocalLoss(from_logits=True)(Y[Y != 0], ignoring.predict(X, verbose=0)[Y != 0])
    assert losses_of(ignoring) == [pytest.approx(float(kept), rel=1e-5)]


@pytest.mark.parametrize("jit_compile", JIT)
def test_class_weight_and_sample_weight_in_fit(jit_compile):
    """class_weight is the sample weight of each label, and is like alpha."""

    def first_loss(alpha=1, **kwargs):
        loss = FocalLoss(alpha=alpha, from_logits=True)
        return losses_of(tiny_model(loss, jit_compile=jit_compile), **kwargs)[0]

    by_class = pytest.approx(first_loss(class_weight={0: 0.5, 1: 1.0, 2: 2.0}), rel=1e-6)
    assert first_loss(sample_weight=np.array([0.5, 1, 2])[Y]) == by_class
    assert first_loss(alpha=[0.5, 1, 2]) == by_class


def test_masked_steps_and_ignored_labels_in_fit():
    """Padding masked by Embedding and ignored labels both leave the mean."""
    keras.utils.set_random_seed(0)
    tokens = np.array([[1, 2, 3, 0], [4, 5, 0, 0]])
    labels = np.array([[0, -1, 2, 0], [1, 1, 0, 0]])
    model = keras.Sequential([keras.layers.Embedding(6, 4, mask_zero=True), keras.layers.Dense(3)])
    model.compile("sgd", FocalLoss(from_logits=True, ignore_class=-1))
    kept = (tokens != 0) & (labels != -1)
    right = FocalLoss(from_logits=True)(labels[kept], model.predict(tokens, verbose=0)[kept])
    history = model.fit(tokens, labels, verbose=0).history
    assert history["loss"] == [pytest.approx(float(right), rel=1e-5)]


def test_mixed_precision_fit():
    """Under mixed precision the loss stays in float32 and the model trains."""
    model = tiny_model(FocalLoss(0.5, from_logits=True), dtype="mixed_bfloat16")
    history = losses_of(model, epochs=2)
    assert np.all(np.isfinite(history))
    assert history[-1] < history[0]


def test_multi_output_models():
    """Each output has its own FocalLoss and loss weight."""
    inputs = keras.Input((4,))
    outputs = {name: keras.layers.Dense(3, name=name)(inputs) for name in "ab"}
    model = keras.Model(inputs, outputs)
    losses = {"a": FocalLoss(from_logits=True), "b": FocalLoss(0, from_logits=True)}
    model.compile("sgd", losses, loss_weights={"a": 1.0, "b": 2.0})
    logits = model.predict(X, verbose=0)
    right = losses["a"](Y, logits["a"]) + 2 * losses["b"](Y, logits["b"])
    assert losses_of(model, {"a": Y, "b": Y}) == [pytest.approx(float(right), rel=1e-5)]


def test_the_function_form_as_a_loss():
    """compile(loss=focal_loss) works, on probabilities."""
    model = tiny_model(focal_loss, activation="softmax")
    right = FocalLoss()(Y, model.predict(X, verbose=0))
    assert losses_of(model) == [pytest.approx(float(right), rel=1e-5)]


@pytest.mark.parametrize("alpha", [0.5, (0.5, 1, 2), np.array([0.5, 1, 2], "float32"), "tensor"])
def test_config_is_plain_json_and_complete(alpha):
    """Sequences, arrays and tensors become lists; from_config gives an equal loss."""
    alpha = ops.convert_to_tensor([0.5, 1, 2]) if isinstance(alpha, str) else alpha
    numbers = {"label_smoothing": np.float64(0.25), "ignore_class": np.int64(-1)}
    plain = {"from_logits": True, "reduction": "sum", "name": "focus", "dtype": "float32"}
    loss = FocalLoss(np.float32(1.5), alpha, axis=np.int32(1), **numbers, **plain)
    config = loss.get_config()
    assert json.loads(json.dumps(config)) == config
    assert config["alpha"] == (0.5 if isinstance(alpha, float) else [0.5, 1, 2])
    assert (config["gamma"], config["label_smoothing"], config["ignore_class"]) == (1.5, 0.25, -1)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(copy) is FocalLoss
    assert FocalLoss.from_config(config).get_config() == copy.get_config() == config


LOAD_ELSEWHERE = """
import json, sys
import numpy as np
import mnist_keras
import keras
model = keras.saving.load_model(sys.argv[1])
x, y = np.load(sys.argv[2]), np.arange(12) % 3
loss = model.evaluate(x, y, verbose=0)
print(json.dumps([keras.backend.backend(), loss, model.loss.get_config()]))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of a saved model and data, its loss and the config of its FocalLoss."""
    folder = tmp_path_factory.mktemp("saved")
    alpha = np.array([0.5, 1, 2])
    model = tiny_model(FocalLoss(0.5, alpha, from_logits=True, ignore_class=1, dtype="float32"))
    model.save(folder / "model.keras")
    np.save(folder / "x.npy", X)
    return folder, model.evaluate(X, Y, verbose=0), model.loss.get_config()


@pytest.mark.several_backends
@pytest.mark.parametrize("backend", backends.installed())
def test_a_saved_model_loads_in_a_fresh_process(saved, backend, python):
    """A .keras file written here gives the same loss in a fresh process, on every backend."""
    folder, loss, config = saved
    assert config["alpha"] == [0.5, 1, 2]
    arguments = ("-c", LOAD_ELSEWHERE, folder / "model.keras", folder / "x.npy")
    environment = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    printed = python(*arguments, environment=environment)
    assert json.loads(printed.splitlines()[-1]) == [backend, pytest.approx(loss, rel=1e-5), config]


# The silent traps of other focal losses; each is refused or right. Six are among the tests above:
# a NumPy `alpha` in a file, `alpha` of length 1, negative `alpha`, negative `gamma`, smoothing off
# the last axis, and labels above 256 with a 16-bit dtype.


@pytest.mark.parametrize("y", [[0, 1, 2], [[0], [1], [2]]])
def test_trap_integer_labels_with_as_many_rows_as_classes(y):
    """Three integer labels against three classes are labels in a row or a column, not one-hot."""
    assert_allclose(values(y, ROWS), [0.0456778, 0.0041443, 0.238674], rtol=1e-4)


def test_trap_alpha_off_the_last_axis():
    """A list of alphas follows the class axis."""
    logits = np.stack([ROWS, ROWS[::-1]])
    right = values([[0, 1, 2], [2, 1, 0]], logits, alpha=[0.2, 1, 3])
    found = values([[0, 1, 2], [2, 1, 0]], logits.swapaxes(1, 2), alpha=[0.2, 1, 3], axis=1)
    assert_allclose(found, right, rtol=1e-6)
    assert_allclose(right[1], [0.716022, 0.0041443, 0.0091356], rtol=1e-4)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_any_case_meets_the_oracle(data):
    """Whatever the shapes, dtypes, label forms, options and axis, the oracle agrees."""
    draw = data.draw
    num_classes = draw(st.sampled_from([2, 3, 7]))
    rows = draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
    gamma, alpha = (
        draw(number | st.lists(number, min_size=num_classes, max_size=num_classes))
        for number in (st.floats(0, 6, width=16), st.floats(0.125, 4, width=16))
    )
    axis = draw(st.integers(-1 - len(rows), len(rows)))
    form = draw(st.sampled_from(["int32", "uint8", "float32", "column", "one-hot", "soft"]))
    dtype = draw(st.sampled_from(["float32", "float16", "bfloat16"]))
    scale = draw(st.sampled_from([0.1, 1, 10, 100, 1e4]))

    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    logits = (scale * rng.normal(size=(*rows, num_classes))).astype("float32")
    logits = convert_to_numpy(ops.cast(ops.cast(logits, dtype), "float32"))
    labels = rng.integers(num_classes, size=rows)
    target = one_hot(labels, num_classes)
    if form == "soft":
        target = rng.dirichlet(np.ones(num_classes), rows).astype("float32")
    if form in ("one-hot", "soft"):
        y = np.moveaxis(target, -1, axis)
    elif form == "column":
        y = np.expand_dims(labels, axis)
    else:
        y = labels.astype(form)

    options = {"gamma": gamma, "alpha": alpha, "axis": axis, "from_logits": True}
    moved = np.moveaxis(logits, -1, axis)
    value, gradient = value_and_gradient(lambda z: focal_loss(y, z, **options), moved)
    assert value.shape == rows
    assert_oracle(value, np.moveaxis(gradient, axis, -1), logits, target, gamma, alpha)
    in_16_bits = focal_loss(y, ops.convert_to_tensor(moved, dtype), **options)
    assert_array_equal(convert_to_numpy(in_16_bits), value)
