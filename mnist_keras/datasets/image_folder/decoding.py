"""The bytes of one file become pixels, or a reason why they cannot."""

import io
import math
import os
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mnist_keras._foundations.files import reason
from mnist_keras.datasets.choices import ColorMode, Interpolation
from mnist_keras.datasets.image_folder import truncation
from mnist_keras.datasets.images import DataError

# Keras's list. The content decides how a file is decoded, not its extension.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
FORMATS = ("BMP", "GIF", "JPEG", "PNG")
# Images that Keras leaves out silently; Pillow may or may not read them.
UNSUPPORTED_EXTENSIONS = (
    *(".avif", ".dng", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".pbm", ".pgm", ".ppm"),
    *(".psd", ".svg", ".tga", ".tif", ".tiff", ".webp"),
)
_UNSUPPORTED_FORMATS = ("AVIF", "ICO", "JPEG2000", "PPM", "PSD", "TGA", "TIFF", "WEBP")
_MODES: dict[ColorMode, str] = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
CHANNELS: dict[ColorMode, int] = {"grayscale": 1, "rgb": 3, "rgba": 4}

_MAX_BYTES = 2**28
# A file that declares more pixels is refused before it is decoded.
_MAX_PIXELS = 50_000_000
_TOO_MANY = f"declares more than {_MAX_PIXELS:,} pixels"
_LARGE_PIXELS = 4_000_000
LEAST_SIDE = 8
# A pixel is gray if its channels differ by at most this many levels, as they do in a JPEG.
GRAY_LEVELS = 16

# Takes the kind of a finding and optionally a reason.
Remark = Callable[..., None]


class BadImageError(DataError):
    """A file that is not one whole image of a supported type; `kind` is a key of `KINDS`."""

    def __init__(self, kind: str, reason: str = ""):
        super().__init__(reason)
        self.kind = kind


