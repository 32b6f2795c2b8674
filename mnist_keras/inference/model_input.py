"""What a model takes: the form of its training images, and how any other image gets that form."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from mnist_keras.datasets.choices import ColorMode
from mnist_keras.datasets.image_folder.decoding import CHANNELS, Remark, say_nothing
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
# An image of no more contrast is empty, and one of more than the second number is not.
_LEAST_LEVELS, _CLEAR_LEVELS = 4, 32
# Ink differs from its paper by more than this many times the grain of the paper.
_LEAST_GRAINS = 4
# Lines, and the sides of a box, have ink in this share of their length.
_STRAIGHT = 0.9
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

    def bring(
        self,
        image: np.ndarray,
        invert: Invert = "auto",
        fit: Fit = "auto",
        remark: Remark = say_nothing,
    ) -> np.ndarray:
        """Return an image as the model takes it: `uint8`, or `float32` if it was resized.

        Args:
            image: Shape `(height, width, channels)` with the channels of `form`, in 0…255.
            invert: Whether levels are inverted; `"auto"` does so if the background is bright and
                that of the training images is dark, or the reverse.
            fit: `"resize"` resizes an image of another size as training does. `"ink"` separates the
                digit from its background and puts it where MNIST has it: 20 of 28 pixels long,
                with its center of mass in the middle. `"auto"` is `"ink"` for images of another
                size, if the training images have one background and were not resized themselves.
            remark: Called with a kind of finding and a reason if the ink looks like more than one
                digit.
        """
        if fit == "auto" and image.shape[:2] != self.form.image_size and not self.resized:
            fit = "resize" if self.background == "mixed" else "ink"
        if fit == "ink":
            return self._written_anew(image, invert, remark)
        if invert == "auto":
            inverted = self.background == ("dark" if _is_bright(image) else "bright")
        else:
            inverted = invert == "yes"
        if inverted:
            image = image.copy()
            image[..., :3] = 255 - image[..., :3]
        return self.form.resized(image)

    def _written_anew(self, image: np.ndarray, invert: Invert, remark: Remark) -> np.ndarray:
        """Return the ink of an image on a plain background, where MNIST has it."""
        colors = [np.asarray(channel, np.float32) for channel in np.moveaxis(image[..., :3], -1, 0)]
        if (factor := max(image.shape[:2]) // _ENOUGH_PIXELS) > 1:
            colors = [np.asarray(Image.fromarray(color).reduce(factor)) for color in colors]
        contrast, is_dark = _contrast(np.stack(colors, axis=-1))
        ink = written(contrast)
        if reason := _beside_one_digit(ink > 0.5):
            remark("crowded", reason)
        if invert == "auto" and self.background != "mixed":
            is_dark = self.background == "bright"
        elif invert == "yes":
            is_dark = not is_dark
        placed = _placed(ink, self.form.image_size)
        levels = np.rint(255 * (1 - placed if is_dark else placed)).astype(np.uint8)
        image = np.repeat(levels[..., np.newaxis], self.form.shape[-1], axis=-1)
        if self.form.color_mode == "rgba":
            image[..., 3] = 255
        return image

    def shows_something(self, image: np.ndarray) -> bool:
        """Return whether an image that was brought is not an empty page, plain or grainy."""
        contrast = np.ptp(image[..., :3])
        if contrast > _CLEAR_LEVELS or self.background == "mixed":
            return bool(contrast > _LEAST_LEVELS)
        return bool(written(_contrast(image[..., :3].astype(np.float32))[0]).any())


def _contrast(colors: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return how far each pixel is from the background, in the direction of the ink's color.

    Also return whether the ink is darker. `colors` is a `float32` array of shape
    `(height, width, channels)`; the background may be brighter to one side.
    """
    apart = np.stack([c - _plane_through_border(c) for c in np.moveaxis(colors, -1, 0)], axis=-1)
    distance = np.sqrt((apart**2).mean(-1))
    if np.ptp(distance) < 1:
        return np.zeros_like(distance), False
    ink = apart[distance >= _otsu(distance)].mean(0)
    length = max(float(np.linalg.norm(ink)), 1e-6) * math.sqrt(len(ink))
    return np.asarray(apart @ (ink / length), np.float32), bool(ink.sum() < 0)


