"""Where the images of a folder are kept: in memory, on the disk, or nowhere."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from mnist_keras.datasets.choices import Cache
from mnist_keras.datasets.image_folder import cache as user_cache
from mnist_keras.datasets.image_folder.findings import Finding
from mnist_keras.datasets.images import FINGERPRINT, Images, LazyImages, image_fingerprint

# Up to this many bytes, images are kept in memory by default; more are kept on the disk.
_MEMORY_BYTES = 2**30


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

    Attributes:
        fingerprints: Of each file, the hash of its image; empty if it has none.
        dtype: `uint8`, or `float32` if an image has levels that are not whole.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        cache: Cache | None,
        again: Callable[[int, bytes], np.ndarray],
    ):
        self.name, self.shape = name, shape
        self.cache = cache or ("memory" if math.prod(shape) <= _MEMORY_BYTES else "disk")
        self.fingerprints = np.zeros(shape[0], FINGERPRINT)
        self.dtype: np.dtype = np.dtype(np.uint8)
        self._again = again
        self._pixels: np.ndarray | None = None
        self._recalled = False

    @property
    def readable(self) -> np.ndarray:
        """Of each file, whether it holds an image that can be used."""
        return np.not_equal(self.fingerprints, b"")

    def put(self, positions: np.ndarray, images: np.ndarray) -> None:
        """Keep images; one with levels that are not whole makes all of them `float32`."""
        before, self.dtype = self._pixels, np.result_type(self.dtype, images.dtype)
        if self.cache != "none" and (before is None or before.dtype != self.dtype):
            self._pixels = self._allocate()
            if before is not None and self._pixels is not None:
                end = 1 + np.flatnonzero(self.readable)[-1]
                self._pixels[:end] = before[:end]
            _unlink(before)
        if self._pixels is not None:
            self._pixels[positions] = images
        self.fingerprints[positions] = [image_fingerprint(image) for image in images]

    def _allocate(self) -> np.ndarray | None:
        try:
            return user_cache.new_array(self.name, self.shape, self.dtype)
        except OSError:
            if self.cache == "memory":
                return np.zeros(self.shape, self.dtype)
            self.cache = "none"
            return None

    def images(self, chosen: np.ndarray) -> Images:
        """Return the images at some positions, in memory or to be read when they are needed."""
        return self.rows(chosen) if self.cache == "memory" else self.lazy(chosen)

    def lazy(self, chosen: np.ndarray) -> LazyImages:
        """Return the images at some positions, to be read when they are needed."""
        return LazyImages(self.rows, self.shape, self.dtype, chosen)

    def rows(self, positions: np.ndarray) -> np.ndarray:
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

    def recall(self) -> list[Finding] | None:
        """Take the images remembered under this name, and return the findings; `None` if none."""
        known = user_cache.remembered(self.name)
        if known is None or set(known) != {"fingerprints", "dtype", "findings"}:
            return None
        pixels = None
        if self.cache != "none" and known["fingerprints"].any():
            pixels = user_cache.kept_array(self.name)
            if pixels is None or pixels.shape != self.shape:
                return None
        self.fingerprints, self.dtype = known["fingerprints"], np.dtype(str(known["dtype"]))
        self._pixels, self._recalled = pixels, True
        return [Finding(*words) for words in json.loads(str(known["findings"]))]

    def remember(self, found: Sequence[Finding]) -> None:
        """Keep the images and these findings for the next run."""
        if isinstance(self._pixels, np.memmap):
            user_cache.keep_array(self.name, self._pixels)
        words = json.dumps([(f.kind, f.path, f.reason) for f in found])
        arrays = {"dtype": np.array(self.dtype.name), "findings": np.array(words)}
        user_cache.remember(self.name, arrays | {"fingerprints": self.fingerprints})

    def forget(self) -> None:
        """Leave no file for the next run; what is mapped into memory can still be read."""
        _unlink(self._pixels)


def _unlink(array: np.ndarray | None) -> None:
    if isinstance(array, np.memmap):
        with suppress(OSError):
            Path(str(array.filename)).unlink()
