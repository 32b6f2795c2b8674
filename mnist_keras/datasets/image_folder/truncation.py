"""Where an image file ends, and whether it is whole: decoders do not always check."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

_STARTS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8": "JPEG", b"GIF8": "GIF", b"BM": "BMP"}
# The end of a JPEG's scan: a marker other than a restart, not data (00) or a fill byte (FF).
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
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
                return max(end for *_, end in _jpeg_parts(content))
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


def restarts_in_order(content: bytes) -> bool:
    """Return whether a JPEG that has an end counts its restarts, and has none undeclared.

    Decoders make up the pixels around a restart that is missing, or that they do not expect.
    """
    return all(
        restarts == [n % 8 for n in range(len(restarts))] and (interval or not restarts)
        for _, restarts, interval in _scans(content)
    )


def end_of_scans(content: bytes) -> tuple[int, int]:
    """Return where the data of the last scan of a whole JPEG ends, and the restart to follow."""
    stop, restarts, _ = max(_scans(content), default=(2, [], 0))
    return stop, len(restarts) % 8


def _scans(content: bytes) -> Iterator[tuple[int, list[int], int]]:
    """Yield where the data of each scan ends, its restarts, and after how many units they come."""
    interval = 0
    for marker, start, stop in _jpeg_parts(content):
        if marker == 0xDD:
            (interval,) = struct.unpack_from(">H", content, stop - 2)
        elif marker == 0xDA:
            while content[stop - 1] == 0xFF or _RESTART.fullmatch(content, stop - 2, stop):
                stop -= 1 if content[stop - 1] == 0xFF else 2  # a fill byte, a restart of nothing
            restarts = [found[1] - 0xD0 for found in _RESTART.findall(content, start, stop)]
            yield stop, restarts, interval


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Yield the type of each chunk, its type and data as one, and their stored checksum."""
    view, position, kind = memoryview(content), 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, position)
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        yield kind, view[position + 4 : position + 8 + length], checksum
        position += 12 + length


def _jpeg_parts(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each marker of the image, where its data starts, and where its part ends."""
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
        start = position
        if marker == 0xDA:
            following = _MARKER.search(content, position)
            position = following.start() if following else len(content)
        yield marker, start, position


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
    """Return where the rows end, or what the file declares as its size if that can be true."""
    size: int
    end: int
    size, _, pixels, header = struct.unpack_from("<IIII", content, 2)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<4H", content, 18)
        compression = 0
    else:
        width, height, _, bits, compression, compressed = struct.unpack_from("<iiHHII", content, 18)
    if compression in (1, 2):  # run lengths, of which decoders miss none
        least = pixels + compressed
        end = least if compressed else len(content)
    else:
        row, count = -(-width * bits // 32) * 4, abs(height)
        end = pixels + row * count
        least = end - row + -(-width * bits // 8)  # the last row need not be filled up
    if least > len(content):
        return None
    return size if end <= size <= len(content) else min(end, len(content))
