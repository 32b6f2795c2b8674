"""What a model's probabilities are worth: accuracy, each class, and calibration.

Scores that scikit-learn has too are computed here: it gives means, and the intervals need the
score of each image or the counts of each class.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mnist_keras._foundations.statistics import t_interval, wilson_interval
from mnist_keras.datasets.images import DataError, LabeledImages
from mnist_keras.models.prediction import of_classes

_BINS = 15  # as Guo et al.
# With a probability of 0, a single image would make the mean likelihood infinite.
_LEAST = np.finfo(np.float64).tiny

Interval = tuple[float, float]


@dataclass(frozen=True)
class Bin:
    """Images whose highest probability lies in one interval, to which `high` belongs."""

    low: float
    high: float
    n: int
    confidence: float  # their mean highest probability; NaN for an empty bin
    accuracy: float  # share of them that is right; NaN for an empty bin


@dataclass(frozen=True)
class ClassScore:
    """How well one class of `n` images is recognized, with Wilson's 95 % intervals.

    A share of no images is NaN, and has no interval.
    """

    name: str
    n: int
    precision: float  # share of the images given this class that belong to it
    precision_interval: Interval | None
    recall: float  # share of the images of this class that are given it
    recall_interval: Interval | None


@dataclass(frozen=True)
class Evaluation:
    """What probabilities are worth on `n` labeled images.

    The 95 % intervals of shares are Wilson's; those of means over images are Student's.

    Attributes:
        confusion: `int64` array: images of each class (row) that were given each class (column).
        negative_log_likelihood: Mean over images of minus the log of the true class's probability.
        brier: Mean over images of the squared distance of the probabilities from the truth, 0…2.
        calibration_error: Expected calibration error, `Σ n_b/n |accuracy_b − confidence_b|`.
        bins: The 15 bins of equal width that it sums over.
        overconfidence: Mean highest probability minus accuracy.
    """

    n: int
    accuracy: float
    accuracy_interval: Interval
    classes: tuple[ClassScore, ...]
    confusion: np.ndarray
    negative_log_likelihood: float
    negative_log_likelihood_interval: Interval | None
    brier: float
    brier_interval: Interval | None
    calibration_error: float
    bins: tuple[Bin, ...]
    overconfidence: float


def evaluate(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Evaluation:
    """Return what probabilities are worth.

    Args:
        probabilities: Shape `(n, num_classes)`, at least one row; each row sums to 1.
        labels: Integers of shape `(n,)`.
        class_names: The name of each class.

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
    given, confidence = probabilities.argmax(1), probabilities.max(1)
    right = given == labels
    likelihoods = -np.log(np.maximum(of_classes(probabilities, labels), _LEAST))
    truth = np.eye(count, dtype=probabilities.dtype)[labels]
    distances = ((probabilities - truth) ** 2).sum(1)
    confusion = np.bincount(labels * count + given, minlength=count**2).reshape(count, count)
    counts = np.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)], axis=1)
    bins = tuple(_bins(confidence, right))
    return Evaluation(
        n=n,
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), n),
        classes=tuple(
            ClassScore(name, own, *_share(hits, given), *_share(hits, own))
            for name, (hits, given, own) in zip(class_names, counts.tolist(), strict=True)
        ),
        confusion=confusion,
        negative_log_likelihood=float(likelihoods.mean()),
        negative_log_likelihood_interval=t_interval(likelihoods.tolist()),
        brier=float(distances.mean()),
        brier_interval=t_interval(distances.tolist()),
        calibration_error=sum(b.n / n * abs(b.accuracy - b.confidence) for b in bins if b.n),
        bins=bins,
        overconfidence=float(confidence.mean() - right.mean()),
    )


def split_seen(
    images: LabeledImages, trained_on: np.ndarray, unseen: bool
) -> tuple[LabeledImages, int]:
    """Return the images to score, all or those not `trained_on`, and how many were trained on."""
    seen = np.isin(images.fingerprints, trained_on)
    if not unseen:
        return images, int(seen.sum())
    if seen.all():
        raise DataError(f"{images.name}: the model was trained on all of these images")
    return images.take(np.flatnonzero(~seen)), 0


def as_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain JSON values; NaN becomes `None`."""
    document = asdict(evaluation) | {"confusion": evaluation.confusion.tolist()}
    plain: dict[str, Any] = json.loads(json.dumps(document), parse_constant=lambda name: None)
    return plain


def _bins(confidence: np.ndarray, right: np.ndarray) -> Iterator[Bin]:
    edges = np.linspace(0, 1, _BINS + 1)
    where = np.digitize(confidence, edges[1:-1], right=True)
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        own = where == number
        mean, share = (confidence[own].mean(), right[own].mean()) if own.any() else (np.nan,) * 2
        yield Bin(low, high, int(own.sum()), float(mean), float(share))


def _share(hits: int, n: int) -> tuple[float, Interval | None]:
    return (hits / n, wilson_interval(hits, n)) if n else (float("nan"), None)
