"""Where the images of a folder are kept: in memory, in the user's cache folder, or nowhere."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from mnist_keras._foundations.files import FileError, whole
from mnist_keras.datasets.choices import Cache
from mnist_keras.datasets.image_folder.findings import Finding
from mnist_keras.datasets.images import FINGERPRINT, Images, LazyImages, image_fingerprint

# Up to this many bytes, as `float32`, images are kept in memory by default, others on the disk.
_MEMORY_BYTES = 2**30
_KEPT_SECONDS = 30 * 24 * 3600


def cache_folder() -> Path:
    """Return the folder of remembered audits, which may be deleted at any time."""
    return user_cache_path("mnist-keras", appauthor=False)


class ImageStore:
    """The images of files, by the positions of the files, and what is remembered of them.

    Images are written into the user's cache folder, where the next run finds them. Where that
    fails, `"memory"` keeps them in memory alone and `"disk"` becomes `"none"`.

    Args:
        name: Of what is remembered; another name for other files and other rules.
        shape: `(n, height, width, channels)` of the images of all files.
        cache: `"memory"`, `"disk"` or `"none"`; by default memory up to 1 GiB, then the disk.
        again: Called with a position and a fingerprint for an image that is not kept, or whose
            kept copy is damaged. Returns the image, or raises if its fingerprint differs.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        cache: Cache | None,
        again: Callable[[int, bytes], np.ndarray],
    ):
        self.shape = shape
        self.cache = cache or ("memory" if 4 * math.prod(shape) <= _MEMORY_BYTES else "disk")
        self.fingerprints = np.zeros(shape[0], FINGERPRINT)  # empty for files without an image
        self.dtype: np.dtype = np.dtype(np.uint8)
        self._again = again
        self._info, self._array = (cache_folder() / f"{name}.{ending}" for ending in ("npz", "npy"))
        self._pixels: np.ndarray | None = None
        self._recalled = False

    @property
    def readable(self) -> np.ndarray:
        """Of each file, whether it holds an image that can be used."""
        return np.not_equal(self.fingerprints, b"")

    def put(self, positions: np.ndarray, images: np.ndarray) -> None:
        """Keep images behind those that are kept; one with broken levels makes all `float32`."""
        before, self.dtype = self._pixels, np.result_type(self.dtype, images.dtype)
        if self.cache != "none" and (before is None or before.dtype != self.dtype):
            self.forget()
            self._pixels = self._allocate()
            if before is not None and self._pixels is not None:
                self._pixels[: positions[0]] = before[: positions[0]]
        if self._pixels is not None:
            self._pixels[positions] = images
        self.fingerprints[positions] = [image_fingerprint(image) for image in images]

    def _allocate(self) -> np.ndarray | None:
        """Return an array in a file of this process, until `remember` names it, or in memory."""
        path = self._array.with_name(f".{self._array.stem}.{self.dtype}.{os.getpid()}.npy")
        try:
            _prepare()
            needed = math.prod(self.shape) * self.dtype.itemsize + 2**28
            if shutil.disk_usage(path.parent).free < needed:
                raise OSError("too little space")
            array = np.lib.format.open_memmap(path, "w+", self.dtype, self.shape)
            if hasattr(os, "posix_fallocate"):  # a disk that fills up later would kill the process
                with open(path, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            return array
        except OSError:
            if self.cache == "memory":
                return np.zeros(self.shape, self.dtype)
            self.cache = "none"
            return None

    def images(self, chosen: np.ndarray) -> Images:
        """Return the images at some positions, in memory or to be read when they are needed."""
        return self._rows(chosen) if self.cache == "memory" else self.lazy(chosen)

    def lazy(self, chosen: np.ndarray) -> LazyImages:
        """Return the images at some positions, to be read when they are needed."""
        return LazyImages(self._rows, self.shape, self.dtype, chosen)

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the images at some positions, from where they are kept or from the files."""
        if self._pixels is not None and not self._recalled:
            kept: np.ndarray = np.asarray(self._pixels)[positions]
            return kept
        images = np.empty((len(positions), *self.shape[1:]), self.dtype)
        for row, position in enumerate(positions.tolist()):
            fingerprint = self.fingerprints[position]
            if self._pixels is not None:
                images[row] = self._pixels[position]
            if self._pixels is None or image_fingerprint(images[row]).encode() != fingerprint:
                images[row] = self._again(position, fingerprint)
        return images

    def recall(self, contents: Callable[[], str]) -> list[Finding] | None:
        """Take the images remembered under this name, and return the findings.

        `None` if there are none, or if those remembered have not the hash of `contents()`.
        """
        with suppress(Exception):  # on damaged files, NumPy and zipfile raise almost anything
            os.utime(self._info)
            with open(self._info, "rb") as file, np.load(file, allow_pickle=False) as info:
                fingerprints, dtype = info["fingerprints"], np.dtype(str(info["dtype"]))
                found = [Finding(*words) for words in json.loads(str(info["findings"]))]
                remembered = str(info["contents"])
            if remembered != contents():
                return None
            pixels = None
            if self.cache != "none" and (fingerprints != b"").any():
                os.utime(self._array)
                pixels = np.load(self._array, mmap_mode="r")
                if pixels.shape != self.shape:
                    return None
            self.fingerprints, self.dtype = fingerprints, dtype
            self._pixels, self._recalled = pixels, True
            return found
        return None

    def remember(self, found: Iterable[Finding], contents: str) -> None:
        """Keep the images and findings of these contents, if the cache folder can be written."""
        words = json.dumps([(f.kind, f.path, f.reason) for f in found])
        with suppress(OSError, FileError):
            _prepare()
            if isinstance(self._pixels, np.memmap):
                self._pixels.flush()
                os.replace(str(self._pixels.filename), self._array)
            with whole(self._info) as unfinished:
                np.savez(
                    unfinished,
                    fingerprints=self.fingerprints,
                    dtype=np.array(self.dtype.name),
                    findings=np.array(words),
                    contents=np.array(contents),
                )

    def forget(self) -> None:
        """Leave no file for the next run; what is mapped into memory can still be read."""
        if isinstance(self._pixels, np.memmap):
            with suppress(OSError):
                os.unlink(str(self._pixels.filename))


def _prepare() -> None:
    """Make the folder, and remove files that were not used for a month."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    for path in cache_folder().iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                path.unlink()
