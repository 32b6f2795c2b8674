"""The IDX files of LeCun's page: a big-endian header, then bytes."""

import gzip
import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from mnist_keras._foundations.files import reason
from mnist_keras.datasets.images import DataError

# By part: the names of images and labels.
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "t10k": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# What else has to be done to the files of other sets.
_BESIDES = {
    "emnist": "; swap rows and columns of EMNIST's images",
    "qmnist": "; of QMNIST's labels, keep the first column",
}

_CHUNK = 2**24  # bytes to read at a time


def read_idx(path: Path) -> np.ndarray:
    """Return the array of an IDX file, gzipped or not.

    The header is two zero bytes, the type `0x08` for unsigned bytes, the number of dimensions, and
    each dimension as a big-endian 32-bit integer.
    """
    try:
        with path.open("rb") as file:
            if file.peek(2)[:2] == b"\x1f\x8b":
                with gzip.open(file) as unpacked:
                    return _read(path, unpacked)
            return _read(path, file)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error


def _read(path: Path, file: IO[bytes] | gzip.GzipFile) -> np.ndarray:
    """Return the array of an open IDX file, of which no more is read than its header says."""
    start = file.read(4)
    if len(start) < 4 or start[:3] != b"\x00\x00\x08":
        raise DataError(f"{path}: not an IDX file of bytes (it starts with {start.hex(' ')})")
    rank = start[3]
    header = file.read(4 * rank)
    if len(header) < 4 * rank:
        raise DataError(f"{path}: the IDX header is truncated")
    shape = struct.unpack(f">{rank}I", header)
    size, content = math.prod(shape), bytearray()
    while len(content) <= size and (more := file.read(min(size + 1 - len(content), _CHUNK))):
        content += more
    if len(content) != size:
        held = f"{len(content)}" if len(content) < size else "more"
        raise DataError(
            f"{path}: the IDX header promises {'×'.join(map(str, shape))} = {size} "
            f"bytes, the file holds {held}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_folder(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images and labels of each part, `"train"` and `"t10k"`, that a folder has."""
    if not folder.is_dir():
        what = what_is(folder.name) if folder.is_file() else ""
        raise DataError(f"{folder}: no such folder of IDX files{what and f'; it is {what}'}")
    parts = {}
    for part, names in FILES.items():
        files = {name: file for name in names if (file := _find(folder, name))}
        if not files:
            continue
        if missing := [name for name in names if name not in files]:
            raise DataError(f"{folder}: {missing[0]} is missing")
        images_file, labels_file = files.values()
        images, labels = read_idx(images_file), read_idx(labels_file)
        if images.ndim != 3:
            raise DataError(f"{images_file}: expected n×height×width. Received: {images.shape}")
        if labels.shape != images.shape[:1]:
            raise DataError(f"{labels_file}: {labels.shape} labels for {len(images)} images")
        parts[part] = images, labels
    if not parts:
        expected = " or ".join(names[0] for names in FILES.values())
        others = [name for name in sorted(os.listdir(folder)) if what_is(name)]
        found = f"; {others[0]}: {what_is(others[0])}" if others else ""
        raise DataError(f"{folder}: no IDX files ({expected}, gzipped or not){found}")
    return parts


def what_is(name: str) -> str:
    """Return what an IDX file is, by its name, and what to do with it; empty for other names."""
    name = name.lower()
    if not re.search(r"(images|labels)[-_.]idx\d[-_a-z]*(\.gz)?$", name):
        return ""
    if name.startswith(("train-", "t10k-")):
        return "an IDX file; name its folder"
    ours = "call images and labels train-images-idx3-ubyte and train-labels-idx1-ubyte, or t10k-…"
    return f"an IDX file of another name; {ours}{_BESIDES.get(name.partition('-')[0], '')}"


def lies_in(folder: Path) -> bool:
    """Return whether a folder has an IDX file of one of the known names."""
    return any(_find(folder, name) for names in FILES.values() for name in names)


def _find(folder: Path, name: str) -> Path | None:
    """Return the file of this name: as published, with a dot before `idx`, or gzipped."""
    names = (name, name.replace("-idx", ".idx"))
    files = (folder / f"{stem}{ending}" for stem in names for ending in ("", ".gz"))
    return next(filter(os.path.isfile, files), None)
