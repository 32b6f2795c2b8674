"""Intervals and tests: what a number from few images or few seeds can tell."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np

from mnist_keras._foundations.seeds import generator


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion: its bounds, between 0 and 1.

    `successes` of the `n` >= 1 trials are a count, or a mean of counts.

    Example:

    >>> low, high = wilson_interval(92, 100)
    >>> f"{low:.3f} {high:.3f}"
    '0.850 0.959'

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, n >= 1. Received: {successes} of {n}")
    # SciPy's `binomtest` has this interval for whole counts only.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation, which is `None` for one value."""
    return fmean(values), stdev(values) if len(values) > 1 else None


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Student's t interval of the mean, or `None` for fewer than two values."""
    if len(values) < 2:
        return None
    half = _t_half_width(stdev(values), len(values), confidence)
    return fmean(values) - half, fmean(values) + half


def values_needed(
    values: Sequence[float], distance: float, most: int = 100, confidence: float = 0.95
) -> int | None:
    """Return how many values would bring the t interval of the mean within `distance` of it.

    Their spread is taken to stay what it is. `None` if `most` would be too few, or if there are
    fewer than two values to tell a spread from.
    """
    if len(values) < 2:
        return None
    n = np.arange(2, most + 1)
    enough = _t_half_width(stdev(values), n, confidence) < distance
    return int(n[enough.argmax()]) if enough.any() else None


def _t_half_width(spread: float, n: Any, confidence: float) -> Any:
    """Return half the width of the t interval of the mean of `n` values, or for each of many n."""
    from scipy.special import stdtrit

    return stdtrit(n - 1, (1 + confidence) / 2) * spread / np.sqrt(n)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of paired differences when their signs are exchangeable.

    It is the share of all assignments of signs whose mean is at least as far from 0 as the
    observed one. Up to 16 pairs it is exact. Beyond, the assignments are the observed one and
    2¹⁶ others, drawn with a fixed seed. There is one difference for each pair, at least one.

    Example:

    >>> sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0])
    0.0625
    """
    # SciPy's `permutation_test` takes 20 times as long and refuses a single pair.
    values = np.asarray(differences, np.float64)
    if len(values) <= 16:
        bits = np.arange(2 ** len(values))[:, np.newaxis] >> np.arange(len(values))
        signs = 1 - 2 * (bits & 1)
    else:
        drawn = generator(0, "sign flips").integers(2, size=(2**16, len(values)))
        signs = np.concatenate([np.ones((1, len(values)), int), 1 - 2 * drawn])
    sums = np.abs(signs @ values)
    # Sums of the same numbers in another order may differ in their last bits.
    return float((sums >= abs(values.sum()) - 1e-12 * np.abs(values).sum()).mean())


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    The counts are of images that only the first, or only the second, classifier gets right.

    Example:

    >>> mcnemar_p(4, 0)
    0.125

    Reference:
        McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", 1947. The exact form is a sign test of the discordant pairs.
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
