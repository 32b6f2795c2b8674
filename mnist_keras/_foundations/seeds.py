"""One NumPy generator for each (seed, purpose): all random numbers but dropout."""

import hashlib

import numpy as np


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the generator of `seed` for one purpose.

    Two purposes never share a stream, so drawing more numbers for one of them
    (more images, another layer) leaves every other number of the run as it was.

    Args:
        seed: Integer >= 0.
        purpose: What the numbers are for, e.g. `"split"` or `"fc1/kernel"`.

    Raises:
        ValueError: If `seed` is not an integer >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be an integer >= 0. Received: seed={seed!r}")
    fingerprint = hashlib.sha256(purpose.encode()).digest()
    return np.random.default_rng([int(seed), int.from_bytes(fingerprint[:8], "big")])
