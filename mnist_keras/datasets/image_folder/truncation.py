"""Where an image file ends, and whether it is whole: decoders do not always check."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

_STARTS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8": "JPEG", b"GIF8": "GIF", b"BM": "BMP"}
# The end of a JPEG's scan: a marker other than a restart, not data (00) or a fill byte (FF).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTARTS = range(0xD0, 0xD8)
# The passes of an interlaced PNG: first column, first row, and the steps to the next.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def format_of(content: bytes) -> str | None:
    """Return `"PNG"`, `"JPEG"`, `"GIF"` or `"BMP"` by the first bytes of a file, or `None`."""
    return next((name for start, name in _STARTS.items() if content.startswith(start)), None)


def end_of(content: bytes) -> int | None:
    """Return the position after the end of an image, or `None` if its end is missing."""
    with suppress(IndexError, struct.error):  # a part is longer than the file
        match format_of(content):
            case "PNG":
                return 8 + sum(8 + len(data) for _, data, _ in _png_chunks(content))
            case "JPEG":
                return max(end for _, end in _jpeg_parts(content))
            case "GIF":
                return _gif(content)
            case "BMP":
                return _bmp(content)
    return None


def damaged_chunk(content: bytes) -> str | None:
    """Return the name of the first damaged chunk of a PNG that has an end, or `None`."""
    # Pillow's verify() takes six times as long for digits, and overlooks the last chunk.
    bad = (kind for kind, data, checksum in _png_chunks(content) if zlib.crc32(data) != checksum)
    return next((kind.decode("ascii", "backslashreplace") for kind in bad), None)


def has_all_rows(content: bytes) -> bool:
    """Return whether the compressed data of a PNG that has an end is whole and has all rows."""
    width, height, depth, colors, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colors]
    expected = 0
    for x, y, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // right), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + -(-columns * bits // 8))  # each row after its filter
    inflate = zlib.decompressobj()
    found = 0
    for kind, data, _ in _png_chunks(content):
        if kind == b"IDAT" and found <= expected:  # decoders read no more
            found += len(inflate.decompress(data[4:], expected + 1 - found))
    return found > expected or (inflate.eof and found == expected)


def end_of_scans(content: bytes) -> int:
    """Return where the data of the last scan ends, of a JPEG that has an end."""
    stop = max((end for marker, end in _jpeg_parts(content) if marker == 0xDA), default=2)
    while True:
        if content[stop - 1] == 0xFF:  # a fill byte
            stop -= 1
        elif content[stop - 2] == 0xFF and content[stop - 1] in _RESTARTS:  # of nothing
            stop -= 2
        else:
            return stop


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Yield the type of each chunk, its type and data as one, and their stored checksum."""
    view, position, kind = memoryview(content), 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, position)
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        yield kind, view[position + 4 : position + 8 + length], checksum
        position += 12 + length


def _jpeg_parts(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker of the image, and where its part ends."""
    position, marker = 2, 0
    while marker != 0xD9:
        if content[position] != 0xFF or content[position + 1] == 0xFF:  # a fill byte
            position += 1
            continue
        marker = content[position + 1]
        position += 2
        if marker not in (0x01, *range(0xD0, 0xDA)):  # these stand alone
            (length,) = struct.unpack_from(">H", content, position)
            position += length
        if marker == 0xDA:
            following = _MARKER.search(content, position)
            position = following.start() if following else len(content)
        yield marker, position


def _gif(content: bytes) -> int | None:
    position = 13 + _colors(content[10])
    while (block := content[position]) != 0x3B:
        if block == 0x21:  # an extension and its label
            position += 2
        elif block == 0x2C:  # an image: place, size, own colors, code size
            position += 11 + _colors(content[position + 9])
        else:
            return None
        while length := content[position]:
            position += 1 + length
        position += 1
    return position + 1


def _colors(flags: int) -> int:
    """Return the size of the color table that the flags declare, in bytes."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(content: bytes) -> int | None:
    (size,) = struct.unpack_from("<I", content, 2)
    if size > len(content):
        return None
    # Some programs write no size, or that of the header alone.
    (pixels,) = struct.unpack_from("<I", content, 10)
    return size if size > pixels else len(content)
