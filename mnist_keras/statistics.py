"""Intervals: what a number from few images or few seeds can tell."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Args:
        successes: How many of the `n` succeeded; a mean of counts need not be whole.
        n: Number of trials, at least 1.
        confidence: Between 0 and 1.

    Returns:
        Lower and upper bound, between 0 and 1.

    Example:

    >>> low, high = wilson_interval(92, 100)
    >>> f"{low:.3f} {high:.3f}"
    '0.850 0.959'

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, n >= 1. Received: {successes} of {n}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation; of one value there is no deviation."""
    return fmean(values), stdev(values) if len(values) > 1 else None


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return Student's t interval of the mean, or `None` for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, (1 + confidence) / 2) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half
