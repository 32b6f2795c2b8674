"""Focal losses of softmax and sigmoid scores, right at every margin, gamma and dtype."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from mnist_keras._foundations.arguments import fits, integer, number, numbers, require, shapes
from mnist_keras._foundations.typing import Tensor
from mnist_keras.losses.wide import WideLoss

# Stands for a logit of -inf, yet 0 times it is 0.
LOWEST_LOGIT = -1e30
_NO_LABEL = -1e30
# The gradient 1 / p of a probability at this floor leaves float32 room for alpha and weights.
LEAST_PROBABILITY = 1e-30


@keras.saving.register_keras_serializable(package="mnist_keras")
class FocalLoss(WideLoss):
    """Cross entropy that pays less attention to the rows a classifier already gets right.

        loss = alpha_t * (1 - p_t)**gamma * -log(p_t)

    Here `t` is the true class and `p_t` its softmax probability. The loss of soft labels `y` is
    `sum_c y_c * alpha_c * (1 - p_c)**gamma * -log(p_c)`. Nothing is clipped: a confidently
    wrong row keeps its gradient, and an easy row never gives NaN, whatever `gamma` is.

    Pass logits, or keep the last layer in float32: a float16 softmax loses the small
    probabilities before any loss sees them. Log-probabilities count as logits.

    Args:
        gamma: Focusing parameter: a number >= 0, or one per true class. `0` is cross entropy.
        alpha: A number that scales the whole loss, or the weight of each true class.
        from_logits: Whether `y_pred` holds logits instead of probabilities.
        label_smoothing: The share, in [0, 1], of each label that is spread over all classes.
        ignore_class: Integer label of the rows that count neither in the loss nor in the mean.
        axis: The class axis of `y_pred`.
        reduction, name, dtype: See `keras.losses.Loss`; 16-bit types are promoted to float32.

    Call arguments:
        y_true: Integer labels of any dtype, shaped like `y_pred` without its class axis or with
            size 1 there; or one-hot or soft labels, shaped like `y_pred`. A label that does not
            name a class makes the loss of its row NaN.
        y_pred: Logits or probabilities of at least two classes, e.g. `(batch, classes)`.
        sample_weight: Optional, one per row; along the class axis it may have size 1. A row of
            weight 0, or masked, leaves no trace, whatever its label and scores are.

    >>> loss = FocalLoss(gamma=2.0, from_logits=True)
    >>> round(float(loss([0, 1], [[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])), 4)
    0.0249

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002)
    """

    _own_options: tuple[str, ...] = ("ignore_class",)
    _along = "class", "classes"

    def __init__(
        self,
        gamma: ArrayLike = 2.0,
        alpha: ArrayLike = 1.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "focal_loss",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)
        expected = f"a finite number >= 0, or one per {self._along[0]}"
        self.gamma = numbers("gamma", gamma, expected)
        hint = "; `class_balanced_alpha` gives balanced ones" if isinstance(alpha, str) else ""
        self.alpha = numbers("alpha", 1.0 if alpha is None else alpha, expected + hint)
        require(np.any(self.alpha), "`alpha` must not be 0 for every class.", f"alpha={alpha!r}")
        self.from_logits, self.axis = bool(from_logits), integer("axis", axis)
        self.label_smoothing = number("label_smoothing", label_smoothing, "a number in [0, 1]", 1)
        self.ignore_class = None if ignore_class is None else integer("ignore_class", ignore_class)
        self._ignored = _NO_LABEL if ignore_class is None else float(ignore_class)
        self._is_mean_of_rows = reduction in ("sum_over_batch_size", "mean")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        pair = (ops.convert_to_tensor(y, self.dtype) for y in (y_true, y_pred))
        labels, scores = self._axis_last(*pair)
        masked = getattr(y_pred, "_keras_mask", None) is not None
        if masked or sample_weight is not None or self._ignored != _NO_LABEL:
            sample_weight = self._row_weights(labels, scores, y_pred, sample_weight)
            # 0 times NaN is NaN: a row that does not count is one that has nothing wrong.
            counts = ops.expand_dims(sample_weight != 0, -1)
            labels, scores = (ops.where(counts, x, 0.0) for x in (labels, scores))
        self._check_values(y_true, labels)
        return super().__call__(labels, scores, sample_weight)

    def _axis_last(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        """Check shapes, and move the axis to the end of both, adding that of integer labels."""
        rank, shape, received = len(y_pred.shape), tuple(y_pred.shape), shapes(y_true, y_pred)
        expected = f"`axis` must be in [-{rank}, {rank})."
        require(-rank <= self.axis < rank, expected, f"axis={self.axis}, {received}")
        axis = self.axis % rank
        labels = ops.expand_dims(y_true, axis) if len(y_true.shape) == rank - 1 else y_true
        self._check_shapes(labels.shape, shape, axis, received)
        each = f"each of the {shape[axis]} {self._along[1]} on axis {self.axis}"
        for name in ("gamma", "alpha"):
            values = getattr(self, name)
            size = len(values) if isinstance(values, list) else None
            is_right, found = fits([size], [shape[axis]]), f"{name} with {size} numbers, {received}"
            require(is_right, f"`{name}` must be one number or one for {each}.", found)
        return ops.moveaxis(labels, axis, -1), ops.moveaxis(y_pred, axis, -1)

    def _check_shapes(self, labels: Any, shape: Any, axis: int, received: str) -> None:
        where = f"axis={self.axis}, {received}"
        expected = "`y_pred` must have at least 2 classes on its class axis; for one probability "
        require(shape[axis] != 1, f"{expected}per row use `BinaryFocalLoss`.", where)
        require(
            fits(labels, (*shape[:axis], 1, *shape[axis + 1 :])) or fits(labels, shape),
            "`y_true` must be integer labels, shaped like `y_pred` without its class axis (or "
            "with size 1 there), or one-hot or soft labels, shaped like `y_pred`.",
            where,
        )
        is_right, where = labels[axis] == 1, f"ignore_class={self.ignore_class}, {received}"
        is_right |= self.ignore_class is None
        require(is_right, "`ignore_class` needs integer labels.", where)

    def _check_values(self, y_true: Any, labels: Tensor) -> None:
        pass  # a wrong one gives NaN

    def _row_weights(self, labels: Any, scores: Any, y_pred: Any, sample_weight: Any) -> Tensor:
        """Return the weight of each row: 0 if ignored or masked, with the mean over the rest."""
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight, self.dtype)
            rank, shape = len(scores.shape), tuple(sample_weight.shape)
            if len(shape) == rank and shape[self.axis] == 1:
                sample_weight = ops.squeeze(sample_weight, self.axis)
            expected = f"`sample_weight` must have one number per row, not per {self._along[0]}."
            received = f"sample_weight.shape={shape}, {shapes(labels, scores)}"
            require(len(sample_weight.shape) < rank, expected, received)
        kept = ops.cast(ops.any(labels != self._ignored, axis=-1), self.dtype)
        weights = _Weights("weights", None, self.dtype)(kept, y_pred, sample_weight)
        if self._is_mean_of_rows:  # Keras will divide by the number of all rows
            count = _Weights("weights", "sum", self.dtype)(kept, y_pred)
            weights *= ops.divide_no_nan(ops.sum(ops.ones_like(kept)), count)
        return weights

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if y_true.shape[-1] != 1:
            # TensorFlow may not know the shape of labels before it runs: nothing may broadcast.
            return self._soft_label_loss(ops.reshape(y_true, ops.shape(y_pred)), y_pred)
        num_classes = ops.shape(y_pred)[-1]
        label = ops.clip(ops.cast(y_true, "int32"), 0, num_classes - 1)
        weight = _one_or_nan(ops.cast(label, y_true.dtype) == y_true, y_pred.dtype)
        if self.label_smoothing:
            one_hot = ops.one_hot(ops.squeeze(label, -1), num_classes, dtype=y_pred.dtype)
            return ops.squeeze(weight, -1) * self._soft_label_loss(one_hot, y_pred)
        log_odds, *_ = _split(label, y_pred, self.from_logits)
        gamma, alpha = (_at(label, values, y_pred.dtype) for values in (self.gamma, self.alpha))
        loss = _focused(-_softplus(log_odds), ops.log_sigmoid(log_odds), gamma)
        return ops.squeeze(weight * alpha * loss, -1)

    def _soft_label_loss(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if self.label_smoothing:
            num_classes = ops.shape(y_pred)[-1]
            y_true = (1 - self.label_smoothing) * y_true + self.label_smoothing / num_classes
        if self.from_logits:
            y_pred = ops.clip(y_pred, LOWEST_LOGIT, -LOWEST_LOGIT)
        weight = y_true * _last(self.alpha, y_pred)

        # Only the class with the largest p can have p > 1/2, where 1 - p cancels.
        top = ops.argmax(y_pred, axis=-1, keepdims=True)
        log_odds, log_top, log_others, others = _split(top, y_pred, self.from_logits)
        gamma = _at(top, self.gamma, y_pred.dtype)
        top_loss = _focused(-_softplus(log_odds), ops.log_sigmoid(log_odds), gamma)
        top_weight = ops.take_along_axis(weight, top, axis=-1)
        log_total = log_top + _softplus(log_odds)
        loss = log_total - log_others
        if self.gamma != 0:
            loss *= (1 - others * ops.exp(-log_total)) ** _last(self.gamma, y_pred)
        weight = ops.where(_is_class(top, y_pred), 0.0, weight)
        return ops.squeeze(top_weight * top_loss, -1) + ops.sum(weight * loss, axis=-1)

    def get_config(self) -> dict[str, Any]:
        names = "gamma", "alpha", "from_logits", "label_smoothing", "axis", *self._own_options
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class _Weights(WideLoss):
    """Lets Keras apply sample weights, and the mask of `y_pred`, to the weights `y_true`."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_true


