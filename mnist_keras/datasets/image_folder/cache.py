"""The user's cache folder: what was found before, and the images that were read."""

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from mnist_keras._foundations.files import FileError, whole
from mnist_keras._foundations.hashing import fingerprint_of_bytes

_KEPT_SECONDS = 30 * 24 * 3600


def folder() -> Path:
    """Return the folder of remembered audits, which may be deleted at any time."""
    return user_cache_path("mnist-keras", appauthor=False)


def key(parts: Iterable[object]) -> str:
    """Return a name for what depends on these parts alone."""
    encoded = (f"{part!r}\n".encode("utf-8", "surrogateescape") for part in parts)
    return fingerprint_of_bytes(encoded, digits=32)


def remembered(name: str) -> dict[str, np.ndarray] | None:
    """Return the arrays kept under a name, or `None` if they cannot be read."""
    path = folder() / f"{name}.npz"
    with suppress(Exception):  # on damaged files, NumPy and zipfile raise almost anything
        os.utime(path)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    return None


def remember(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep arrays under a name; if the folder cannot be written, keep nothing."""
    with suppress(OSError, FileError):
        _prepare()
        with whole(folder() / f"{name}.npz") as unfinished:
            np.savez(unfinished, **dict[str, Any](arrays))


def kept_array(name: str) -> np.ndarray | None:
    """Return the array kept under a name, mapped from the disk, or `None` if there is none."""
    path = folder() / f"{name}.npy"
    with suppress(Exception):
        os.utime(path)
        array: np.ndarray = np.load(path, mmap_mode="r")
        return array
    return None


def new_array(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """Return a new array on the disk, in a file of this process until `keep_array` names it.

    Raises:
        OSError: If the folder cannot be written or has too little space.
    """
    _prepare()
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if shutil.disk_usage(folder()).free < size + 2**28:
        raise OSError(28, "too little space", str(folder()))
    path = folder() / f".{name}.{dtype}.{os.getpid()}.npy"
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # a disk that fills up later would kill the process
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def keep_array(name: str, array: np.memmap) -> None:
    """Give an array of `new_array` its name."""
    array.flush()
    os.replace(str(array.filename), folder() / f"{name}.npy")


def _prepare() -> None:
    """Make the folder, and remove files that were not used for a month."""
    folder().mkdir(parents=True, exist_ok=True)
    for path in folder().iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                path.unlink()
