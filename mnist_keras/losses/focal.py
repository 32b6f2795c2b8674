"""Focal loss for softmax classifiers, right at every margin, gamma and dtype."""

import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from mnist_keras._foundations.typing import Tensor
from mnist_keras.losses.wide import WideLoss

# Stands for a logit of -inf, yet 0 times it is 0.
LOWEST_LOGIT = -1e30
# The gradient 1 / p of a probability at this floor leaves float32 room for alpha and weights.
LEAST_PROBABILITY = 1e-30


@keras.saving.register_keras_serializable(package="mnist_keras")
class FocalLoss(WideLoss):
    """Cross entropy that pays less attention to the rows a classifier already gets right.

    ```
    loss = alpha_t * (1 - p_t)**gamma * -log(p_t)
    ```

    Here `t` is the true class and `p_t` its softmax probability. The loss of soft labels `y` is
    `sum_c y_c * alpha_c * (1 - p_c)**gamma * -log(p_c)`. Nothing is clipped: a confidently
    wrong row keeps its gradient, and an easy row never gives NaN, whatever `gamma` is.

    Pass logits, or keep the last layer in float32: a float16 softmax loses the small
    probabilities before any loss sees them. Log-probabilities count as logits.

    Args:
        gamma: Focusing parameter: a number >= 0, or a sequence with one per true class.
            `0` is cross entropy. Defaults to `2.0`.
        alpha: Balancing factor: a number that scales the whole loss, or a sequence with the
            weight of each true class. Defaults to `1.0`.
        from_logits: Whether `y_pred` holds logits instead of probabilities. Defaults to `False`.
        label_smoothing: Float in [0, 1], the share of each label that is spread evenly over
            all classes. Defaults to `0.0`.
        ignore_class: Integer label of the rows that count neither in the loss nor in the mean.
            Needs integer labels. Defaults to `None`.
        axis: The class axis of `y_pred`. Defaults to `-1`.
        reduction, name: See `keras.losses.Loss`.
        dtype: The dtype of the computations; 16-bit types are promoted to float32. Defaults
            to `keras.config.floatx()`.

    Call arguments:
        y_true: Integer labels of any dtype, shaped like `y_pred` without its class axis or with
            size 1 there; or one-hot or soft labels, shaped like `y_pred`. A label that does not
            name a class makes the loss of its row NaN.
        y_pred: Logits or probabilities of at least two classes, e.g. `(batch, classes)`.
        sample_weight: Optional, as for any Keras loss; along the class axis it may have size 1.
            A row of weight 0, or masked, leaves no trace, whatever its label and scores are.

    Example:

    >>> loss = FocalLoss(gamma=2.0, from_logits=True)
    >>> round(float(loss([0, 1], [[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])), 4)
    0.0249

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002)
    """

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
        self.gamma = _per_class("gamma", gamma)
        self.alpha = _per_class("alpha", 1.0 if alpha is None else alpha)
        if not np.any(self.alpha):
            raise ValueError(f"`alpha` must not be 0 for every class. Received: alpha={alpha!r}")
        self.from_logits = bool(from_logits)
        self.label_smoothing = _share("label_smoothing", label_smoothing)
        self.ignore_class = None if ignore_class is None else _int("ignore_class", ignore_class)
        self.axis = _int("axis", axis)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        y_true = ops.convert_to_tensor(y_true, self.dtype)
        if not ops.is_tensor(y_pred):  # a tensor may carry a mask, which Keras looks for
            y_pred = ops.convert_to_tensor(y_pred, self.dtype)
        masked = getattr(y_pred, "_keras_mask", None) is not None
        if masked or sample_weight is not None or self.ignore_class is not None:
            sample_weight = self._row_weights(y_true, y_pred, sample_weight)
            # 0 times NaN is NaN: a row that does not count is one that has nothing wrong.
            counts = sample_weight != 0
            of_scores = ops.expand_dims(counts, self.axis)
            y_true = ops.where(counts if _rank(y_true) < _rank(y_pred) else of_scores, y_true, 0.0)
            y_pred = ops.where(of_scores, ops.cast(y_pred, self.dtype), 0.0)
        return super().__call__(y_true, y_pred, sample_weight)

    def _row_weights(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any) -> Tensor:
        """Return the weight of each row: 0 if ignored or masked, with the mean over the rest."""
        labels, scores = _class_axis_last(y_true, y_pred, self.axis)
        if sample_weight is not None:
            sample_weight = self._without_class_axis(sample_weight, y_true, y_pred)
        kept = ops.ones_like(scores[..., 0], self.dtype)
        if self.ignore_class is not None:
            self._check_classes(labels, scores)
            kept = ops.cast(ops.not_equal(labels[..., 0], self.ignore_class), self.dtype)
        weights = _Weights(self.dtype, reduction=None)(kept, y_pred, sample_weight)
        if self.reduction in ("sum_over_batch_size", "mean"):
            # Keras will divide by the number of all rows.
            count = _Weights(self.dtype, reduction="sum")(kept, y_pred)
            weights *= ops.divide_no_nan(ops.sum(ops.ones_like(kept)), count)
        return weights

    def _without_class_axis(self, sample_weight: Any, y_true: Tensor, y_pred: Tensor) -> Tensor:
        sample_weight = ops.convert_to_tensor(sample_weight, self.dtype)
        rank, shape = _rank(y_pred), tuple(sample_weight.shape)
        if len(shape) == rank and shape[self.axis] == 1:
            return ops.squeeze(sample_weight, self.axis)
        if len(shape) >= rank:
            raise ValueError(
                "`sample_weight` must have one number per row, not per class. "
                f"Received: sample_weight.shape={shape}, {_shapes(y_true, y_pred)}"
            )
        return sample_weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = _class_axis_last(y_true, y_pred, self.axis)
        self._check_classes(y_true, y_pred)
        if y_true.shape[-1] == 1:
            loss = self._integer_label_loss(y_true, y_pred)
        else:
            # TensorFlow may not know the shape of labels before it runs: nothing may broadcast.
            y_true = ops.reshape(y_true, ops.shape(y_pred))
            loss = self._soft_label_loss(y_true, y_pred)
        return ops.squeeze(loss, -1)

    def _integer_label_loss(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        num_classes = ops.shape(y_pred)[-1]
        label = ops.clip(ops.cast(y_true, "int32"), 0, num_classes - 1)
        # NaN where the label does not name a class, since a compiled step cannot raise. It comes
        # from 0 / 0, because tools that look for NaN would find a constant.
        is_label = ops.cast(ops.cast(label, y_true.dtype) == y_true, y_pred.dtype)
        weight = is_label / is_label
        if self.label_smoothing:
            one_hot = ops.one_hot(ops.squeeze(label, -1), num_classes, dtype=y_pred.dtype)
            return weight * self._soft_label_loss(one_hot, y_pred)
        log_odds, *_ = _split(label, y_pred, self.from_logits)
        gamma, alpha = (_at(label, values, y_pred.dtype) for values in (self.gamma, self.alpha))
        return weight * alpha * _focused(log_odds, gamma)

    def _soft_label_loss(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if self.label_smoothing:
            num_classes = ops.shape(y_pred)[-1]
            y_true = (1 - self.label_smoothing) * y_true + self.label_smoothing / num_classes
        if self.from_logits:
            y_pred = ops.clip(y_pred, LOWEST_LOGIT, -LOWEST_LOGIT)
        weight = y_true * _of_classes(self.alpha, y_pred)

        # Only the class with the largest p can have p > 1/2, where 1 - p cancels.
        top = ops.argmax(y_pred, axis=-1, keepdims=True)
        log_odds, log_top, log_others, others = _split(top, y_pred, self.from_logits)
        top_loss = _focused(log_odds, _at(top, self.gamma, y_pred.dtype))
        top_weight = ops.take_along_axis(weight, top, axis=-1)

        log_total = log_top + _softplus(log_odds)
        loss = log_total - log_others
        if self.gamma != 0:
            loss *= (1 - others * ops.exp(-log_total)) ** _of_classes(self.gamma, y_pred)
        weight = ops.where(_is_class(top, y_pred), 0.0, weight)
        return top_weight * top_loss + ops.sum(weight * loss, axis=-1, keepdims=True)

    def _check_classes(self, y_true: Tensor, y_pred: Tensor) -> None:
        """Raise unless labels and options fit the last axis of `y_pred`, the classes."""
        num_classes = y_pred.shape[-1]
        for name, values in (("gamma", self.gamma), ("alpha", self.alpha)):
            if isinstance(values, list) and num_classes not in (None, len(values)):
                raise ValueError(
                    f"`{name}` must be one number or one for each of the {num_classes} classes on "
                    f"axis {self.axis}. Received: {name} with {len(values)} numbers, "
                    f"{_shapes(y_true, y_pred)}"
                )
        if self.ignore_class is not None and y_true.shape[-1] != 1:
            raise ValueError(
                "`ignore_class` needs integer labels. "
                f"Received: ignore_class={self.ignore_class}, {_shapes(y_true, y_pred)}"
            )

    def get_config(self) -> dict[str, Any]:
        names = "gamma", "alpha", "from_logits", "label_smoothing", "ignore_class", "axis"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class _Weights(keras.losses.Loss):
    """Lets Keras apply sample weights, and the mask of `y_pred`, to the weights `y_true`."""

    def __init__(self, dtype: str, reduction: str | None):
        # TensorFlow refuses the name that Keras would make: a scope begins with a letter.
        super().__init__(name="weights", reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_true


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

    Returns:
        Tensor shaped like `y_pred` without its class axis, in float64 if `y_pred` is float64
        and in float32 otherwise. Ignored rows are 0.

    Example:

    >>> loss = focal_loss([2], [[1.0, 1.0, 1.5]], gamma=2.0, from_logits=True)
    >>> round(float(loss[0]), 4)
    0.2387
    """
    y_pred = ops.convert_to_tensor(y_pred)
    options = gamma, alpha, from_logits, label_smoothing, ignore_class, axis
    dtype = keras.backend.standardize_dtype(y_pred.dtype)
    return FocalLoss(*options, reduction=None, dtype=dtype)(y_true, y_pred)


# Not as a decorator: Keras's has no types and would take away those of the function.
keras.saving.register_keras_serializable(package="mnist_keras")(focal_loss)


def class_balanced_alpha(counts: ArrayLike, beta: float = 0.999) -> list[float]:
    """Returns one weight per class, with mean 1, by the effective number of its samples.

    The weight of a class with `n` samples is proportional to `(1 - beta) / (1 - beta**n)`.
    It is equal for all classes at `beta=0`, and nears `1 / n` as `beta` nears 1.

    Args:
        counts: Number of training samples of each class, a sequence of numbers > 0.
        beta: Float in [0, 1). Defaults to `0.999`.

    Returns:
        List of floats for the argument `alpha` of `FocalLoss`.

    Example:

    >>> [round(weight, 4) for weight in class_balanced_alpha([5000, 500, 50])]
    [0.1256, 0.317, 2.5574]

    Reference: [Cui et al., 2019](https://arxiv.org/abs/1901.05555)
    """
    numbers = _numbers(counts)
    if not isinstance(numbers, list) or min(numbers) <= 0:
        raise ValueError(f"`counts` must hold a number > 0 per class. Received: counts={counts!r}")
    if _share("beta", beta) == 1:
        raise ValueError(f"`beta` must be less than 1. Received: beta={beta!r}")
    with np.errstate(divide="ignore"):  # beta = 0: log 0 = -inf, and expm1(-inf) = -1
        weights = -1 / np.expm1(np.array(numbers) * np.log(np.float64(beta)))
    return list((weights / weights.mean()).tolist())


def _focused(log_odds: Tensor, gamma: Any) -> Tensor:
    """Return `(1 - p)**gamma * -log(p)`, given `log_odds = log(1 - p) - log(p)`."""
    # -log(p) = softplus(log_odds) and log(1 - p) = log_sigmoid(log_odds) are exact to the last
    # bits everywhere: no 1 - p cancels, and no power has a base that reaches 0.
    cross_entropy = _softplus(log_odds)
    if isinstance(gamma, float) and gamma == 0:
        return cross_entropy
    return cross_entropy * ops.exp(gamma * ops.log_sigmoid(log_odds))


def _softplus(x: Tensor) -> Tensor:
    # PyTorch's is x itself above 20, which float64 tells from right.
    is_double = keras.backend.standardize_dtype(x.dtype) == "float64"
    return -ops.log_sigmoid(-x) if is_double else ops.softplus(x)


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


def _is_class(label: Tensor, y_pred: Tensor) -> Tensor:
    classes = ops.arange(ops.shape(y_pred)[-1], dtype="int32")
    return label == ops.reshape(classes, (1,) * (_rank(y_pred) - 1) + (-1,))


def _rank(tensor: Tensor) -> int:
    return len(tensor.shape)


def _of_classes(values: float | list[float], y_pred: Tensor) -> Tensor:
    """Return a number per class in the rank of `y_pred`, or `values` itself if it is one number."""
    if not isinstance(values, list):
        return values
    return ops.reshape(_tensor(values, y_pred.dtype), (1,) * (_rank(y_pred) - 1) + (-1,))


def _tensor(values: list[float], dtype: str) -> Tensor:
    return ops.convert_to_tensor(values, dtype)


def _at(label: Tensor, values: float | list[float], dtype: str) -> Tensor:
    """Return the entry of each label, or `values` itself if it is one number."""
    return ops.take(_tensor(values, dtype), label) if isinstance(values, list) else values


def _class_axis_last(y_true: Tensor, y_pred: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Move the class axis of both to the end, where integer labels have size 1."""
    rank = len(y_pred.shape)
    if not -rank <= axis < rank:
        raise ValueError(
            f"`axis` must be in [-{rank}, {rank}). Received: axis={axis}, {_shapes(y_true, y_pred)}"
        )
    axis %= rank
    if y_pred.shape[axis] == 1:
        raise ValueError(
            "`y_pred` must have at least 2 classes on its class axis; for one probability per "
            "row use `keras.losses.BinaryFocalCrossentropy`. "
            f"Received: axis={axis}, {_shapes(y_true, y_pred)}"
        )
    shape = tuple(y_pred.shape)
    one_per_row = (*shape[:axis], 1, *shape[axis + 1 :])
    labels = ops.expand_dims(y_true, axis) if len(y_true.shape) == rank - 1 else y_true
    if not (_fits(labels.shape, one_per_row) or _fits(labels.shape, shape)):
        raise ValueError(
            "`y_true` must be integer labels, shaped like `y_pred` without its class axis (or "
            "with size 1 there), or one-hot or soft labels, shaped like `y_pred`. "
            f"Received: axis={axis}, {_shapes(y_true, y_pred)}"
        )
    if axis == rank - 1:
        return labels, y_pred
    return ops.moveaxis(labels, axis, -1), ops.moveaxis(y_pred, axis, -1)


def _shapes(y_true: Tensor, y_pred: Tensor) -> str:
    return f"y_true.shape={tuple(y_true.shape)}, y_pred.shape={tuple(y_pred.shape)}"


def _fits(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(a == b or None in (a, b) for a, b in pairs)


def _numbers(values: Any) -> float | list[float] | None:
    """Return a real number as a float, a sequence of them as a list, anything else as None."""
    try:
        array = ops.convert_to_numpy(values)
    except (TypeError, ValueError):
        return None
    is_real = array.dtype.kind in "iuf" and array.ndim <= 1 and array.size
    is_finite = is_real and np.isfinite(array).all()
    numbers: float | list[float] | None = array.astype("float64").tolist() if is_finite else None
    return numbers


def _per_class(name: str, values: Any) -> float | list[float]:
    numbers = _numbers(values)
    if numbers is None or np.min(numbers) < 0:
        raise ValueError(
            f"`{name}` must be a finite number >= 0, or one per class. Received: {name}={values!r}"
        )
    return numbers


def _share(name: str, value: Any) -> float:
    number = _numbers(value)
    if not isinstance(number, float) or not 0 <= number <= 1:
        raise ValueError(f"`{name}` must be a number in [0, 1]. Received: {name}={value!r}")
    return number


def _int(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"`{name}` must be an int. Received: {name}={value!r}")
    return operator.index(value)
