"""Warps of images, made by NumPy: the same bits on every backend and machine."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np

from mnist_keras._foundations.seeds import generator

# Points of the coarse grid along each axis.
_GRID = 5
# Coordinates are whole multiples of 1/4096 pixel: too fine for an eye or a model to notice, yet
# much coarser than float32's rounding. So an image that is shifted by whole pixels keeps its bits.
# As weights are 1 or at least that much below 1, no view has a value outside its image's range.
_BITS = 12
_STEPS = 1 << _BITS
# Images at a time: their intermediate arrays fit into the cache of a core.
_CHUNK = 50


@dataclass(frozen=True)
class Warp:
    """How far a view may be from its image: all but `elastic` are uniform in ± the number.

    Attributes:
        rotation: Degrees about the middle of the image, at most 180.
        scale: Share by which each axis is independently compressed or stretched, below 1: the view
            samples the image at steps of 1 - scale to 1 + scale pixels.
        shear: Pixels that a row moves sideways for each pixel above or below the middle.
        shift: Pixels along each axis, independently.
        elastic: Standard deviation, in pixels along each axis, of the displacement of each point
            of a 5×5 grid over the image. Between the points it is interpolated bicubically.

    Raises:
        ValueError: If a number is negative, not finite or too large.

    References:
        - [Simard et al., 2003](https://doi.org/10.1109/ICDAR.2003.1227801), affine and elastic
        - [Ronneberger et al., 2015](https://arxiv.org/abs/1505.04597), elastic on a coarse grid
        - [Keys, 1981](https://doi.org/10.1109/TASSP.1981.1163711), cubic interpolation
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ValueError(f"`{field.name}` must be a number >= 0. Received: {value!r}")
        if self.rotation > 180:
            raise ValueError(f"`rotation` must be at most 180. Received: {self.rotation!r}")
        if self.scale >= 1:
            raise ValueError(f"`scale` must be below 1. Received: {self.scale!r}")

    def scaled(self, factor: float) -> "Warp":
        """Return a warp with every number multiplied by `factor`, e.g. `0.5` for a weaker one."""
        return Warp(*(factor * value for value in astuple(self)))


SHIFTS = Warp(shift=2)
AFFINE = Warp(rotation=15, scale=0.15, shear=0.25, shift=2)
ELASTIC = replace(AFFINE, elastic=0.8)
# By their names in an experiment's file.
WARPS = {"none": Warp(), "shifts": SHIFTS, "affine": AFFINE, "elastic": ELASTIC}


def warp(
    images: np.ndarray, ids: np.ndarray | Sequence[int], epoch: int, seed: int, strength: Warp
) -> np.ndarray:
    """Return one view of each image by bilinear resampling, with 0 outside of the image.

    A view depends on `(seed, epoch, id)` and its image, not on the number or order of the others.
    Its values stay between the smallest and the largest value of its image and 0.

    Args:
        images: Array of shape `(n, height, width, channels)`, e.g. with values in 0…1.
        ids: One integer for each image, shape `(n,)`, e.g. its index in the training set.
        epoch: Integer >= 0. Each epoch has its own view of an image.
        seed: Integer >= 0.
        strength: How far a view may be from its image.

    Returns:
        `float32` array of the shape of `images`.

    Raises:
        ValueError: If an argument has another shape or type, or is out of range.
    """
    images, ids = np.asarray(images, np.float32), np.asarray(ids)
    if images.ndim != 4 or ids.shape != images.shape[:1] or ids.dtype.kind not in "iu":
        raise ValueError(
            "`images` must have shape (n, height, width, channels) and `ids` n integers. "
            f"Received: shapes {images.shape} and {ids.shape}, ids of type {ids.dtype}"
        )
    if strength == Warp():
        return images.copy()
    states = _states(ids, epoch, seed)
    views = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        part = slice(start, start + _CHUNK)
        grid = _displacements(states[part], strength, *images.shape[1:3])
        _resample(images[part], _interpolated(grid, *images.shape[1:3]), views[part])
    return views


# The random numbers. A NumPy generator for each (epoch, image) would take 10 µs, nearly as long as
# the rest of the view. Instead, each (seed, epoch, image) is hashed to the state of a SplitMix64
# generator (Steele, Lea & Flood, 2014), which steps by adding a constant. So the k-th numbers of
# all images take a few operations on arrays of integers, the same on every machine.


def _mix(x: np.ndarray) -> np.ndarray:
    """Hash 64-bit integers so that every output bit depends on every input bit."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    hashed: np.ndarray = x ^ (x >> 31)
    return hashed


def _states(ids: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """Return the state of each image's generator in an epoch."""
    key = generator(seed, "warps").integers(2**64, size=1, dtype=np.uint64)
    return _mix(ids.astype(np.uint64) ^ _mix(key ^ _mix(np.array([epoch], np.uint64))))


def _numbers(states: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return `count` 64-bit integers of each generator from the `first` on, shape `(n, count)`."""
    steps = np.arange(first + 1, first + 1 + count, dtype=np.uint64) * 0x9E3779B97F4A7C15
    return _mix(states[:, None] + steps)


def _uniform(states: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return uniform numbers in [-1, 1): whole multiples of 2**-52."""
    return (_numbers(states, first, count) >> 11) * 2.0**-52 - 1


def _normal(states: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return nearly normal numbers of mean 0 and standard deviation 1, all within ±3.47.

    They are sums of four 16-bit integers. Unlike Box and Muller's logarithm and cosine, these are
    exact on every machine and have no far outliers, which would tear a stroke apart.
    """
    parts = _numbers(states, first, count).view(np.uint16).reshape(-1, count, 4)
    sums: np.ndarray = parts.sum(axis=-1)
    return (sums - 2.0 * (2**16 - 1)) / math.sqrt((2**32 - 1) / 3)


# The coordinates take only +, -, *, / and sqrt of single elements, in the order written here:
# IEEE 754 defines every bit of the results. The C library's sines and matrix products differ
# between machines in the last bits.


def _sine_cosine(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sine and cosine of angles in ±π by their Taylor series."""
    square = angle * angle
    sine, cosine = np.ones_like(angle), np.ones_like(angle)
    for n in range(30, 0, -2):
        sine = 1 - sine * square / (n * (n + 1))
        cosine = 1 - cosine * square / (n * (n - 1))
    return sine * angle, cosine


def _displacements(states: np.ndarray, strength: Warp, height: int, width: int) -> np.ndarray:
    """Return how far from each point of the grid a view looks, in pixels, `(n, 2, 5, 5)`."""
    uniform = _uniform(states, 0, 6).T[:, :, None, None]
    sine, cosine = _sine_cosine(math.radians(strength.rotation) * uniform[0])
    scales = 1 + strength.scale * uniform[1:3]
    shear = strength.shear * uniform[3]
    shifts = strength.shift * uniform[4:6]
    y, x = (
        np.arange(_GRID) * ((size - 1) / (_GRID - 1)) - (size - 1) / 2 for size in (height, width)
    )
    y = y[:, None]
    scaled_y = scales[0] * y
    sheared_x = scales[1] * x + shear * scaled_y
    rows = cosine * scaled_y - sine * sheared_x - y + shifts[0]
    columns = sine * scaled_y + cosine * sheared_x - x + shifts[1]
    grid = np.stack([rows, columns], axis=1)
    if strength.elastic:
        noise = _normal(states, 6, 2 * _GRID**2)
        grid += strength.elastic * noise.reshape(grid.shape)
    return grid


def _cubic_weights(size: int) -> np.ndarray:
    """Return the weight of each point of the grid for each pixel of an axis, shape `(5, size)`.

    Beyond its ends the grid continues linearly, so that affine displacements stay affine.
    """
    pixels = np.arange(size) * ((_GRID - 1) / max(size - 1, 1))
    d = np.abs(pixels - np.arange(-1, _GRID + 1)[:, None])
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((2.5 - 0.5 * d) * d - 4) * d + 2
    weights = np.where(d < 1, near, np.where(d < 2, far, 0))
    for beyond, end, inner in ((0, 1, 2), (-1, -2, -3)):
        weights[end] += 2 * weights[beyond]
        weights[inner] -= weights[beyond]
    return weights[1:-1].astype(np.float32)


def _interpolated(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the displacement of each pixel in steps: `float32`, shape `(n, 2, h, w)`."""
    field = (grid * _STEPS).astype(np.float32)
    for axis, size in ((3, width), (2, height)):
        weights = _cubic_weights(size).reshape(_GRID, *(size, 1)[: 4 - axis])
        points = np.split(field, _GRID, axis)
        field = points[0] * weights[0]
        for point, weight in zip(points[1:], weights[1:], strict=True):
            field += point * weight
    return field


def _resample(images: np.ndarray, displacements: np.ndarray, views: np.ndarray) -> None:
    """Fill `views` with the images, sampled at a displacement in steps from each pixel."""
    n, height, width, channels = images.shape
    # A frame of zeros: one pixel before and, for the right and lower neighbor, two after.
    framed = np.zeros((n, height + 3, width + 3), np.float32)
    rows, down = _place(displacements[:, 0], np.arange(1, height + 1)[:, None], height)
    columns, right = _place(displacements[:, 1], np.arange(1, width + 1), width)
    rows += np.arange(0, n * (height + 3), height + 3, dtype=np.int32)[:, None, None]
    index = (rows * (width + 3) + columns).astype(np.intp)
    neighbors = [framed.reshape(-1)[offset:] for offset in (0, 1, width + 3, width + 4)]
    for channel in range(channels):
        # Gray images in three equal channels are common here; this saves two thirds of the time.
        if channel and np.array_equal(images[..., channel], images[..., channel - 1]):
            views[..., channel] = views[..., channel - 1]
            continue
        framed[:, 1:-2, 1:-2] = images[..., channel]
        # Every index is within the frame; "clip" only avoids checking them.
        a, b, c, d = (pixels.take(index, mode="clip") for pixels in neighbors)
        views[..., channel] = _between(_between(a, b, right), _between(c, d, right), down)


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return `first + share * (second - first)`, computed in place: new memory costs more."""
    second -= first
    second *= share
    first += second
    return first


def _place(displacement: np.ndarray, own: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel of the frame before each coordinate, and the distance between them."""
    steps = np.rint(displacement)
    steps += (own * _STEPS).astype(np.float32)
    place = np.clip(steps, 0, (size + 1) * _STEPS, out=steps).astype(np.int32)
    return place >> _BITS, (place & (_STEPS - 1)) * np.float32(1 / _STEPS)
