"""Images brought to one size, as Keras's loader brings them with TensorFlow."""

import math
from collections.abc import Callable

import numpy as np

from mnist_keras.datasets.choices import Aspect, Interpolation


def _cubic(b: float, c: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the cubic filter of Mitchell and Netravali (1988)."""
    near = (12 - 9 * b - 6 * c, -18 + 12 * b + 6 * c, 0, 6 - 2 * b)
    far = (-b - 6 * c, 6 * b + 30 * c, -12 * b - 48 * c, 8 * b + 24 * c)
    return lambda x: np.where(x < 1, np.polyval(near, x), np.polyval(far, x)) / 6


# How far a filter reaches in pixels, and the weight of a pixel by its distance.
_FILTERS: dict[Interpolation, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bicubic": (2, _cubic(0, 1 / 2)),
    "mitchellcubic": (2, _cubic(1 / 3, 1 / 3)),
    "lanczos3": (3, lambda x: np.sinc(x) * np.sinc(x / 3)),
    "lanczos5": (5, lambda x: np.sinc(x) * np.sinc(x / 5)),
    "gaussian": (1.5, lambda x: np.exp(-2 * x**2)),
}


def fit(
    image: np.ndarray, size: tuple[int, int], interpolation: Interpolation, aspect: Aspect
) -> np.ndarray:
    """Bring an image of shape `(height, width, channels)` to a size.

    With `"crop"`, the largest part in the middle that has the aspect ratio of `size` is resized;
    with `"pad"`, the whole image is, between black margins.
    """
    # In float32, as TensorFlow does: in rare cases its rounding decides about a row.
    height, width, to_height, to_width = map(np.float32, (*image.shape[:2], *size))
    if aspect == "crop":
        rows = max(1, int(min(height, width * to_height / to_width)))
        columns = max(1, int(min(width, height * to_width / to_height)))
        top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
        image = image[top : top + rows, left : left + columns]
    if aspect != "pad":
        return resize(image, size, interpolation)
    ratio = max(width / to_width, height / to_height)
    rows, columns = max(1, int(height / ratio)), max(1, int(width / ratio))
    top, left = int((to_height - height / ratio) / 2), int((to_width - width / ratio) / 2)
    inner = resize(image, (rows, columns), interpolation)
    padded = np.zeros((*size, image.shape[2]), inner.dtype)
    padded[top : top + rows, left : left + columns] = inner
    return padded


def resize(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    """Resize as Keras does: pixel centers aligned, no antialiasing, `float32`; or do nothing."""
    blurs = interpolation in ("gaussian", "mitchellcubic")
    if image.shape[:2] == tuple(size) and not blurs:
        return image
    image = image.astype(np.float32)
    for axis in (1, 0):
        pixels, length = image.shape[axis], size[axis]
        shape = [-1 if a == axis else 1 for a in range(3)]
        at = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(pixels / length)
        if interpolation == "nearest":
            image = image.take(np.minimum(at.astype(int), pixels - 1), axis)
        elif interpolation == "bilinear":
            at -= np.float32(0.5)
            low = image.take(np.maximum(np.floor(at), 0).astype(int), axis)
            high = image.take(np.minimum(np.ceil(at), pixels - 1).astype(int), axis)
            image = low + (high - low) * (at - np.floor(at)).reshape(shape)
        else:
            taps, weights = _taps(pixels, length, interpolation)
            terms = zip(taps.T, weights.T, strict=True)
            image = np.asarray(sum(image.take(tap, axis) * w.reshape(shape) for tap, w in terms))
    return image


def _taps(pixels: int, length: int, interpolation: Interpolation) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `pixels` make each of `length` new ones, and their weights, which sum to 1.

    Both have the shape `(length, taps)`.
    """
    # In float32, as TensorFlow does: a pixel at the rim of a filter is in it or not.
    new = np.arange(length, dtype=np.float32)[:, np.newaxis]
    if interpolation == "area":  # each new pixel is the mean of what it covers
        ratio = np.float32(pixels / length)
        start, stop = new * ratio, (new + 1) * ratio
        taps = np.floor(start) + np.arange(math.ceil(ratio) + 1)
        weights = (np.minimum(taps + 1, stop) - np.maximum(taps, start)).clip(0)
    else:
        reach, weight = _FILTERS[interpolation]
        at = (new + 0.5) * (np.float32(1) / np.float32(length / pixels))
        if interpolation == "bicubic":  # of which TensorFlow has a table for 1,024 places
            at = np.rint((at - 0.5) * 1024) / 1024 + 0.5
        taps = np.floor(at - 0.5) + np.arange(1 - math.ceil(reach), 1 + math.ceil(reach))
        distance = np.abs(taps + 0.5 - at).astype(np.float32)
        weights = np.where(distance < reach, weight(distance), 0)
    weights = np.where((taps < 0) | (taps >= pixels), 0, weights)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return taps.clip(0, pixels - 1).astype(int), weights
