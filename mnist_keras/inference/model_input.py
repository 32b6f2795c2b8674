"""What a model takes: the form of its training images, and how any other image gets that form."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from mnist_keras.datasets.choices import ColorMode
from mnist_keras.datasets.image_folder.decoding import CHANNELS
from mnist_keras.datasets.image_folder.reading import ImageForm
from mnist_keras.datasets.images import Images

Background = Literal["dark", "bright", "mixed"]
Invert = Literal["auto", "yes", "no"]
Fit = Literal["auto", "ink", "resize"]

# Training images to look at, and the share of them that makes a background common to all.
_SAMPLE, _ALIKE = 1000, 0.9
# As in MNIST: the digit fills 20 of 28 pixels, with its center of mass in the middle.
_INK_SHARE = 20 / 28
# Strokes are thickened to this many of 28 pixels, the usual width in MNIST; a pen's are thinner.
_LEAST_STROKE = 2.6
# Parts of the ink smaller than this share of its largest part are specks.
_SPECK = 0.02
# This many pixels per side are enough to find a digit of 20 pixels.
_ENOUGH_PIXELS = 400
_COLOR_MODES: dict[int, ColorMode] = {channels: mode for mode, channels in CHANNELS.items()}


@dataclass(frozen=True)
class ModelInput:
    """What a model takes."""

    form: ImageForm
    background: Background  # "mixed" unless nearly all training images have such a border
    resized: bool  # whether training images had to be

    @classmethod
    def of(cls, images: Images) -> "ModelInput":
        """Return the input of a model that was trained on images in 0…255, `float32` if resized."""
        height, width, channels = images.shape[1:]
        chosen = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int))
        bright = np.mean([_is_bright(image) for image in images[chosen]])
        background: Background = "mixed"
        if max(bright, 1 - bright) >= _ALIKE:
            background = "bright" if bright > 0.5 else "dark"
        form = ImageForm(_COLOR_MODES[channels], (height, width))
        return cls(form, background, resized=images.dtype != np.uint8)

    @property
    def background_level(self) -> int:
        """Level of the background, in 0…255; the middle if training images have different ones."""
        return {"dark": 0, "bright": 255, "mixed": 128}[self.background]

    def bring(self, image: np.ndarray, invert: Invert = "auto", fit: Fit = "auto") -> np.ndarray:
        """Return an image as the model takes it: `uint8`, or `float32` if it was resized.

        Args:
            image: Shape `(height, width, channels)` with the channels of `form`, in 0…255.
            invert: Whether levels are inverted; `"auto"` does so if the background is bright and
                that of the training images is dark, or the reverse.
            fit: What is done to an image of another size. `"resize"` resizes it as training does.
                `"ink"` separates the digit from its background and puts it where MNIST has it: 20
                of 28 pixels long, with its center of mass in the middle. `"auto"` is `"ink"` if
                the training images have one background and were not resized themselves.
        """
        bright = _is_bright(image)
        other = self.background == ("dark" if bright else "bright")
        inverted = invert == "yes" or (invert == "auto" and other)
        if inverted:
            image = image.copy()
            image[..., :3] = 255 - image[..., :3]
        if image.shape[:2] == self.form.image_size:
            return image
        if fit == "auto":
            fit = "resize" if self.resized or self.background == "mixed" else "ink"
        if fit == "resize":
            return self.form.resized(image)
        gray = image[..., :3].mean(-1, dtype=np.float32)
        is_dark_on_bright = bright != inverted
        gray = 255 - gray if is_dark_on_bright else gray
        if (factor := max(gray.shape) // _ENOUGH_PIXELS) > 1:
            gray = np.asarray(Image.fromarray(gray).reduce(factor))
        placed = _placed(written(gray), self.form.image_size)
        levels = np.rint(255 * (1 - placed if is_dark_on_bright else placed)).astype(np.uint8)
        image = np.repeat(levels[..., np.newaxis], self.form.shape[-1], axis=-1)
        if self.form.color_mode == "rgba":
            image[..., 3] = 255
        return image


def written(gray: np.ndarray) -> np.ndarray:
    """Return how much of each pixel is ink, in 0…1, for bright ink on a darker, plain background.

    The background may be brighter to one side: a plane through the border is subtracted. Otsu's
    method finds the level between background and ink. Small specks do not count as ink. Levels
    are `float32`, in 0…255.

    Reference:
        Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    from scipy import ndimage

    flat = gray - _plane_through_border(gray)
    if np.ptp(flat) < 1:
        return np.zeros_like(flat)
    threshold = _otsu(flat)
    # Edges are soft: no ink halfway from background to threshold, full ink at the ink's median.
    low = threshold / 2 if threshold > 0 else threshold
    high = np.median(flat[flat >= threshold])
    parts, _ = ndimage.label(flat >= threshold, np.ones((3, 3)))
    sizes = np.bincount(parts[parts > 0])  # 0 where there is no part
    large = sizes[parts] >= _SPECK * sizes.max()
    near = ndimage.binary_dilation(large, np.ones((3, 3)), iterations=2)
    return np.where(near, ((flat - low) / max(high - low, 1)).clip(0, 1), 0).astype(np.float32)


