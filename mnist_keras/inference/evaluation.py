"""What a model's probabilities are worth: accuracy, each class, and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mnist_keras._foundations.statistics import t_interval, wilson_interval
from mnist_keras.datasets.images import DataError

_BINS = 15  # as Guo et al.
# A probability of 0 would make the likelihood of a single image that of all of them.
_LEAST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Bin:
    """Images whose highest probability lies in one interval.

    Attributes:
        low, high: The interval; `high` belongs to it.
        n: How many images.
        confidence: Their mean highest probability; NaN without any.
        accuracy: Share of them that is right; NaN without any.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassScore:
    """One class.

    Attributes:
        name: Of the class.
        n: Images of it.
        precision: Share of the images given this class that are of it; NaN if none was given it.
        precision_interval: Wilson's 95 % interval, or `None` with NaN.
        recall: Share of its images that are given this class; NaN without images of it.
        recall_interval: Wilson's 95 % interval, or `None` with NaN.
    """

    name: str
    n: int
    precision: float
    precision_interval: tuple[float, float] | None
    recall: float
    recall_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Evaluation:
    """What probabilities are worth on labeled images.

    Attributes:
        n: Images.
        accuracy: Share of them that is right, in 0…1.
        accuracy_interval: Wilson's 95 % interval.
        classes: One score a class.
        confusion: `int64` array: images of each class, by line, given each class, by column.
        negative_log_likelihood: Mean over images of minus the log of the true class's probability.
        negative_log_likelihood_interval: Student's 95 % interval over images.
        brier: Mean over images of the squared distance of the probabilities from the truth, 0…2.
        brier_interval: Student's 95 % interval over images.
        calibration_error: Expected calibration error, `Σ n_b/n |accuracy_b − confidence_b|`.
        bins: What it is the sum of, 15 of equal width.
        overconfidence: Mean highest probability less accuracy: positive if it is too sure.
    """

    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    classes: tuple[ClassScore, ...]
    confusion: np.ndarray
    negative_log_likelihood: float
    negative_log_likelihood_interval: tuple[float, float] | None
    brier: float
    brier_interval: tuple[float, float] | None
    calibration_error: float
    bins: tuple[Bin, ...]
    overconfidence: float


def evaluate(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Evaluation:
    """Return what probabilities are worth.

    Args:
        probabilities: Shape `(n, num_classes)`, each row of sum 1; at least one row.
        labels: Integers of shape `(n,)`.
        class_names: One name a class.

    Raises:
        ValueError: If the shapes do not fit.
        DataError: If a probability is not finite.

    References:
        Brier, "Verification of forecasts expressed in terms of probability", 1950.
        [Guo et al., "On calibration of modern neural networks", 2017](https://arxiv.org/abs/1706.04599)
    """
    n, count = len(labels), len(class_names)
    if n == 0 or probabilities.shape != (n, count):
        raise ValueError(
            f"expected probabilities of shape ({n}, {count}), n >= 1. "
            f"Received: shape {probabilities.shape}"
        )
    if not np.isfinite(probabilities).all():
        raise DataError("the model's probabilities are not finite numbers")
    rows = np.arange(n)
    given, confidence = probabilities.argmax(1), probabilities.max(1)
    right = given == labels
    likelihoods = -np.log(np.maximum(probabilities[rows, labels], _LEAST))
    truth = np.zeros_like(probabilities)
    truth[rows, labels] = 1
    distances = ((probabilities - truth) ** 2).sum(1)
    confusion = np.bincount(labels * count + given, minlength=count**2).reshape(count, count)
    bins = tuple(_bins(confidence, right))
    return Evaluation(
        n=n,
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), n),
        classes=tuple(_class_score(name, i, confusion) for i, name in enumerate(class_names)),
        confusion=confusion,
        negative_log_likelihood=float(likelihoods.mean()),
        negative_log_likelihood_interval=t_interval(likelihoods.tolist()),
        brier=float(distances.mean()),
        brier_interval=t_interval(distances.tolist()),
        calibration_error=sum(b.n / n * abs(b.accuracy - b.confidence) for b in bins if b.n),
        bins=bins,
        overconfidence=float(confidence.mean() - right.mean()),
    )


def _bins(confidence: np.ndarray, right: np.ndarray) -> list[Bin]:
    edges = np.linspace(0, 1, _BINS + 1)
    where = np.digitize(confidence, edges[1:-1], right=True)
    bins = []
    for number, (low, high) in enumerate(pairwise(edges)):
        own = where == number
        mean, share = (confidence[own].mean(), right[own].mean()) if own.any() else (np.nan,) * 2
        bins.append(Bin(float(low), float(high), int(own.sum()), float(mean), float(share)))
    return bins


def _class_score(name: str, index: int, confusion: np.ndarray) -> ClassScore:
    hits, own, given = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
    return ClassScore(
        name=name,
        n=int(own),
        precision=float(hits / given) if given else float("nan"),
        precision_interval=wilson_interval(int(hits), int(given)) if given else None,
        recall=float(hits / own) if own else float("nan"),
        recall_interval=wilson_interval(int(hits), int(own)) if own else None,
    )
