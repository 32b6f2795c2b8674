"""One pass over the files of a folder: their images, hashes and looks, and what is wrong."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL

from mnist_keras._foundations.files import escaped
from mnist_keras.datasets.image_folder import cache as user_cache
from mnist_keras.datasets.image_folder import oddities as contents
from mnist_keras.datasets.image_folder.decoding import (
    CHANNELS,
    BadImageError,
    ColorMode,
    Interpolation,
    decode,
    read_file,
    resize,
)
from mnist_keras.datasets.image_folder.findings import Finding
from mnist_keras.datasets.image_folder.oddities import Contents, Looks, look
from mnist_keras.datasets.image_folder.truncation import format_of
from mnist_keras.datasets.image_folder.walk import Folder
from mnist_keras.datasets.images import (
    FINGERPRINT,
    DataError,
    Images,
    LazyImages,
    image_fingerprint,
)

# Part of the name under which an audit is remembered: another set of rules, another name.
_RULES = 1
# Images up to so many bytes are held in memory, more on the disk.
_MEMORY_BYTES = 2**30
# Images are looked at so many at a time, or fewer if they are large.
_CHUNK, _CHUNK_BYTES = 256, 2**24
# Ratio of the sides' ratios from which an image counts as stretched.
_STRETCHED = 1.25
_EXTENSIONS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "GIF": (".gif",), "BMP": (".bmp",)}

Cache = Literal["memory", "disk", "none"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageForm:
    """What every image is brought to.

    Attributes:
        color_mode: `"grayscale"`, `"rgb"` or `"rgba"`.
        image_size: Height and width in pixels.
        interpolation: `"bilinear"` or `"nearest"`, for images of another size.
    """

    color_mode: ColorMode = "rgb"
    image_size: tuple[int, int] = (28, 28)
    interpolation: Interpolation = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return (*self.image_size, CHANNELS[self.color_mode])


AS_THE_ORIGINAL = ImageForm()


class Reading:
    """One pass over files: their images, hashes and looks, and what is wrong with each.

    Attributes:
        files: Those to train on, then those held out.
        readable: Of each file, whether it holds an image that can be used.
        fingerprints: Of each file, the hash of its image.
        done: Whether the files were read at all.
    """

    def __init__(
        self,
        root: Path,
        training: Folder,
        heldout: Folder | None,
        form: ImageForm,
        cache: Cache | None,
        progress: Progress | None,
    ):
        self.root, self.form = root, form
        self.files = (*training.files, *(heldout.files if heldout else ()))
        self.class_names, self.trained = training.class_names, len(training.files)
        self.progress = progress or (lambda done, total: None)
        self.readable = np.zeros(len(self.files), bool)
        self.fingerprints = np.zeros(len(self.files), FINGERPRINT)
        decides = (_RULES, PIL.__version__, form, self.class_names, self.trained)
        self.name = user_cache.key(
            [*decides, *((f.path, f.label, f.size, f.changed) for f in self.files)]
        )
        self.cache = cache or self._by_size()
        self._pixels: np.ndarray | None = None
        self._recalled = False
        self.done = False
        self._dtype = np.dtype(np.uint8)

    def _by_size(self) -> Cache:
        size = len(self.files) * int(np.prod(self.form.shape))
        return "memory" if size <= _MEMORY_BYTES else "disk"

    def findings(self) -> list[Finding]:
        """Read all files and return what is found of them, alone and together."""
        self.done = True
        if not self.files:
            return []
        found = self._recall()
        if found is None:
            try:
                found, looks, encodings = self._read_all()
            except BaseException:
                _discard(self._pixels)
                raise
            kept = np.flatnonzero(self.readable)
            if len(kept):
                found += contents.findings(
                    Contents(
                        paths=[self.files[i].path for i in kept.tolist()],
                        class_names=self.class_names,
                        labels=np.array([self.files[i].label for i in kept.tolist()]),
                        heldout=kept >= self.trained,
                        fingerprints=self.fingerprints[kept],
                        looks=Looks.joined(looks),
                        encodings=encodings,
                        read=lambda positions: self._rows(kept[positions]),
                    )
                )
            self._keep(found)
        return found

    def _read_all(self) -> tuple[list[Finding], list[Looks], dict[str, list[str]]]:
        found: list[Finding] = []
        looks: list[Looks] = []
        encodings: dict[str, list[str]] = {"type": [], "size": []}
        step = max(1, min(_CHUNK, _CHUNK_BYTES // int(np.prod(self.form.shape))))
        for start in range(0, len(self.files), step):
            images = []
            for index in range(start, min(start + step, len(self.files))):
                image = self._read_one(index, found, encodings)
                if image is not None:
                    self.readable[index] = True
                    self.fingerprints[index] = image_fingerprint(image)
                    images.append(image)
            if images:
                chunk = np.stack(images)
                looks.append(look(chunk))
                self._put(start + np.flatnonzero(self.readable[start : start + step]), chunk)
            self.progress(min(start + step, len(self.files)), len(self.files))
        return found, looks, encodings

    def _read_one(
        self, index: int, found: list[Finding], encodings: dict[str, list[str]]
    ) -> np.ndarray | None:
        path = self.files[index].path
        own: list[Finding] = []

        def remark(kind: str, reason: str = "") -> None:
            own.append(Finding(kind, path, reason))

        try:
            content = read_file(os.path.join(self.root, path))
            image = decode(content, self.form.color_mode, remark)
        except BadImageError as error:
            found.append(Finding(error.kind, path, str(error)))
            return None
        kind = str(format_of(content))
        if os.path.splitext(path)[1].lower() not in _EXTENSIONS[kind]:
            remark("mislabeled", f"holds a {kind}")
        height, width, _ = image.shape
        encodings["type"].append(kind)
        encodings["size"].append(sys.intern(f"{width}×{height}"))
        if (height, width) != tuple(self.form.image_size):
            ratio = width * self.form.image_size[0] / (height * self.form.image_size[1])
            kind = "resized" if 1 / _STRETCHED <= ratio <= _STRETCHED else "stretched"
            to_height, to_width = self.form.image_size
            remark(kind, f"{kind}: {width}×{height} to {to_width}×{to_height} pixels")
        found += own
        return resize(image, self.form.image_size, self.form.interpolation)

    def _put(self, positions: np.ndarray, images: np.ndarray) -> None:
        """Store images; one that is not of whole levels makes all of them float32."""
        dtype = np.result_type(self._dtype, images.dtype)
        if self.cache == "none":
            self._dtype = dtype
            return
        if self._pixels is None or dtype != self._dtype:
            before, self._dtype = self._pixels, dtype
            self._pixels = self._allocate()
            if before is not None and self._pixels is not None:
                self._pixels[: positions[0]] = before[: positions[0]]
            _discard(before)
        if self._pixels is not None:
            self._pixels[positions] = images

    def _allocate(self) -> np.ndarray | None:
        """Return room for all images, in the cache folder so that the next run finds them."""
        shape = (len(self.files), *self.form.shape)
        try:
            return user_cache.new_array(self.name, shape, self._dtype)
        except OSError:
            if self.cache == "memory":
                return np.zeros(shape, self._dtype)
            self.cache = "none"
            return None

    def _recall(self) -> list[Finding] | None:
        """Take what is remembered of these very files, if anything is."""
        known = user_cache.remembered(self.name)
        if known is None or set(known) != {"readable", "fingerprints", "dtype", "findings"}:
            return None
        dtype, pixels = np.dtype(str(known["dtype"])), None
        if self.cache != "none" and known["readable"].any():
            pixels = user_cache.kept_array(self.name)
            if pixels is None or pixels.shape != (len(self.files), *self.form.shape):
                return None
        self.readable, self.fingerprints = known["readable"], known["fingerprints"]
        self._dtype, self._pixels, self._recalled = dtype, pixels, True
        return [Finding(*words) for words in json.loads(str(known["findings"]))]

    def _keep(self, found: Sequence[Finding]) -> None:
        if any(finding.kind == "unreadable_file" for finding in found):
            return  # another day it may be readable
        if isinstance(self._pixels, np.memmap):
            user_cache.keep_array(self.name, self._pixels)
        arrays: dict[str, Any] = {
            "readable": self.readable,
            "fingerprints": self.fingerprints,
            "dtype": np.array(self._dtype.name),
            "findings": np.array(json.dumps([(f.kind, f.path, f.reason) for f in found])),
        }
        user_cache.remember(self.name, arrays)

    def images(self, chosen: np.ndarray) -> Images:
        """Return the images of the chosen files, in memory or to be read when they are needed."""
        if self.cache == "memory":
            return self._rows(chosen)
        every = LazyImages(self._rows, (len(self.files), *self.form.shape), self._dtype)
        return every.take(chosen)

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the images of some files, from where they are kept or from the files."""
        if self._pixels is not None and not self._recalled:
            return np.asarray(self._pixels)[positions]
        images = np.empty((len(positions), *self.form.shape), self._dtype)
        for row, position in enumerate(positions.tolist()):
            if self._pixels is not None:
                images[row] = self._pixels[position]
            if (
                self._pixels is None
                or image_fingerprint(images[row]).encode() != self.fingerprints[position]
            ):
                images[row] = self._again(position)
        return images

    def _again(self, position: int) -> np.ndarray:
        path = os.path.join(self.root, self.files[position].path)
        try:
            image = decode(read_file(path), self.form.color_mode)
        except BadImageError as error:
            raise DataError(f"{escaped(path)}: changed since it was audited") from error
        image = resize(image, self.form.image_size, self.form.interpolation)
        if image_fingerprint(image).encode() != self.fingerprints[position]:
            raise DataError(f"{escaped(path)}: changed since it was audited")
        return image


def _discard(array: np.ndarray | None) -> None:
    if isinstance(array, np.memmap):
        Path(str(array.filename)).unlink(missing_ok=True)