def read_file(path: Path | str) -> bytes:
    """Return the content of a regular file; refuse anything else, and files that are too large."""

    def open_at_once(path: str, flags: int) -> int:
        # Without waiting for the writer of a pipe.
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    try:
        with open(path, "rb", opener=open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadImageError("not_a_file")
            if status.st_size > _MAX_BYTES:
                raise BadImageError("too_large", f"{status.st_size:,} bytes")
            return file.read()
    except OSError as error:
        raise BadImageError("unreadable_file", f"cannot be read: {reason(error)}") from error


def read_stream(stream: BinaryIO) -> bytes:
    """Return the rest of a stream; refuse more than an image may have."""
    content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise BadImageError("too_large", f"more than {_MAX_BYTES:,} bytes")
    return content


def decode(content: bytes, color_mode: ColorMode, remark: Remark | None = None) -> np.ndarray:
    """Return the image that a file holds, as a `uint8` array of shape `(height, width, channels)`.

    `remark` is called with the kind of each finding that does not prevent the use of the image,
    and a reason. `None`, for content that was decoded before, also skips the checks for damage
    that Pillow does not notice. Anything but one whole, upright, opaque image is refused.
    """
    if not content:
        raise BadImageError("empty_file")
    with warnings.catch_warnings():
        # Other warnings of Pillow are about odd metadata, which leaves the pixels alone.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_header(image)
                if remark:
                    _check_end(image, content, remark)
                pixels = _pixels(image, content, color_mode, remark or say_nothing)
                if remark:
                    _check_scan(image, content)
                return pixels
        except (BadImageError, MemoryError):
            raise
        except UnidentifiedImageError:
            raise _unidentified(content) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise BadImageError("too_large", _TOO_MANY) from None
        except Exception as error:  # on damaged files, Pillow raises almost anything
            kind = "truncated" if truncation.end_of(content) is None else "damaged"
            raise BadImageError(kind, f"{kind} image: {reason(error)}") from error


def say_nothing(kind: str, reason: str = "") -> None:
    """Remark nothing: for callers that use single images and mind only damage."""


def _unidentified(content: bytes) -> BadImageError:
    """Say what a file is that no decoder recognizes."""
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return BadImageError("web_page")
    if start.startswith(b"version https://git-lfs"):
        return BadImageError("lfs_pointer")
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return BadImageError("unsupported_type", "an SVG drawing")
    if truncation.format_of(content):
        kind = "truncated" if truncation.end_of(content) is None else "damaged"
        return BadImageError(kind, f"{kind} image: its header cannot be read")
    try:
        with Image.open(io.BytesIO(content), formats=_UNSUPPORTED_FORMATS) as image:
            return BadImageError("unsupported_type", f"a {image.format} image")
    except Exception:
        return BadImageError("not_an_image", "not a BMP, GIF, JPEG or PNG image")


def _check_header(image: Image.Image) -> None:
    """Refuse by what the header declares, before anything is decoded."""
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise BadImageError("too_large", _TOO_MANY)
    if min(image.size) < LEAST_SIDE:
        raise BadImageError("too_small", f"{width}×{height} pixels; at least {LEAST_SIDE} per side")
    # Every viewer shows the first picture of a camera's multi-picture JPEG.
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise BadImageError("animated", f"animated: {frames} frames")


def _check_end(image: Image.Image, content: bytes, remark: Remark) -> None:
    end = truncation.end_of(content)
    if end is None:
        raise BadImageError("truncated", f"truncated image: the {image.format} has no end")
    if image.format == "PNG":
        if chunk := truncation.damaged_chunk(content):
            raise BadImageError("damaged", f"damaged image: the checksum of its {chunk} is wrong")
        if not truncation.has_all_rows(content):
            raise BadImageError("truncated", "truncated image: rows of pixels are missing")
    if end < len(content) and image.format != "MPO":
        remark("trailing_bytes", f"{len(content) - end:,} bytes after its end")


def _check_scan(image: Image.Image, content: bytes) -> None:
    """Refuse a JPEG whose end marker comes too early: decoders make up the missing rows.

    A whole image needs no more data. So data is inserted after its last scan, plain and after each
    restart marker. If this changes a pixel, the image was not whole.
    """
    if image.format not in ("JPEG", "MPO"):
        return
    stop = truncation.end_of_scans(content)
    data = b"\x2a\x95\x5a\x6b" * 64
    more = data + b"".join(bytes([0xFF, 0xD0 + n]) + data for n in range(8))
    longer = content[:stop] + more + content[stop:]
    with Image.open(io.BytesIO(longer), formats=("JPEG",)) as other:
        if not np.array_equal(np.asarray(image), np.asarray(other)):
            raise BadImageError("truncated", "truncated image: rows of pixels are missing")


def _pixels(
    image: Image.Image, content: bytes, color_mode: ColorMode, remark: Remark
) -> np.ndarray:
    """Return the pixels in the channels of the color mode; refuse ambiguous ones."""
    image.load()
    if math.prod(image.size) > _LARGE_PIXELS:
        remark("large", f"large: {image.size[0]}×{image.size[1]} pixels")
    if "exif" in image.info and (turn := _orientation(image)) > 1:
        raise BadImageError("rotated", f"rotated by its EXIF data (orientation {turn})")
    if "icc_profile" in image.info or "gamma" in image.info:
        remark("color_profile")
    if kind := {"1": "one_bit", "CMYK": "cmyk", "P": "palette"}.get(image.mode):
        remark(kind)
    elif image.mode.startswith("I") or (image.format == "PNG" and content[24] == 16):
        remark("sixteen_bit")
    image = _converted(image, color_mode, remark)
    return np.asarray(image).reshape(image.height, image.width, CHANNELS[color_mode])


def _converted(image: Image.Image, color_mode: ColorMode, remark: Remark) -> Image.Image:
    if image.mode.startswith("I"):  # one channel of 16 bits, scaled to 8
        if "transparency" in image.info:
            raise BadImageError("transparent", "transparent pixels")
        deep = np.asarray(image, np.float64)
        image = Image.fromarray(np.rint(deep * (255 / 65535)).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "P":
        image = image.convert("RGB")
    if color_mode != "rgba" and "A" in image.getbands():
        if image.getchannel("A").getextrema() != (255, 255):
            flatten = "transparent pixels; flatten it, or read it with color_mode='rgba'"
            raise BadImageError("transparent", flatten)
        remark("opaque_alpha")
        image = image.convert("RGB" if "R" in image.getbands() else "L")
    if color_mode == "grayscale" and image.mode in ("RGB", "CMYK", "YCbCr"):
        channels = np.asarray(image.convert("RGB")).astype(np.int16)
        colored = np.ptp(channels, axis=-1).max() > GRAY_LEVELS
        remark("color_lost" if colored else "gray_in_rgb")
    return image.convert(_MODES[color_mode])


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # unreadable metadata rotates nothing
        turn = image.getexif().get(ExifTags.Base.Orientation)
        if isinstance(turn, int) and 1 < turn <= 8:
            return turn
    return 1


def resize(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    """Resize as Keras does: pixel centers aligned, no antialiasing, `float32`; or do nothing."""
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
