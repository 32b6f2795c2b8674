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
# These change an image that has the right size.
_BLURS = ("gaussian", "mitchellcubic")
# TensorFlow's bicubic filter takes its weights from a table with this many steps per pixel.
_STEPS = 1024


def fit(
    image: np.ndarray, size: tuple[int, int], interpolation: Interpolation, aspect: Aspect
) -> np.ndarray:
    """Bring an image of shape `(height, width, channels)` to a size.

    With `"crop"`, the largest part in the middle that has the aspect ratio of `size` is resized;
    with `"pad"`, the whole image is, between black margins.
    """
    # In float32, as TensorFlow does: in a rare case, the rounding decides about a row.
    height, width, to_height, to_width = map(np.float32, (*image.shape[:2], *size))
    if aspect == "crop":
        rows = max(1, int(min(height, width * to_height / to_width)))
        columns = max(1, int(min(width, height * to_width / to_height)))
        top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
        image = image[top : top + rows, left : left + columns]
    elif aspect == "pad":
        ratio = max(width / to_width, height / to_height)
        rows, columns = max(1, int(height / ratio)), max(1, int(width / ratio))
        top, left = int((to_height - height / ratio) / 2), int((to_width - width / ratio) / 2)
        inner = resize(image, (rows, columns), interpolation)
        image = np.zeros((*size, image.shape[2]), inner.dtype)
        image[top : top + rows, left : left + columns] = inner
        return image
    return resize(image, size, interpolation)


def resize(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    """Resize as Keras does: pixel centers aligned, no antialiasing, `float32`; or do nothing."""
    if image.shape[:2] == tuple(size) and interpolation not in _BLURS:
        return image
    image = image.astype(np.float32)
    for axis in (1, 0):
        length = size[axis]
        ratio = np.float32(image.shape[axis] / length)
        at = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * ratio
        if interpolation == "nearest":
            image = image.take(np.minimum(at.astype(int), image.shape[axis] - 1), axis)
            continue
        if interpolation != "bilinear":
            image = _filtered(image, axis, *_taps(image.shape[axis], length, interpolation))
            continue
        at -= np.float32(0.5)
        lower = np.floor(at)
        weight = (at - lower).reshape([-1 if a == axis else 1 for a in range(3)])
        low = image.take(np.maximum(lower, 0).astype(int), axis)
        high = image.take(np.minimum(np.ceil(at), image.shape[axis] - 1).astype(int), axis)
        image = low + (high - low) * weight
    return image


def _filtered(image: np.ndarray, axis: int, taps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted sums of the pixels at `taps` along an axis."""
    shape = [-1 if a == axis else 1 for a in range(3)]
    columns = zip(taps.T, weights.T, strict=True)
    return np.asarray(sum(image.take(tap, axis) * weight.reshape(shape) for tap, weight in columns))


def _taps(pixels: int, length: int, interpolation: Interpolation) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `pixels` make each of `length` new ones, and their weights.

    Both have the shape `(length, taps)`. The weights of a new pixel sum to 1.
    """
    # In float32, as TensorFlow does: a pixel at the rim of a filter is in it or not.
    new = np.arange(length, dtype=np.float32)[:, np.newaxis]
    if interpolation == "area":  # each new pixel is the mean of what it covers
        ratio = np.float32(pixels) / np.float32(length)
        start, stop = new * ratio, (new + 1) * ratio
        taps = np.floor(start) + np.arange(math.ceil(ratio) + 1)
        weights = (np.minimum(taps + 1, stop) - np.maximum(taps, start)).clip(0)
    else:
        reach, weight = _FILTERS[interpolation]
        at = (new + 0.5) * (np.float32(1) / (np.float32(length) / np.float32(pixels)))
        if interpolation == "bicubic":
            at = np.rint((at - 0.5) * _STEPS) / _STEPS + 0.5
        around = np.arange(1 - math.ceil(reach), 1 + math.ceil(reach), dtype=np.float32)
        taps = np.floor(at - 0.5) + around
        distance = np.abs(taps + 0.5 - at)
        weights = np.where(distance < reach, weight(distance), 0)
    weights = np.where((taps < 0) | (taps >= pixels), 0, weights)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return taps.clip(0, pixels - 1).astype(int), weights