def _beside_one_digit(ink: np.ndarray) -> str:
    """Return why a mask of ink does not look like one digit, or nothing."""
    from scipy import ndimage

    parts, _ = ndimage.label(ink, np.ones((3, 3)))
    boxes = ndimage.find_objects(parts)
    if not boxes:
        return ""
    bounds = np.array([[(side.start, side.stop) for side in box] for box in boxes])
    sizes = bounds[..., 1] - bounds[..., 0]
    largest = sizes.prod(1).argmax()
    part = parts[boxes[largest]] == largest + 1
    edges = [turned[: -(-len(turned) // 12)].any(0).mean() for turned in _turned(part)]
    if min(edges) > _STRAIGHT and min(part.shape) > 0.4 * max(part.shape):
        return "a box is taken for ink"
    if _has_line(ink) or _has_line(ink.T):
        return "a line across it is taken for ink"
    height, width = bounds[..., 1].max(0) - bounds[..., 0].min(0)
    tall = bounds[sizes[:, 0] > 0.5 * sizes[:, 0].max()]
    for sides in (tall[:, 0], tall[:, 1]):  # below each other, beside each other
        starts, stops = sides[sides[:, 0].argsort()].T
        if (starts[1:] >= np.maximum.accumulate(stops)[:-1]).any() or width > 1.6 * height:
            return "it looks like several digits, and is taken for one"
    return ""


def _turned(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return a mask with each of its sides on top."""
    return mask, mask[::-1], mask.T, mask.T[::-1]


def _has_line(ink: np.ndarray) -> bool:
    """Return whether nearly horizontal lines run through a mask, beside other ink."""
    y, x = np.nonzero(ink)
    for slope in np.linspace(-0.1, 0.1, 21):
        rows = np.rint(y - slope * x).astype(int)
        rows -= rows.min()
        counts = np.bincount(rows)
        if counts.max() > _STRAIGHT * ink.shape[1]:
            others = np.abs(rows - counts.argmax()) > 0.05 * len(ink)
            # A digit that fills its image may have a straight stroke, too.
            fills = np.isin(y[others], (0, len(ink) - 1)).any()
            lines = np.bincount(rows[others], minlength=1).max() > _STRAIGHT * ink.shape[1]
            return bool(others.mean() > 0.1 and (lines or not fills))
    return False


def written(gray: np.ndarray) -> np.ndarray:
    """Return how much of each pixel is ink, in 0…1, for bright ink on a darker, plain background.

    The background may be brighter to one side: a plane through the border is subtracted. Otsu's
    method finds the level between background and ink. Small specks do not count as ink, and
    neither does the grain of an empty page. Levels are `float32`, in 0…255.

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
    if high <= max(_LEAST_LEVELS, _LEAST_GRAINS * _grain(flat)):
        return np.zeros_like(flat)
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
    return bool((np.concatenate(_border(levels)) > middle).mean() > 0.5)


def _border(levels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the outermost pixels, each once."""
    return levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1]


def _plane_through_border(gray: np.ndarray) -> np.ndarray:
    """Return the plane that fits the levels of the outermost pixels best."""
    y, x = np.mgrid[: gray.shape[0], : gray.shape[1]].astype(np.float32)
    edge = np.ones(gray.shape, bool)
    edge[1:-1, 1:-1] = False
    sides = np.stack([np.ones_like(y), y, x], axis=-1)
    coefficients, *_ = np.linalg.lstsq(sides[edge], gray[edge], rcond=None)
    return np.asarray(sides @ coefficients, np.float32)


def _grain(levels: np.ndarray) -> float:
    """Return the standard deviation of grain on the sides, each about a line of its own."""
    apart = []
    for side in filter(len, _border(levels)):
        at = np.arange(len(side))
        apart.append(side - np.polyval(np.polyfit(at, side, min(1, len(side) - 1)), at))
    # Ink that touches the border hardly changes the median. Of normal noise, 1.48 of the median
    # absolute deviation is the standard deviation.
    return 1.48 * float(np.median(np.abs(np.concatenate(apart))))


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
