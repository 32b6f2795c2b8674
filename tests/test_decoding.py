"""A file becomes pixels or is refused with a reason; no damaged file passes for an image."""

import gzip
import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mnist_keras.datasets.image_folder.decoding import BadImageError, decode, read_file
from mnist_keras.datasets.image_folder.truncation import end_of, has_all_rows

pytestmark = pytest.mark.any_backend


def encode(image, format="PNG", mode=None, **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.convert(mode or image.mode).save(file, format, **options)
    return file.getvalue()


def read(content, color_mode="grayscale"):
    """Return the image and the kinds of all remarks."""
    remarks = []
    return decode(content, color_mode, lambda kind, reason="": remarks.append(kind)), remarks


def alpha(gray, opacity):
    return Image.merge("LA", [Image.fromarray(gray), Image.new("L", gray.shape[::-1], opacity)])


def chunk(kind, data):
    """Return a chunk of a PNG, with the right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def declare(content, width, height):
    """Return a PNG whose header declares another size."""
    header = chunk(b"IHDR", struct.pack(">II", width, height) + content[24:29])
    return content[:8] + header + content[33:]


def as_png(image, rows, interlaced=0):
    """Return an 8-bit gray PNG of the size of `image` with these rows."""
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 0, 0, 0, interlaced)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def adam7(image):
    """Return the rows of an interlaced PNG, pass by pass."""
    starts = ((0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0))
    steps = ((8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1))
    passes = [image[y::down, x::right] for (y, x), (down, right) in zip(starts, steps, strict=True)]
    return [row for part in passes if part.size for row in part]


@pytest.mark.parametrize("color_mode", ["grayscale", "rgb", "rgba"])
def test_gray_pngs_are_read_unchanged(picture, color_mode):
    """The levels of a plain PNG are unchanged, in the channels of the color mode."""
    found, remarks = read(encode(picture(0)), color_mode)
    channels = {"grayscale": 1, "rgb": 3, "rgba": 4}[color_mode]
    assert (found.dtype, found.shape, remarks) == (np.uint8, (28, 28, channels), [])
    for channel in found.transpose(2, 0, 1)[:3]:
        np.testing.assert_array_equal(channel, picture(0))
    if color_mode == "rgba":
        assert (found[..., 3] == 255).all()


CONVERSIONS = {
    "bmp": (lambda gray: encode(gray, "BMP"), []),
    "gif": (lambda gray: encode(gray, "GIF"), ["palette"]),
    "rgb": (lambda gray: encode(gray, mode="RGB"), ["gray_in_rgb"]),
    "palette": (lambda gray: encode(gray, mode="P"), ["palette"]),
    "opaque": (lambda gray: encode(alpha(gray, 255)), ["opaque_alpha"]),
    "16 bits": (lambda gray: encode(gray.astype(np.uint16) * 257), ["sixteen_bit"]),
    "1 bit": (lambda gray: encode(Image.fromarray(gray > 127)), ["one_bit"]),
    "cmyk": (lambda gray: encode(gray, "JPEG", "CMYK", quality=100), ["cmyk"]),
    "profile": (lambda gray: encode(gray, icc_profile=b"x" * 200), ["color_profile"]),
    "trailing": (lambda gray: encode(gray) + b"junk", ["trailing_bytes"]),
    "no jfif": (lambda gray: without_jfif(encode(gray, "JPEG", quality=100)), []),
}


def without_jfif(content):
    (length,) = struct.unpack_from(">H", content, 4)
    assert content[6:10] == b"JFIF"
    return content[:2] + content[4 + length :]


@pytest.mark.parametrize("case", CONVERSIONS)
def test_conversions_that_keep_the_meaning(picture, case):
    """Other encodings of a gray picture give its levels and remark on the conversion."""
    make, expected = CONVERSIONS[case]
    gray = picture(1)
    found, remarks = read(make(gray))
    wanted = np.where(gray > 127, 255, 0) if case == "1 bit" else gray
    tolerance = 6 if case in ("cmyk", "no jfif") else 1 if case in ("gif", "palette") else 0
    np.testing.assert_allclose(found[..., 0].astype(int), wanted, atol=tolerance)
    assert expected == [kind for kind in remarks if kind in expected or kind != "gray_in_rgb"]


def test_16_bits_are_scaled_and_rounded():
    """Black stays 0, white becomes 255, and other levels are rounded to the nearest."""
    deep = np.linspace(0, 65535, 784).astype(np.uint16).reshape(28, 28)
    found, _ = read(encode(deep))
    np.testing.assert_array_equal(found[..., 0], np.floor(deep / 257 + 0.5))


def test_what_a_color_mode_loses_is_named(picture):
    """Colors are lost in gray, and told from gray in three channels; RGBA keeps transparency."""
    colors = np.stack([picture(n) for n in range(3)], axis=-1)
    assert "color_lost" in read(encode(colors))[1]
    assert read(encode(colors), "rgb")[1] == []
    found, _ = read(encode(alpha(picture(3), 128)), "rgba")
    assert (found[..., 3] == 128).all()


def test_files_that_cannot_be_used_are_named(picture):
    """Each kind of bad content is refused as this kind, with a reason on one line."""
    png, jpeg = encode(picture(2)), encode(picture(2, 64, 64), "JPEG")
    flipped, unlike = bytearray(png), bytearray(png)
    flipped[60] ^= 0xFF
    unlike[-13] ^= 0xFF  # the checksum of the pixels, which decoders do not check
    frames = [Image.fromarray(picture(n)) for n in range(3)]
    more = {"save_all": True, "append_images": frames[1:]}
    scan = jpeg.index(b"\xff\xda")
    restarts = encode(picture(2, 64, 64), "JPEG", restart_marker_rows=1)
    cases = {
        "empty_file": [b""],
        "not_an_image": [b"hello", b"\0" * 100, b"%PDF-1.7"],
        "web_page": [b"\n <!DOCTYPE html><html>", b"<HTML><body>Not found"],
        "lfs_pointer": [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"],
        "unsupported_type": [
            encode(picture(2), "WEBP"),
            encode(picture(2), "TIFF"),
            *(b'<?xml version="1.0"?><svg xmlns="x">', gzip.compress(b"<svg>"), b"\xff\x0a" + png),
            *(
                b"\0\0\0\x18ftyp" + brand + bytes(99)
                for brand in (b"heic", b"mif1", b"avif", b"crx ")
            ),
        ],
        "truncated": [
            *(png[:20], png[: len(png) // 2], png[:-12], png[:-4]),
            *(jpeg[: len(jpeg) // 2], jpeg[:-2]),
            jpeg[: scan + 70] + b"\xff\xd9",  # an end marker in the middle
            jpeg[: scan + 70] + b"\xff\xd9" + jpeg[scan + 70 :],
            jpeg[: scan + 70] + b"\xff\xfe\x00\x04ab\xff\xd9",  # behind a comment
            jpeg[: scan + 70] + b"\xff\xd3\xff\xd9",  # behind a restart
            *(
                restarts[: restarts.index(bytes([0xFF, 0xD0 + n]))] + b"\xff\xd9" for n in range(7)
            ),  # instead of a restart
            as_png(picture(2), picture(2)[:14]),
            as_png(picture(2), adam7(picture(2))[:-1], interlaced=1),
            encode(picture(2), "GIF")[:-1],
            encode(picture(2), "GIF")[:-40],
            encode(picture(2), "BMP")[:-1],
        ],
        "damaged": [
            *(bytes(flipped), bytes(unlike), declare(png, 0, 0)),
            png[:33] + declare(png, 28, 14)[8:],  # two headers
            restarts[: restarts.index(b"\xff\xd2")] + restarts[restarts.index(b"\xff\xd3") :],
            jpeg[: scan + 70] + b"\xff\xd0" + jpeg[scan + 70 :],  # a restart of no interval
        ],
        "too_large": [declare(png, 65535, 65535), encode(Image.new("1", (7_100, 7_100)))],
        "too_small": [encode(picture(2)[:1, :1]), encode(picture(2)[:7])],
        "transparent": [
            encode(alpha(picture(2), 128)),
            encode(picture(2), mode="P", transparency=0),
            encode(picture(2), transparency=int(picture(2)[0, 0])),
        ],
        "animated": [encode(frames[0], "GIF", **more)],
    }
    for kind, contents in cases.items():
        for content in contents:
            with pytest.raises(BadImageError) as error:
                read(content)
            assert error.value.kind == kind
            assert "\n" not in str(error.value)


def gray_png(levels, depth, clear=None, color=0):
    """Return a PNG of samples of some depth, in which the level or color `clear` is transparent."""
    samples = np.asarray(levels).reshape(len(levels), -1)
    bits = (samples[..., np.newaxis] >> np.arange(depth)[::-1]) & 1
    rows = b"".join(
        b"\0" + row.tobytes() for row in np.packbits(bits.reshape(len(samples), -1), axis=1)
    )
    header = struct.pack(">IIBBBBB", np.shape(levels)[1], len(levels), depth, color, 0, 0, 0)
    chunks = chunk(b"IHDR", header)
    if clear is not None:
        chunks += chunk(b"tRNS", np.atleast_1d(clear).astype(">u2").tobytes())
    chunks += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_that_of_pixels(depth, channels):
    """At every depth, an image is refused if a pixel is transparent, not if a level would be."""
    if channels == 3 and depth < 8:
        pytest.skip("colors have 8 or 16 bits")
    top, color = 2**depth - 1, {1: 0, 3: 2}[channels]
    levels = np.random.default_rng(depth).integers(0, top, (9, 16, channels))  # never the top level
    clear = [top] * channels
    found, remarks = read(gray_png(levels, depth, clear, color), "rgb")
    assert "opaque_alpha" in remarks
    plain, _ = read(gray_png(levels, depth, None, color), "rgb")
    np.testing.assert_array_equal(found, plain)
    levels[4, 3] = top
    content = gray_png(levels, depth, clear, color)
    with pytest.raises(BadImageError) as error:
        read(content)
    assert error.value.kind == "transparent"
    opacity = read(content, "rgba")[0][..., 3]
    assert [*zip(*np.nonzero(opacity == 0), strict=True)] == [(4, 3)]


@pytest.mark.parametrize("color", [4, 6])
def test_alpha_of_16_bits(color):
    """An alpha channel of 16 bits is judged by its pixels, too."""
    levels = np.random.default_rng(color).integers(0, 65536, (9, 16, color - 2))
    levels[..., -1] = 65535
    assert "opaque_alpha" in read(gray_png(levels, 16, color=color))[1]
    levels[1, 2, -1] = 40_000
    with pytest.raises(BadImageError, match="transparent"):
        read(gray_png(levels, 16, color=color))


def exif_of(turn, order="<"):
    """Return EXIF data that say how an image lies."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return b"Exif\0\0" + start + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, turn, 0, 0)


def xmp_of(turn):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{turn}"/></x:xmpmeta>'.encode()


def with_text(content, keyword, text, zipped=False):
    """Return a PNG with a text before its pixels."""
    body = keyword + b"\0" + (b"\0" + zlib.compress(text) if zipped else text)
    return content[:33] + chunk(b"zTXt" if zipped else b"tEXt", body) + content[33:]


def profile(kind, data):
    """Return metadata as ImageMagick writes it into a PNG."""
    lines = [data.hex()[i : i + 72] for i in range(0, 2 * len(data), 72)]
    return "\n".join(["", kind, f"{len(data):8d}", *lines, ""]).encode()


def itxt(content, text):
    body = b"XML:com.adobe.xmp\0\0\0\0\0" + text
    return content[:33] + chunk(b"iTXt", body) + content[33:]


def after_pixels(content, data):
    return content[:-12] + chunk(b"eXIf", data[6:]) + content[-12:]


PLACES = {
    "JPEG": lambda image, turn: encode(image, "JPEG", exif=exif_of(turn, ">"), quality=100),
    "JPEG, XMP": lambda image, turn: encode(image, "JPEG", xmp=xmp_of(turn), quality=100),
    "eXIf": lambda image, turn: encode(image, exif=exif_of(turn)),
    "eXIf after the pixels": lambda image, turn: after_pixels(encode(image), exif_of(turn)),
    "XMP": lambda image, turn: itxt(encode(image), xmp_of(turn)),
    "raw EXIF": lambda image, turn: with_text(
        encode(image), b"Raw profile type exif", profile("exif", exif_of(turn)), True
    ),
    "raw APP1": lambda image, turn: with_text(
        encode(image), b"Raw profile type APP1", profile("generic", exif_of(turn))
    ),
    "raw XMP": lambda image, turn: with_text(
        encode(image), b"Raw profile type xmp", profile("xmp", xmp_of(turn))
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("turn", range(1, 9))
def test_images_are_turned_upright(picture, place, turn):
    """Wherever a file says how it lies, the image is turned as the EXIF standard has it."""
    upright = picture(3, 24, 40)
    # Where the standard puts row 0 and column 0 of the file.
    stored = upright.T if turn > 4 else upright
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (0,), 7: (0, 1), 8: (1,)}.get(turn, ())
    content = PLACES[place](np.ascontiguousarray(np.flip(stored, flips)), turn)
    found, remarks = read(content)
    assert found.shape == (24, 40, 1)
    tolerance = 6 if place.startswith("JPEG") else 0
    np.testing.assert_allclose(found[..., 0].astype(int), upright, atol=tolerance)
    assert remarks == (["rotated"] if turn > 1 else [])


@pytest.mark.parametrize("text", [b"", b"\nexif\n", b"\nexif\n 4\nzz", b"\nexif\n 2\nffff"])
def test_unreadable_metadata_turns_nothing(picture, text):
    """Metadata that cannot be read leaves an image as it is."""
    content = with_text(encode(picture(3)), b"Raw profile type exif", text)
    np.testing.assert_array_equal(read(content)[0][..., 0], picture(3))


@pytest.mark.parametrize("apart", [False, True])
def test_an_animated_png_is_its_default_image(picture, apart):
    """Viewers without animation show the default image; it is used, with a warning."""
    frames = [Image.fromarray(picture(n)) for n in range(3)]
    more = {"save_all": True, "append_images": frames[1:], "default_image": apart}
    found, remarks = read(encode(frames[0], **more))
    np.testing.assert_array_equal(found[..., 0], picture(0))
    assert remarks == ["animated_png"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("width", [28, 29, 31])
def test_sizes_in_the_header_of_a_bmp_may_be_wrong(picture, mode, width):
    """A BMP is whole if its rows are there, whatever size its header has."""
    content = encode(picture(0, 20, width), "BMP", mode)
    expected = pillows(content, "L")
    for size in (0, 14, 54, len(content) - 40, len(content) + 2, 2**32 - 1):
        wrong = content[:2] + struct.pack("<I", size) + content[6:]
        found, remarks = read(wrong)
        np.testing.assert_array_equal(found[..., 0], expected)
        assert "trailing_bytes" not in remarks
        assert "trailing_bytes" in read(wrong + b"trailing")[1]
        with pytest.raises(BadImageError, match="truncated"):
            read(wrong[:-5])


@pytest.mark.parametrize("declared", [0, 10**6, None])
@pytest.mark.parametrize("compressed", [False, True])
def test_sizes_of_a_bmp_of_run_lengths(picture, declared, compressed):
    """A BMP of run lengths is whole if all its pixels are there, whatever its sizes are."""
    gray = picture(2, 12, 16)
    rows = (
        b"".join(b"".join(bytes([1, level]) for level in row) + b"\0\0" for row in gray[::-1])
        + b"\0\1"
    )
    start = 54 + 1024
    whole = start + len(rows) if declared is None else declared
    size = len(rows) if compressed else 0
    content = b"BM" + struct.pack(
        "<IIIIiiHHIIiiII", whole, 0, start, 40, 16, 12, 1, 8, 1, size, 0, 0, 0, 0
    )
    content += b"".join(bytes([level, level, level, 0]) for level in range(256)) + rows
    np.testing.assert_array_equal(read(content)[0][..., 0], gray)
    with pytest.raises(BadImageError):
        read(content[:-40])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
@pytest.mark.parametrize(
    "restarts",
    [{"restart_marker_blocks": 1}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}],
)
def test_jpegs_with_restarts(picture, options, restarts):
    """With restarts, whole JPEGs are read; without their last interval, they are truncated."""
    for height in (64, 100):
        colors = np.stack([picture(n, height, 70) for n in range(3)], axis=-1)
        content = encode(colors, "JPEG", **options, **restarts)
        assert read(content, "rgb")[1] == []
        for n in (0, 7):  # a restart of nothing
            assert read(content[:-2] + bytes([0xFF, 0xD0 + n]) + content[-2:], "rgb")[1] == []
        last = max(content.rfind(bytes([0xFF, 0xD0 + n])) for n in range(8))
        for cut in (last, last + 2):
            with pytest.raises(BadImageError) as error:
                read(content[:cut] + b"\xff\xd9", "rgb")
            assert error.value.kind == "truncated"


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 95}, {"optimize": True}]
)
def test_whole_jpegs_are_not_truncated(picture, options):
    """No whole JPEG is mistaken for a truncated one."""
    for number in range(20):
        colors = np.stack([picture(number + n, 50, 37) for n in range(3)], axis=-1)
        content = encode(colors, "JPEG", **options)
        assert read(content, "rgb")[1] == []
        assert read(content[:-2] + b"\xff\xff\xff\xd9", "rgb")[1] == []  # fill bytes are legal


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(8, 8), (9, 31), (64, 17)])
def test_whole_pngs_have_all_their_rows(picture, mode, size):
    """Rows are counted for every depth, and for the seven passes of an interlaced image."""
    gray = picture(0, *size)
    content = encode(gray.astype("u2")) if mode == "I;16" else encode(gray, mode=mode)
    assert has_all_rows(content)
    assert not has_all_rows(declare(content, size[1], size[0] + 1))
    found, _ = read(as_png(gray, adam7(gray), interlaced=1))
    np.testing.assert_array_equal(found[..., 0], gray)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_only_regular_files_are_read(tmp_path):
    """A pipe without a writer, a folder and a missing file are refused without waiting."""
    os.mkfifo(tmp_path / "pipe.png")
    for name, *kinds in (("pipe.png",), ("", "unreadable_file"), ("no", "unreadable_file")):
        with pytest.raises(BadImageError) as error:
            read_file(tmp_path / name)
        assert error.value.kind in ("not_a_file", *kinds)


