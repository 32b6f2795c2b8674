"""Read a class-per-folder directory into arrays, or say what is wrong with every file of it."""

import io
import math
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from mnist_keras.images import DataError, LabeledImages, label

# Keras's list; the content decides how a file is decoded, not its extension.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG")
_MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
# Declared pixels beyond which a file is refused before it is decoded.
_MAX_PIXELS = 50_000_000
_TOO_LARGE = f"declares more than {_MAX_PIXELS:,} pixels"
# Beside the class folders, this one holds images that are not trained on.
_HELDOUT = "heldout"

ColorMode = Literal["grayscale", "rgb", "rgba"]
Interpolation = Literal["bilinear", "nearest"]


class ImageFolderError(DataError):
    """A directory that cannot be used as it is.

    Attributes:
        problems: One `(path, reason)` for each file or folder that was refused; `.` is the
            directory itself.
    """

    def __init__(self, directory: Path, problems: Sequence[tuple[str, str]]):
        self.problems = list(problems)
        lines = [
            reason if path == "." else f"{escaped(path)}: {reason}" for path, reason in problems
        ]
        if len(lines) == 1:
            super().__init__(f"{escaped(str(directory))}: {lines[0]}")
        else:
            summary = f"{escaped(str(directory))}: {len(lines)} files or folders refused"
            super().__init__("\n  ".join([summary, *lines]))


def escaped(name: str) -> str:
    """Return `name` with everything unprintable escaped, so that it stays on one line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sorting key that puts class `10` after class `9`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def find_classes(directory: Path) -> tuple[str, ...]:
    """Return the names of the class folders in natural order; hidden ones are no classes.

    Raises:
        ImageFolderError: If there is no directory, or it holds fewer than two classes.
    """
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: natural_key(entry.name))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImageFolderError(directory, [(".", f"cannot be read: {reason}")]) from error
    names = tuple(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if len(names) < 2:
        found = f"only the folder {escaped(names[0])!r}" if names else "no folders"
        reason = f"expected one folder of images for each of at least two classes; found {found}"
        raise ImageFolderError(directory, [(".", reason)])
    return names


def find_files(folder: Path) -> Iterator[Path]:
    """Yield the image files below `folder`, in Keras's order, leaving out whatever is hidden."""
    for root, _, files in sorted(os.walk(folder), key=lambda step: step[0]):
        if any(part.startswith(".") for part in Path(root).relative_to(folder).parts):
            continue
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS):
                yield Path(root, name)


def read_image_folder(
    directory: str | os.PathLike[str],
    color_mode: ColorMode = "rgb",
    image_size: tuple[int, int] = (28, 28),
    interpolation: Interpolation = "bilinear",
    class_names: Sequence[str] | None = None,
) -> LabeledImages:
    """Read a directory with one folder of images for each class.

    Every file is decoded by Pillow, once, from the bytes that are hashed. Plain 8-bit PNG
    gives what Keras's own loader gives, bit for bit.

    Args:
        directory: Folder of class folders.
        color_mode: `"grayscale"`, `"rgb"` or `"rgba"`.
        image_size: Height and width in pixels; images of another size are resized.
        interpolation: `"bilinear"` or `"nearest"`.
        class_names: The class folders to read, in the order of the labels. Defaults to
            all of them in natural order (`9` before `10`).

    Returns:
        `LabeledImages`: `uint8`, or `float32` in 0…255 where an image had to be resized.

    Raises:
        ImageFolderError: If the layout is wrong or any file is damaged; it lists them all.
    """
    directory = Path(directory)
    found = find_classes(directory)
    if class_names is None:
        class_names = found
    elif missing := [name for name in class_names if name not in found]:
        raise ImageFolderError(directory, [(name, "no such class folder") for name in missing])

    paths, labels, problems = [], [], []
    for index, name in enumerate(class_names):
        files = list(find_files(directory / name))
        if not files:
            problems.append((name, f"no images ({', '.join(EXTENSIONS)})"))
        paths += files
        labels += [index] * len(files)
    images, bad = read_images(directory, paths, color_mode, image_size, interpolation)
    if problems or bad:
        raise ImageFolderError(directory, problems + bad)
    name = escaped(directory.resolve().name)
    return label(name, images, np.array(labels), class_names, [str(path) for path in paths])


