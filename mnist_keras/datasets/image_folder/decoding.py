"""The bytes of one file become pixels, or a reason why they cannot."""

import io
import itertools
import math
import os
import re
import stat
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mnist_keras._foundations.files import reason
from mnist_keras.datasets.choices import ColorMode
from mnist_keras.datasets.image_folder import truncation
from mnist_keras.datasets.images import DataError

# The formats that are read, as Keras's loader has them. The content decides, not the extension.
FORMATS = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
    "PNG": (".png", ".apng"),
}
_UNREAD_EXTENSIONS = (
    ".3fr .arw .avif .avifs .cr2 .cr3 .cur .dcm .dcx .dds .dng .emf .eps .erf .exr .hdr .heic "
    ".heics .heif .heifs .hif .icns .ico .j2c .j2k .jng .jp2 .jpc .jpf .jpm .jpx .jxl .jxr .mng "
    ".nef .nrw .orf .pam .pbm .pcx .pef .pfm .pgm .pnm .ppm .psb .psd .qoi .raf .ras .rw2 .sgi "
    ".sr2 .srw .svg .svgz .tga .tif .tiff .wbmp .wdp .webp .wmf .xbm .xcf .xpm"
)
# All extensions that images are known by: these files are opened, then read or refused.
EXTENSIONS = (*itertools.chain(*FORMATS.values()), *_UNREAD_EXTENSIONS.split())
_UNSUPPORTED_FORMATS = (
    *("AVIF", "DDS", "ICNS", "ICO", "JPEG2000", "PCX", "PPM", "PSD", "QOI", "SGI", "TGA", "TIFF"),
    *("WEBP", "XBM", "XPM"),
)
# How files begin whose formats Pillow may not know: of phones, JPEG XL, EPS and gzip.
_UNKNOWN_FORMATS = re.compile(
    rb"....ftyp(hei|hev|mif|msf|avi|crx)|\xff\x0a|\0\0\0\x0cJXL |%!PS|\x1f\x8b", re.DOTALL
)
_MODES: dict[ColorMode, str] = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
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


def decode(
    content: bytes, color_mode: ColorMode, remark: Remark | None = None, keep: bool = False
) -> np.ndarray:
    """Return the image that a file holds, as a `uint8` array of shape `(height, width, channels)`.

    `remark` is called with the kind of each finding that does not prevent the use of the image,
    and a reason. `None`, for content that was decoded before, also skips the checks for damage
    that Pillow does not notice. Anything but one whole, opaque image is refused. An image that is
    to be turned, by its EXIF data or XMP, is turned upright. With `keep`, whole images are read as
    Keras reads them: tiny ones too, the first of several, without transparency and not turned.
    """
    if not content:
        raise BadImageError("empty_file")
    with warnings.catch_warnings():
        # Other warnings of Pillow are about odd metadata, which leaves the pixels alone.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=[*FORMATS]) as image:
                _check_header(image, content, remark or say_nothing, keep)
                if remark:
                    _check_end(image, content, remark)
                pixels = _pixels(image, content, color_mode, remark or say_nothing, keep)
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


def _refuse(kind: str, reason: str, remark: Remark, keep: bool) -> None:
    """Refuse an image that Keras's loader takes, or keep it and say so."""
    if not keep:
        raise BadImageError(kind, reason)
    remark("kept", reason)


def _unidentified(content: bytes) -> BadImageError:
    """Say what a file is that no decoder recognizes."""
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return BadImageError("web_page")
    if start.startswith(b"version https://git-lfs"):
        return BadImageError("lfs_pointer")
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return BadImageError("unsupported_type", "an SVG drawing")
    if _UNKNOWN_FORMATS.match(content):
        return BadImageError("unsupported_type", "of a type that is not read, such as HEIC")
    if truncation.format_of(content):
        kind = "truncated" if truncation.end_of(content) is None else "damaged"
        return BadImageError(kind, f"{kind} image: its header cannot be read")
    try:
        with Image.open(io.BytesIO(content), formats=_UNSUPPORTED_FORMATS) as image:
            return BadImageError("unsupported_type", f"a {image.format} image")
    except Exception:
        return BadImageError("not_an_image", "not a BMP, GIF, JPEG or PNG image")


def _check_header(image: Image.Image, content: bytes, remark: Remark, keep: bool) -> None:
    """Refuse by what the header declares, before anything is decoded."""
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise BadImageError("too_large", _TOO_MANY)
    if min(image.size) < LEAST_SIDE:
        least = f"{width}×{height} pixels; at least {LEAST_SIDE} per side"
        _refuse("too_small", least, remark, keep and min(image.size) > 0)
    if image.format == "PNG" and struct.unpack_from(">II", content, 16) != image.size:
        raise BadImageError("damaged", "damaged image: it has two sizes")
    # Every viewer shows the first picture of a camera's multi-picture JPEG.
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        if image.format != "PNG":
            _refuse("animated", f"animated: {frames} frames", remark, keep)
        else:
            remark("animated_png", f"animated: the first of {frames} frames is used")


