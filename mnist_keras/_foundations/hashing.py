"""One way to hash arrays."""

import hashlib

import numpy as np


def fingerprint(*arrays: np.ndarray) -> str:
    """Return a hash of arrays, of their shapes and of their types."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype} {array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()[:16]