def test_ends_are_found(picture):
    """An image ends where its encoder stopped, whatever follows, and not with its thumbnail."""
    for format in ("PNG", "JPEG", "GIF", "BMP"):
        for number in range(5):
            content = encode(picture(number), format)
            assert end_of(content) == end_of(content + b"\xff\xd9;IEND") == len(content)
            assert end_of(content[:-1]) is None
    thumbnail = b"Exif\0\0" + encode(picture(0), "JPEG")
    content = encode(picture(1, 64, 64), "JPEG", exif=thumbnail)
    assert end_of(content) == len(content)
    assert end_of(content[:-2]) is None


def mutants(content, rng, count):
    """Yield damaged copies: bits flipped, bytes overwritten, cut off, doubled, or removed."""
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            position = int(rng.integers(len(damaged)))
            length = int(rng.integers(1, 9))
            match rng.integers(5):
                case 0:
                    damaged[position] ^= 1 << int(rng.integers(8))
                case 1:
                    damaged[position : position + length] = rng.bytes(length)
                case 2:
                    del damaged[max(position, 4) :]
                case 3:
                    damaged[position:position] = damaged[position : position + length]
                case 4:
                    del damaged[position : position + length]
            if not damaged:
                break
        yield bytes(damaged)


def pillows(content, mode):
    """Return the pixels that Pillow reads, without transparency."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if image.mode == "P" or "transparency" in image.info:
            image = image.convert("RGBA").convert("RGB")
        return np.asarray(image.convert(mode))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("color_mode", ["grayscale", "rgb"])
def test_mutants_are_refused_or_what_pillow_says(picture, format, color_mode):
    """Each of 3,200 mutants is refused, or has the pixels that Pillow reads."""
    rng = np.random.default_rng([len(format), len(color_mode)])
    accepted = refused = 0
    for number in range(8):
        colors = np.stack([picture(number + n, 20 + number, 24) for n in range(3)], axis=-1)
        image = colors if number % 2 else picture(number)
        for content in mutants(encode(image, format), rng, 50):
            try:
                found, _ = read(content, color_mode)
            except BadImageError:
                refused += 1
                continue
            accepted += 1
            with warnings.catch_warnings(action="ignore"):
                theirs = pillows(content, {"grayscale": "L", "rgb": "RGB"}[color_mode])
            np.testing.assert_array_equal(found.squeeze(), theirs)
    assert refused > 100
    assert accepted + refused == 400
