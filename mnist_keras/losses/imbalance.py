"""What to begin with where classes are rare: their weights, and the last layer's bias."""

import math

import keras
import numpy as np
from numpy.typing import ArrayLike

from mnist_keras._foundations.arguments import number, numbers, require


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
    n = numbers("counts", counts, "a number > 0 per class")
    is_right = isinstance(n, list) and min(n) > 0
    require(is_right, "`counts` must hold a number > 0 per class.", f"counts={counts!r}")
    beta = number("beta", beta, "a number in [0, 1)", np.nextafter(1, 0))
    with np.errstate(divide="ignore"):  # beta = 0: log 0 = -inf, and expm1(-inf) = -1
        weights = -1 / np.expm1(np.array(n) * np.log(np.float64(beta)))
    return list((weights / weights.mean()).tolist())


def prior_logit(p: float) -> keras.initializers.Initializer:
    """Returns an initializer of the last layer's bias that makes its sigmoid begin near `p`.

    The bias is `-log((1 - p) / p)`. Without it the first steps go to making every input, most of
    them negative, less likely than 1/2.

    Args:
        p: Float in (0, 1), about the share of positives; the paper takes `0.01`.

    Returns:
        A `keras.initializers.Constant`, which is saved with the layer.

    Example:

    >>> layer = keras.layers.Dense(1, bias_initializer=prior_logit(0.01))

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 4.1
    """
    p = number("p", p, "a number in (0, 1)", np.nextafter(1, 0), np.nextafter(0, 1))
    return keras.initializers.Constant(math.log(p) - math.log1p(-p))