def read_data_folder(directory: Path) -> tuple[LabeledImages, LabeledImages]:
    """Read a user's images for `run`: class folders, or `train-…/` with class folders.

    A `heldout/` beside them has folders of the same classes; they are not trained on.

    Returns:
        The images, and the held-out images: none of them where there is no `heldout/`.

    Raises:
        ImageFolderError: If the layout is wrong or any file is damaged; it lists them all.
    """
    trains = sorted(path for path in directory.glob("train-*") if path.is_dir())
    if len(trains) > 1:
        several = ", ".join(path.name for path in trains)
        raise ImageFolderError(directory, [(".", f"more than one folder to train on: {several}")])
    folder = trains[0] if trains else directory
    class_names = [name for name in find_classes(folder) if name != _HELDOUT]
    images = read_image_folder(folder, class_names=class_names)
    if trains:
        images = replace(images, name=escaped(f"{directory.resolve().name}/{folder.name}"))
    if not (directory / _HELDOUT).is_dir():
        return images, images.take([])
    extra = set(find_classes(directory / _HELDOUT)) - set(class_names)
    if extra:
        unknown = [(f"{_HELDOUT}/{name}", "no such class to train on") for name in sorted(extra)]
        raise ImageFolderError(directory, unknown)
    return images, read_image_folder(directory / _HELDOUT, class_names=class_names)


def read_images(
    directory: Path,
    paths: Sequence[Path],
    color_mode: ColorMode,
    image_size: tuple[int, int],
    interpolation: Interpolation,
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return the images at `paths` and, for each that cannot be read, its path and why."""
    images, problems = [], []
    for path in paths:
        try:
            images.append(resize(decode(path, color_mode), image_size, interpolation))
        except DataError as error:
            problems.append((str(path.relative_to(directory)), str(error)))
    empty = np.empty((0, *image_size, CHANNELS[color_mode]), np.uint8)
    return (np.stack(images) if images else empty), problems


def decode(path: Path, color_mode: ColorMode) -> np.ndarray:
    """Return one image file as a `uint8` array of shape `(height, width, channels)`.

    Raises:
        DataError: If it is not one whole, opaque image of a known format.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("not a regular file")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from error
    if not content:
        raise DataError("empty file")
    try:
        # What Pillow only warns about (a bomb, a damaged header) is a refusal here.
        with warnings.catch_warnings(action="error"):
            with _open(content) as image:
                _check_header(image)
                # Checksums first; a verified image has to be opened again.
                image.verify()
            with _open(content) as image:
                return _convert(image, color_mode)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise DataError(f"damaged image: {error or type(error).__name__}") from error


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise DataError("not a BMP, GIF, JPEG or PNG image") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(_TOO_LARGE) from None


def _check_header(image: Image.Image) -> None:
    if math.prod(image.size) > _MAX_PIXELS:
        raise DataError(_TOO_LARGE)
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"animated: {getattr(image, 'n_frames', 1)} frames")


def _convert(image: Image.Image, color_mode: ColorMode) -> np.ndarray:
    """Return the pixels in the channels asked for; a transparency that shows is refused."""
    if image.mode.startswith("I"):  # 16 bits a pixel: scale to 8
        scaled = np.rint(np.asarray(image, np.float64) * (255 / 65535)).astype(np.uint8)
        image = Image.fromarray(scaled)
    elif image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if color_mode != "rgba" and "A" in image.getbands():
        if image.getchannel("A").getextrema() != (255, 255):
            raise DataError("transparent pixels; flatten it, or read it as color_mode='rgba'")
        image = image.convert("RGB" if "R" in image.getbands() else "L")
    if image.mode != _MODES[color_mode]:
        image = image.convert(_MODES[color_mode])
    pixels = np.asarray(image)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


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
