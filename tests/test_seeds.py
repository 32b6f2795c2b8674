"""Generators keyed by (seed, purpose)."""

import numpy as np
import pytest

from mnist_keras._foundations.seeds import generator

pytestmark = pytest.mark.any_backend


def test_same_key_same_numbers():
    """Equal seed and purpose give equal numbers; another seed or purpose gives others."""
    numbers = generator(0, "split").random(8)

    np.testing.assert_array_equal(numbers, generator(0, "split").random(8))
    np.testing.assert_array_equal(numbers, generator(np.int64(0), "split").random(8))
    assert not np.any(numbers == generator(1, "split").random(8))
    assert not np.any(numbers == generator(0, "draw").random(8))


def test_numbers_never_change():
    """The stream is a model_input: results of earlier versions have to stay reproducible."""
    assert generator(0, "split").integers(0, 1000, 4).tolist() == [182, 49, 673, 789]


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True])
def test_bad_seed(seed):
    """Anything but an integer >= 0 is refused."""
    with pytest.raises(ValueError, match=r"`seed` must be an integer >= 0"):
        generator(seed, "split")