@keras.saving.register_keras_serializable(package="mnist_keras")
class BinaryFocalLoss(FocalLoss):
    """Focal loss of labels that are yes or no, one or more per row, by the sigmoid of each.

        loss = alpha * y * (1 - p)**gamma * -log(p)
             + (1 - alpha) * (1 - y) * p**gamma * -log(1 - p)

    Here `p` is the probability of the label `y`, which may be soft. The loss of a row is the mean
    over its labels that count. What `FocalLoss` says of clipping and of 16 bits holds here too.

    Args:
        gamma: Focusing parameter: a number >= 0, or one per label. `0` is cross entropy.
        alpha: Weight of positives, in [0, 1], or one per label; negatives have `1 - alpha`.
            `None` gives both weight 1.
        from_logits, reduction, name, dtype: As for `FocalLoss`, and so is `sample_weight`.
        label_smoothing: The share, in [0, 1], of each label that is replaced by 1/2.
        axis: The axis of `y_pred` with the labels of a row.
        ignore_value: Label of what is unknown. A row with no other label leaves the mean.
        normalize_by: `"rows"` for the mean over rows, or `"positives"` for the sum over all
            labels, divided by the sum of `y`, or by 1 if that is less. Neither counts sample
            weights, but rows of weight 0 have no positives.

    Call arguments:
        y_true: Labels shaped like `y_pred`, whose axis may be missing if it has size 1. A label
            outside [0, 1] makes the loss of its row NaN. Eagerly it is a `ValueError`, unless
            it is in a tensor of floats.
        y_pred: Logits or probabilities, e.g. `(batch, labels)`; `(batch,)` is one label per row.

    >>> loss = BinaryFocalLoss(alpha=0.25, from_logits=True, ignore_value=-1)
    >>> round(float(loss([[1, 0], [0, -1]], [[-2.0, 1.0], [3.0, 0.5]])), 4)
    1.2721

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), equations 4 and 5
    """

    _own_options = "ignore_value", "normalize_by"
    _along = "label", "labels"

    def __init__(
        self,
        gamma: ArrayLike = 2.0,
        alpha: ArrayLike | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_loss",
        dtype: Any = None,
        *,
        ignore_value: float | None = None,
        normalize_by: str = "rows",
    ):
        options = gamma, 1.0, from_logits, label_smoothing, None, axis
        super().__init__(*options, reduction, name, dtype)
        expected = "a number in [0, 1], or one per label"
        self.alpha = None if alpha is None else numbers("alpha", alpha, expected, 1)
        self.ignore_value, self.normalize_by = ignore_value, normalize_by
        if ignore_value is not None:
            self._ignored = number("ignore_value", ignore_value, "a number", least=-np.inf)
            self.ignore_value = self._ignored
        is_right = normalize_by == "rows" or (normalize_by == "positives" and self._is_mean_of_rows)
        expected = "`normalize_by` must be 'rows', or 'positives' with a reduction to the mean."
        received = f"normalize_by={normalize_by!r}, reduction={reduction!r}"
        require(is_right, expected, received)
        self._is_mean_of_rows &= normalize_by == "rows"

    def _axis_last(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        return super()._axis_last(y_true, y_pred if len(y_pred.shape) > 1 else y_pred[:, None])

    def _check_shapes(self, labels: Any, shape: Any, axis: int, received: str) -> None:
        expected = "`y_true` must be shaped like `y_pred`; an axis for one label may be missing."
        require(fits(labels, shape), expected, f"axis={self.axis}, {received}")

    def _check_values(self, y_true: Any, labels: Tensor) -> None:
        # Tensors of floats are what models train on, and PyTorch would wait for its device.
        if ops.is_tensor(y_true) and "int" not in _dtype(y_true):
            return
        try:
            found = ops.convert_to_numpy(labels)
        except Exception:  # a compiled step has no values
            return
        wrong = found[(found != self._ignored) & ((found < 0) | (found > 1))]
        hint = "; these look like class indices: use `FocalLoss`" if np.all(wrong >= 2) else ""
        require(not wrong.size, f"`y_true` must be in [0, 1]{hint}.", f"y_true with {wrong[:1]}")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true = ops.reshape(y_true, ops.shape(y_pred))  # as in `FocalLoss`
        counts = ops.ones_like(y_pred)
        if self.ignore_value is not None:
            known = y_true != self._ignored
            counts, y_true, y_pred = (ops.where(known, x, 0.0) for x in (counts, y_true, y_pred))
        total = ops.sum(counts * self._label_losses(y_true, y_pred), axis=-1)
        if self.normalize_by == "rows":
            return total / ops.maximum(ops.sum(counts, axis=-1), 1)
        # Keras will divide by the number of rows.
        return total * (ops.sum(ops.ones_like(total)) / ops.maximum(ops.sum(y_true), 1))

    def _label_losses(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        weight = _one_or_nan((y_true >= 0) & (y_true <= 1), y_pred.dtype)
        kept, even = 1 - self.label_smoothing, self.label_smoothing / 2
        positive, negative = kept * y_true + even, kept * (1 - y_true) + even
        if self.alpha is not None:
            alpha = _last(self.alpha, y_pred)
            positive, negative = alpha * positive, (1 - alpha) * negative
        if self.from_logits:
            logits = ops.clip(y_pred, LOWEST_LOGIT, -LOWEST_LOGIT)
        else:
            logits = _log_floored(y_pred) - _log_floored(1 - y_pred)
        gamma = _last(self.gamma, y_pred)
        yes, no = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
        return weight * (positive * _focused(yes, no, gamma) + negative * _focused(no, yes, gamma))


def focal_loss(
    y_true: Any,
    y_pred: Any,
    gamma: ArrayLike = 2.0,
    alpha: ArrayLike = 1.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Tensor:
    """Returns the focal loss of each row. `FocalLoss` gives the formula and the arguments.

    It is shaped like `y_pred` without its class axis, float64 if `y_pred` is, and else float32.

    >>> loss = focal_loss([2], [[1.0, 1.0, 1.5]], gamma=2.0, from_logits=True)
    >>> round(float(loss[0]), 4)
    0.2387
    """
    options = gamma, alpha, from_logits, label_smoothing, ignore_class, axis
    return FocalLoss(*options, reduction=None, dtype=_dtype(y_pred))(y_true, y_pred)


def binary_focal_loss(
    y_true: Any,
    y_pred: Any,
    gamma: ArrayLike = 2.0,
    alpha: ArrayLike | None = None,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    ignore_value: float | None = None,
) -> Tensor:
    """Returns the focal loss of each row's labels, as `focal_loss` does that of its class."""
    options = gamma, alpha, from_logits, label_smoothing, axis, None, "loss", _dtype(y_pred)
    return BinaryFocalLoss(*options, ignore_value=ignore_value)(y_true, y_pred)


# Not as decorators: Keras's has no types and would take away those of the functions.
for _function in (focal_loss, binary_focal_loss):
    keras.saving.register_keras_serializable(package="mnist_keras")(_function)


def _focused(log_p: Tensor, log_rest: Tensor, gamma: Any) -> Tensor:
    """Return `(1 - p)**gamma * -log(p)`, given `log(p)` and `log(1 - p)`."""
    # Made of log-odds both are exact to the last bits: no 1 - p cancels, no base of a power is 0.
    is_cross_entropy = isinstance(gamma, float) and gamma == 0
    return -log_p if is_cross_entropy else -log_p * ops.exp(gamma * log_rest)


def _softplus(x: Tensor) -> Tensor:
    # PyTorch's is x itself above 20, which float64 tells from right.
    return -ops.log_sigmoid(-x) if _dtype(x) == "float64" else ops.softplus(x)


def _split(label: Tensor, y_pred: Tensor, from_logits: bool) -> tuple[Tensor, ...]:
    """Split the classes into one and the others. Scores are probabilities up to a factor per row.

    Returned are the log-odds against the one class and its log-score, of shape `(..., 1)`; the
    log-scores and the scores of the others, shaped like `y_pred`, where the score of the one is 0.
    """
    is_class = _is_class(label, y_pred)
    own = ops.take_along_axis(y_pred, label, axis=-1)
    if from_logits:
        rest = ops.where(is_class, LOWEST_LOGIT, y_pred)
        # Shifting by the largest *other* logit keeps the gradient exact at margins of 1e4.
        shift = ops.stop_gradient(ops.max(rest, -1, keepdims=True, initial=LOWEST_LOGIT))
        log_own = ops.clip(own, LOWEST_LOGIT, -LOWEST_LOGIT) - shift
        log_others = rest - shift
        others = ops.exp(log_others)
        log_sum = ops.log(ops.sum(others, axis=-1, keepdims=True))
    else:
        log_own = _log_probability(own)
        others = ops.where(is_class, 0.0, y_pred)
        log_others = _log_probability(others)
        log_sum = _log_probability(ops.sum(others, axis=-1, keepdims=True))
    return log_sum - log_own, log_own, log_others, others


def _log_probability(p: Tensor) -> Tensor:
    return ops.log(ops.clip(p, LEAST_PROBABILITY, 1 / LEAST_PROBABILITY))


def _log_floored(p: Tensor) -> Tensor:
    # The floor does not stop the gradient.
    floored = ops.stop_gradient(ops.maximum(p, LEAST_PROBABILITY))
    return ops.log(floored + (p - ops.stop_gradient(p)))


def _one_or_nan(is_right: Tensor, dtype: str) -> Tensor:
    # A compiled step cannot raise, and tools that look for NaN would find a constant: 0 / 0.
    one = ops.cast(is_right, dtype)
    return one / one


def _is_class(label: Tensor, y_pred: Tensor) -> Tensor:
    return label == _last(ops.arange(ops.shape(y_pred)[-1], dtype="int32"), y_pred)


def _last(values: Any, y_pred: Tensor) -> Tensor:
    """Return a sequence along the last axis, in the rank of `y_pred`; a number remains one."""
    if isinstance(values, float):
        return values
    values = ops.array(values, y_pred.dtype if isinstance(values, list) else None)
    return ops.reshape(values, (1,) * (len(y_pred.shape) - 1) + (-1,))


def _at(label: Tensor, values: Any, dtype: str) -> Tensor:
    """Return the entry of each label, or `values` itself if it is one number."""
    return values if isinstance(values, float) else ops.take(ops.array(values, dtype), label)


def _dtype(tensor: Any) -> str:
    return str(keras.backend.standardize_dtype(ops.convert_to_tensor(tensor).dtype))
