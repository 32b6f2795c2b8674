"""Resize an image exactly as Keras does."""

from typing import Literal

import numpy as np

Interpolation = Literal["bilinear", "nearest"]


def resize(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    """Resize one image as Keras does: centres of pixels aligned, no antialiasing, `float32`.

    An image that has the size already is returned as it is.
    """
    if image.shape[:2] == tuple(size):
        return image
    image = image.astype(np.float32)
    for axis in (1, 0):
        length = size[axis]
        ratio = np.float32(image.shape[axis] / length)
        at = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * ratio
        if interpolation == "nearest":
            image = image.take(np.minimum(at.astype(int), image.shape[axis] - 1), axis)
            continue
        at -= np.float32(0.5)
        lower = np.floor(at)
        weight = (at - lower).reshape([-1 if a == axis else 1 for a in range(3)])
        low = image.take(np.maximum(lower, 0).astype(int), axis)
        high = image.take(np.minimum(np.ceil(at), image.shape[axis] - 1).astype(int), axis)
        image = low + (high - low) * weight
    return image
