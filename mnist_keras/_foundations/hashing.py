"""Fingerprints: hashes of arrays, of settings, and of anything that is a sequence of bytes."""

import hashlib
import json
from collections.abc import Iterable
from itertools import chain

import numpy as np


def fingerprint(*arrays: np.ndarray) -> str:
    """Return a hash of arrays, of their shapes and of their types."""
    pairs = ((f"{a.dtype} {a.shape}".encode(), np.ascontiguousarray(a).data) for a in arrays)
    return fingerprint_of_bytes(chain.from_iterable(pairs))


def fingerprint_of_json(document: object) -> str:
    """Return a hash of a JSON document, whatever the order of its keys."""
    return fingerprint_of_bytes([json.dumps(document, sort_keys=True).encode()])


def fingerprint_of_bytes(parts: Iterable[bytes | memoryview], digits: int = 16) -> str:
    """Return the first hexadecimal digits of the SHA-256 of the parts in their order."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return state.hexdigest()[:digits]
