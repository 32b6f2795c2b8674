"""Intervals and tests against published examples and SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from mnist_keras._foundations.statistics import (
    mcnemar_p,
    mean_and_spread,
    sign_flip_p,
    t_interval,
    values_needed,
    wilson_interval,
)

pytestmark = pytest.mark.any_backend


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_newcombes_table(successes, n, low, high):
    """The intervals of Newcombe, Statistics in Medicine 17, 1998, come out to four digits."""
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (92, 100), (96, 100), (100, 100), (1, 9500)])
def test_wilson_is_scipys(successes, n, confidence):
    """SciPy's interval is the same at every confidence."""
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_of_nonsense(successes, n):
    """More successes than trials, or no trials, are refused."""
    with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
        wilson_interval(successes, n)


def test_t_interval_is_scipys():
    """The t interval of the mean is SciPy's; one value has none."""
    values = [0.91, 0.88, 0.93, 0.90, 0.89]
    expected = stats.t.interval(0.95, 4, sum(values) / 5, stats.sem(values))
    assert t_interval(values) == pytest.approx(tuple(expected))
    assert t_interval([0.9]) is None
    assert mean_and_spread([0.9]) == (0.9, None)
    assert mean_and_spread([1.0, 3.0]) == pytest.approx((2.0, 2**0.5))


@pytest.mark.parametrize("n", [2, 5, 6, 10])
def test_sign_flips_are_scipys(n):
    """SciPy's exact permutation test of paired samples gives the same p-value."""
    values = np.random.default_rng(n).normal(0.5, 1, n)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sign_flips_of_equal_signs():
    """Only two assignments are as far from 0 as equal signs, with or without rounding."""
    assert sign_flip_p([1, 2, 3, 4, 5]) == 2 / 2**5
    assert sign_flip_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == 2 / 2**6
    assert sign_flip_p([0.0, 0.0, 0.0]) == sign_flip_p([0.3]) == 1.0
    many = np.random.default_rng(0).normal(0.4, 1, 40)
    assert sign_flip_p(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, rel=0.3)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (4, 0), (6, 0), (3, 3), (10, 3), (59, 6), (121, 59)])
def test_mcnemar_is_a_fair_coin(b, c):
    """The exact p-value is twice the tail of a fair coin among the discordant images."""
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar_p(b, c) == pytest.approx(min(1, 2 * tail), rel=1e-12)
    assert mcnemar_p(c, b) == mcnemar_p(b, c)


@pytest.mark.parametrize("distance", [3.0, 1.0, 0.5])
def test_values_needed_are_just_enough(distance):
    """So many values make SciPy's interval narrower than the distance; one fewer would not."""
    values = [1.0, 2.0, 0.5, 1.5]
    needed = values_needed(values, distance)
    half = [
        stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5 for n in (needed, needed - 1)
    ]
    assert half[0] < distance <= (half[1] if needed > 2 else math.inf)
    assert values_needed(values, 0.1) is None
    assert values_needed(values, 0.1, most=1000) == 163
    assert values_needed([1.0], distance) is None
