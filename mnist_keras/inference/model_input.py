"""What a model takes: the images it was trained on, and how any other image is brought to that."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mnist_keras.datasets.choices import ColorMode
from mnist_keras.datasets.image_folder.decoding import CHANNELS, resize
from mnist_keras.datasets.image_folder.reading import ImageForm
from mnist_keras.datasets.images import Images

Background = Literal["dark", "bright", "mixed"]
Invert = Literal["auto", "yes", "no"]
Fit = Literal["auto", "ink", "resize"]

# Training images that show whether their backgrounds are alike.
_SAMPLE = 1000
_ALIKE = 0.9
# As in MNIST: the sign fills 20 of 28 pixels, its center of mass in the middle.
_INK_SHARE = 20 / 28
# Thinner strokes, in pixels of 28, are drawn as thick as this: a pen's line as MNIST's usual one.
_LEAST_STROKE = 2.6
# Parts of the ink smaller than this share of its largest part are specks.
_SPECK = 0.02
# A side of so many pixels is enough to find a sign of 20 in.
_ENOUGH_PIXELS = 400
_COLOR_MODES: dict[int, ColorMode] = {channels: mode for mode, channels in CHANNELS.items()}


@dataclass(frozen=True)
class ModelInput:
    """What a model takes.

    Attributes:
        form: Channels and size of its images, and how those of another size were resized.
        background: `"dark"` or `"bright"` if the borders of nearly all its training images were, else
            `"mixed"`.
        resized: Whether training images had to be resized.
    """

    form: ImageForm
    background: Background
    resized: bool

    @classmethod
    def of(cls, images: Images) -> "ModelInput":
        """Return the model_input of a model trained on these images, of which there is at least one.

        Args:
            images: Shape `(n, height, width, channels)`, with values in 0…255; `float32` if they
                were resized.
        """
        height, width, channels = images.shape[1:]
        chosen = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int))
        bright = np.array([_is_bright(image) for image in images[chosen]])
        background: Background = "mixed"
        if bright.mean() >= _ALIKE:
            background = "bright"
        elif 1 - bright.mean() >= _ALIKE:
            background = "dark"
        form = ImageForm(_COLOR_MODES[channels], (height, width))
        return cls(form, background, resized=images.dtype != np.uint8)

    @property
    def background_level(self) -> int:
        """Level of the background, in 0…255: the middle if training images have no one background."""
        return {"dark": 0, "bright": 255, "mixed": 128}[self.background]

    def bring(self, image: np.ndarray, invert: Invert = "auto", fit: Fit = "auto") -> np.ndarray:
        """Return an image as the model takes it.

        Args:
            image: Shape `(height, width, channels)` with the channels of `form`, in 0…255.
            invert: Whether levels are turned round; `"auto"` does so where the background is bright
                and the training images' is dark, or the reverse.
            fit: What is done to an image of another size. `"resize"` resizes it as training does.
                `"ink"` takes the sign off its background and puts it where MNIST has it: 20 of 28
                pixels long, the center of mass in the middle. `"auto"` is `"ink"` if the training
                images have one background and were not resized themselves.

        Returns:
            Array of the shape of `form`; `uint8`, or `float32` if it was resized.
        """
        bright = _is_bright(image)
        turn = invert == "yes" or (
            invert == "auto" and self.background == ("dark" if bright else "bright")
        )
        if turn:
            image = image.copy()
            image[..., :3] = 255 - image[..., :3]
        if image.shape[:2] == self.form.image_size:
            return image
        if fit == "auto":
            fit = "resize" if self.resized or self.background == "mixed" else "ink"
        if fit == "resize":
            return resize(image, self.form.image_size, self.form.interpolation)
        return self._ink(_gray(image), bright != turn)

    def _ink(self, gray: np.ndarray, bright_background: bool) -> np.ndarray:
        """Return what is written, bright on black (or dark on white), in MNIST's place."""
        gray = _reduced(255 - gray if bright_background else gray)
        ink = written(gray)
        placed = _placed(ink, self.form.image_size)
        levels = np.rint(255 * (1 - placed if bright_background else placed)).astype(np.uint8)
        image = np.repeat(levels[..., np.newaxis], self.form.shape[-1], axis=-1)
        if self.form.color_mode == "rgba":
            image[..., 3] = 255
        return image