def _check_end(image: Image.Image, content: bytes, remark: Remark) -> None:
    end = truncation.end_of(content)
    if end is None:
        raise BadImageError("truncated", f"truncated image: the {image.format} has no end")
    if image.format == "PNG":
        if chunk := truncation.damaged_chunk(content):
            raise BadImageError("damaged", f"damaged image: the checksum of its {chunk} is wrong")
        if not truncation.has_all_rows(content):
            raise BadImageError("truncated", "truncated image: rows of pixels are missing")
    elif image.format in ("JPEG", "MPO") and not truncation.restarts_in_order(content):
        raise BadImageError("damaged", "damaged image: a restart marker is missing or misplaced")
    if end < len(content) and image.format != "MPO":
        remark("trailing_bytes", f"{len(content) - end:,} bytes after its end")


def _check_scan(image: Image.Image, content: bytes) -> None:
    """Refuse a JPEG whose end marker comes too early: decoders make up the missing rows.

    A whole image needs no more data. So data is inserted after its last scan: plain, and after each
    restart marker, the expected one first. If this changes a pixel, the image was not whole.
    """
    if image.format not in ("JPEG", "MPO"):
        return
    stop, following = truncation.end_of_scans(content)
    data = b"\x2a\x95\x5a\x6b" * 64
    more = data + b"".join(bytes([0xFF, 0xD0 + (following + n) % 8]) + data for n in range(8))
    longer = content[:stop] + more + content[stop:]
    with Image.open(io.BytesIO(longer), formats=("JPEG",)) as other:
        if not np.array_equal(np.asarray(image), np.asarray(other)):
            raise BadImageError("truncated", "truncated image: rows of pixels are missing")


def _pixels(
    image: Image.Image, content: bytes, color_mode: ColorMode, remark: Remark, keep: bool
) -> np.ndarray:
    """Return the upright pixels in the channels of the color mode; refuse ambiguous ones."""
    declared = image.size
    image.load()
    if image.size != declared:
        raise BadImageError("damaged", "damaged image: it has two sizes")
    if math.prod(image.size) > _LARGE_PIXELS:
        remark("large", f"large: {image.size[0]}×{image.size[1]} pixels")
    if "icc_profile" in image.info or "gamma" in image.info:
        remark("color_profile")
    depth = content[24] if image.format == "PNG" else 8
    if kind := {"1": "one_bit", "CMYK": "cmyk", "P": "palette"}.get(image.mode):
        remark(kind)
    elif depth == 16:
        remark("sixteen_bit")
    turn = None if keep else _TURNS.get(_orientation(image))
    image = _converted(image, depth, color_mode, remark, keep)
    if turn is not None:
        remark("rotated")
        image = image.transpose(turn)
    return np.asarray(image).reshape(image.height, image.width, CHANNELS[color_mode])


def _converted(
    image: Image.Image, depth: int, color_mode: ColorMode, remark: Remark, keep: bool
) -> Image.Image:
    """Return an image in a color mode; `depth` is that of a sample in the file, in bits."""
    opacity = None
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif (clear := image.info.pop("transparency", None)) is not None:
        opacity = _opacity(np.asarray(image), clear, depth)
    if image.mode.startswith("I"):  # one channel of 16 bits, scaled to 8
        deep = np.asarray(image, np.float64)
        image = Image.fromarray(np.rint(deep * (255 / 65535)).clip(0, 255).astype(np.uint8))
    if opacity is not None:
        image = image.convert("RGB" if image.mode == "RGB" else "L")
        image.putalpha(opacity)
    if color_mode != "rgba" and "A" in image.getbands():
        if image.getchannel("A").getextrema() == (255, 255):
            remark("opaque_alpha")
        else:
            flatten = "transparent pixels; flatten it, or read it with color_mode='rgba'"
            _refuse("transparent", flatten, remark, keep)
        image = image.convert("RGB" if "R" in image.getbands() else "L")
    if color_mode == "grayscale" and image.mode in ("RGB", "CMYK", "YCbCr"):
        channels = np.asarray(image.convert("RGB")).astype(np.int16)
        colored = np.ptp(channels, axis=-1).max() > GRAY_LEVELS
        remark("color_lost" if colored else "gray_in_rgb")
    return image.convert(_MODES[color_mode])


def _opacity(levels: np.ndarray, clear: int | tuple[int, ...], depth: int) -> Image.Image:
    """Return an alpha channel in which one level or color, as the file has it, is transparent."""
    value = np.array(clear)
    if depth < 8:  # Pillow spreads these levels over 0…255
        value = value * 255 // (2**depth - 1)
    if levels.ndim == 3:
        if depth == 16:  # of which Pillow keeps the upper byte
            value = value >> 8
        same = (levels == value).all(-1)
    else:
        same = levels == (value if levels.dtype != bool else value > 0)
    return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """Return how an image lies, 1…8, by its EXIF data or XMP, wherever its format keeps them."""
    # "Raw profile type ..." is text by ImageMagick: a name, a length, and the bytes in hexadecimal.
    raw = (text for key, text in image.info.items() if str(key).startswith("Raw profile type "))
    for metadata in (*(image.info.get(key) for key in ("exif", "xmp", "XML:com.adobe.xmp")), *raw):
        with suppress(Exception):  # metadata that is missing or unreadable turns nothing
            content = metadata.encode() if isinstance(metadata, str) else metadata
            if content.startswith(b"\n"):
                content = bytes.fromhex("".join(metadata.split()[2:]))
            if found := _XMP_ORIENTATION.search(content):
                return int(found[1])
            exif = Image.Exif()
            exif.load(content)
            if turn := exif.get(ExifTags.Base.Orientation):
                return int(turn)
    return 1