def _placed(ink: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return ink cropped, scaled and centered as in MNIST."""
    placed = np.zeros(size, np.float32)
    if not (ink > 0.5).any():
        return placed
    crop = _cropped(ink)
    crop = _cropped(_thickened(crop, _LEAST_STROKE * min(size) / 28 / _scale(crop, size)))
    height, width = (max(1, round(_scale(crop, size) * side)) for side in crop.shape)
    # Pillow's filter looks at every pixel when it shrinks an image, so thin lines stay.
    small = Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR)
    digit = np.asarray(small) / max(1e-6, np.asarray(small).max())
    y = (digit.sum(1) @ np.arange(height)) / digit.sum()
    x = (digit.sum(0) @ np.arange(width)) / digit.sum()
    # MNIST's mean center of mass is pixel 14 of 0…27.
    top = min(max(0, round(size[0] / 2 - y)), size[0] - height)
    left = min(max(0, round(size[1] / 2 - x)), size[1] - width)
    placed[top : top + height, left : left + width] = digit
    return placed


def _cropped(ink: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(ink > 0.5)
    return ink[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def _scale(crop: np.ndarray, size: tuple[int, int]) -> float:
    return float(_INK_SHARE * min(size) / max(crop.shape))


def _thickened(ink: np.ndarray, width: float) -> np.ndarray:
    """Return ink whose strokes are at least about `width` pixels wide."""
    from scipy.ndimage import distance_transform_edt

    inside = distance_transform_edt(np.pad(ink > 0.5, 1))
    # In a stroke w pixels wide, the mean distance from the edge is w/4 + 1/2.
    missing = width - 4 * (inside[inside > 0].mean() - 0.5)
    if missing <= 0:
        return ink
    ink = np.pad(ink, math.ceil(missing / 2))
    outside = distance_transform_edt(ink <= 0.5)
    return np.asarray(np.maximum(ink, (missing / 2 + 1 - outside).clip(0, 1)), np.float32)


def _is_bright(image: np.ndarray) -> bool:
    """Return whether most of the border is nearer to the brightest level than to the darkest."""
    levels = image[..., :3].sum(-1, dtype=np.float32)
    low, high = levels.min(), levels.max()
    middle = (low + high) / 2 if high > low else 255 * min(3, image.shape[-1]) / 2
    border = (levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1])
    return bool((np.concatenate(border) > middle).mean() > 0.5)


def _plane_through_border(gray: np.ndarray) -> np.ndarray:
    """Return the plane that fits the levels of the outermost pixels best."""
    y, x = np.mgrid[: gray.shape[0], : gray.shape[1]].astype(np.float32)
    edge = np.ones(gray.shape, bool)
    edge[1:-1, 1:-1] = False
    sides = np.stack([np.ones_like(y), y, x], axis=-1)
    coefficients, *_ = np.linalg.lstsq(sides[edge], gray[edge], rcond=None)
    return np.asarray(sides @ coefficients, np.float32)


def _otsu(levels: np.ndarray) -> float:
    """Return the level that splits values into the two classes of least variance."""
    counts, edges = np.histogram(levels, 256)
    centers = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = below[-1] + counts[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1:-1][np.nanargmax(between)])