def written(gray: np.ndarray) -> np.ndarray:
    """Return how much of each pixel is ink, in 0…1, for bright ink on a darker, plain background.

    The background may be brighter to one side: a plane through the border is taken away. Between
    background and ink lies the level that Otsu's method finds; small specks are none.

    Args:
        gray: `float32` array of shape `(height, width)`, in 0…255.

    Reference:
        Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    from scipy import ndimage

    flat = gray - _plane_through_border(gray)
    if np.ptp(flat) < 1:
        return np.zeros_like(flat)
    threshold = _otsu(flat)
    # Soft edges: none at the middle between background and threshold, all at the ink's own level.
    low = threshold / 2 if threshold > 0 else threshold
    high = np.median(flat[flat >= threshold])
    parts, count = ndimage.label(flat >= threshold, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    signs = np.isin(parts, 1 + np.flatnonzero(sizes >= _SPECK * sizes.max()))
    near = ndimage.binary_dilation(signs, np.ones((3, 3)), iterations=2)
    return np.where(near, ((flat - low) / max(high - low, 1)).clip(0, 1), 0).astype(np.float32)


def _reduced(gray: np.ndarray) -> np.ndarray:
    """Return a large image with the means of blocks for its pixels: a sign needs no more."""
    from PIL import Image

    factor = max(gray.shape) // _ENOUGH_PIXELS
    return np.asarray(Image.fromarray(gray).reduce(factor)) if factor > 1 else gray


def _placed(ink: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return ink cropped, scaled and centerd as in MNIST."""
    from PIL import Image

    placed = np.zeros(size, np.float32)
    if not (ink > 0.5).any():
        return placed
    crop = _cropped(ink)
    crop = _cropped(_thickened(crop, _LEAST_STROKE * min(size) / 28 / _scale(crop, size)))
    height, width = (max(1, round(_scale(crop, size) * side)) for side in crop.shape)
    # Pillow's filter takes in all pixels when it makes an image smaller: thin lines stay.
    small = Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR)
    sign = np.asarray(small) / max(1e-6, np.asarray(small).max())
    y = (sign.sum(1) @ np.arange(height)) / sign.sum()
    x = (sign.sum(0) @ np.arange(width)) / sign.sum()
    # MNIST's mean center of mass is pixel 14 of 0…27.
    top = min(max(0, round(size[0] / 2 - y)), size[0] - height)
    left = min(max(0, round(size[1] / 2 - x)), size[1] - width)
    placed[top : top + height, left : left + width] = sign
    return placed


def _cropped(ink: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(ink > 0.5)
    return ink[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def _scale(crop: np.ndarray, size: tuple[int, int]) -> float:
    return _INK_SHARE * min(size) / max(crop.shape)


def _thickened(ink: np.ndarray, width: float) -> np.ndarray:
    """Return ink whose strokes are at least about `width` pixels wide."""
    from scipy.ndimage import distance_transform_edt

    inside = distance_transform_edt(np.pad(ink > 0.5, 1))
    # A stroke of w pixels is, on average, w/4 + 1/2 away from its edge.
    missing = width - 4 * (inside[inside > 0].mean() - 0.5)
    if missing <= 0:
        return ink
    ink = np.pad(ink, math.ceil(missing / 2))
    outside = distance_transform_edt(ink <= 0.5)
    return np.maximum(ink, (missing / 2 + 1 - outside).clip(0, 1)).astype(np.float32)


def _gray(image: np.ndarray) -> np.ndarray:
    return image[..., :3].mean(-1, dtype=np.float32)


def _is_bright(image: np.ndarray) -> bool:
    """Return whether most of the border is nearer to the brightest than to the darkest level."""
    levels = image[..., :3].sum(-1, dtype=np.float32)
    low, high = levels.min(), levels.max()
    middle = (low + high) / 2 if high > low else 255 * min(3, image.shape[-1]) / 2
    border = (levels[0], levels[-1], levels[1:-1, 0], levels[1:-1, -1])
    bright = sum(np.count_nonzero(side > middle) for side in border)
    return 2 * bright > sum(side.size for side in border)


def _plane_through_border(gray: np.ndarray) -> np.ndarray:
    """Return the plane nearest to the levels of the outermost pixels."""
    y, x = np.mgrid[: gray.shape[0], : gray.shape[1]].astype(np.float32)
    edge = np.ones(gray.shape, bool)
    edge[1:-1, 1:-1] = False
    sides = np.stack([np.ones_like(y), y, x], axis=-1)
    coefficients, *_ = np.linalg.lstsq(sides[edge], gray[edge], rcond=None)
    return (sides @ coefficients).astype(np.float32)


def _otsu(levels: np.ndarray) -> float:
    """Return the level that divides values into the two classes of least variance within."""
    counts, edges = np.histogram(levels, 256)
    centers = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = below[-1] + counts[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1:-1][np.nanargmax(between)])
