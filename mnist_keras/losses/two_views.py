"""Losses of two views of each image: SimCLR's and VICReg's."""

from typing import Any

import keras
from keras import ops

from mnist_keras._foundations.typing import Tensor
from mnist_keras.losses.wide import WideLoss

# Keras's epsilon of `ops.normalize`, whose gradient is NaN below it.
_LEAST_LENGTH = 1e-7


@keras.saving.register_keras_serializable(package="mnist_keras")
class NTXent(WideLoss):
    """SimCLR's loss: tells the other view of an image from all views of the other images.

        ℓ(a, b) = −log( exp(a·b / τ) / Σ exp(a·z / τ) ),   z over all 2n views but a itself

    Projections are scaled to length 1; one without a length stays 0 and has no gradient. The loss
    of an image is the mean of ℓ(a, b) and ℓ(b, a).

    Args:
        temperature: τ, above 0. Defaults to `0.5`.
        reduction, name: See `keras.losses.Loss`.
        dtype: The dtype of the computations; 16-bit types are promoted to float32.

    Call arguments:
        y_true: Projections of one view of each image, shape `(n, size)`.
        y_pred: Projections of the other view, in the same order. The loss is symmetric.

    Example:

    >>> a = ops.eye(4)
    >>> float(NTXent(temperature=0.1)(a, a)) < float(NTXent(temperature=0.1)(a, a[::-1]))
    True

    Reference:
        [Chen et al., 2020](https://arxiv.org/abs/2002.05709)
    """

    def __init__(
        self,
        temperature: float = 0.5,
        name: str = "nt_xent",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        if not temperature > 0:
            raise ValueError(f"`temperature` must be above 0. Received: temperature={temperature}")
        super().__init__(name, reduction, dtype)
        self.temperature = temperature

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each image, shape `(n,)`."""
        n = ops.shape(y_pred)[0]
        views = _of_length_1(ops.concatenate([y_true, y_pred]))
        similar = ops.matmul(views, ops.transpose(views)) / self.temperature
        # A view is not told from itself.
        others = similar - 1e9 * ops.eye(2 * n, dtype=similar.dtype)
        of_pairs = ops.sum(views[:n] * views[n:], axis=-1) / self.temperature
        normalizers = ops.logsumexp(others, axis=-1)
        return (normalizers[:n] + normalizers[n:]) / 2 - of_pairs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="mnist_keras")
class VICReg(WideLoss):
    """VICReg's loss: makes two views of an image alike, without letting features collapse.

        λ · mean (a − b)²  +  μ · mean relu(1 − √(Var + ε))  +  ν · Σ_{i≠j} Cov_ij² / size

    The first term, the invariance, is a mean over features. The second, the variance, is a mean
    over features and both views. The third, the covariance, is the sum of both views' terms.

    Args:
        invariance: λ. Defaults to the paper's `25.0`.
        variance: μ. Defaults to `25.0`.
        covariance: ν. Defaults to `1.0`.
        reduction, name: See `keras.losses.Loss`.
        dtype: The dtype of the computations; 16-bit types are promoted to float32.

    Call arguments:
        y_true: Projections of one view of each image, shape `(n, size)`; at least two.
        y_pred: Projections of the other view, in the same order. The loss is symmetric.

    Reference:
        [Bardes et al., 2022](https://arxiv.org/abs/2105.04906)
    """

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        name: str = "vicreg",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)
        self.invariance = invariance
        self.variance = variance
        self.covariance = covariance

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each image, shape `(n,)`. Images differ in the invariance only."""
        unlike = ops.mean(ops.square(y_true - y_pred), axis=-1)
        collapsed, alike = 0.0, 0.0
        for view in (y_true, y_pred):
            count = ops.cast(ops.shape(view)[0], view.dtype) - 1
            centered = view - ops.mean(view, axis=0, keepdims=True)
            covariance = ops.matmul(ops.transpose(centered), centered) / count
            variance = ops.diagonal(covariance)
            collapsed += ops.mean(ops.relu(1 - ops.sqrt(variance + 1e-4))) / 2
            off_diagonal = ops.sum(ops.square(covariance)) - ops.sum(ops.square(variance))
            alike += off_diagonal / view.shape[-1]
        return self.invariance * unlike + self.variance * collapsed + self.covariance * alike

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("invariance", "variance", "covariance")}
        return {**super().get_config(), **own}


def _of_length_1(vectors: Tensor) -> Tensor:
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    has_length = squares > _LEAST_LENGTH**2
    return vectors * ops.where(has_length, ops.rsqrt(ops.where(has_length, squares, 1.0)), 0.0)
