"""One pass over the files of a folder: their images, and what is wrong with them."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL

from mnist_keras._foundations.files import escaped
from mnist_keras._foundations.hashing import fingerprint_of_bytes
from mnist_keras.datasets.choices import Aspect, Cache, ColorMode, Interpolation
from mnist_keras.datasets.image_folder import decoding, oddities, resizing
from mnist_keras.datasets.image_folder.decoding import (
    BadImageError,
    Remark,
    decode,
    read_file,
    say_nothing,
)
from mnist_keras.datasets.image_folder.findings import Finding
from mnist_keras.datasets.image_folder.image_store import ImageStore
from mnist_keras.datasets.image_folder.truncation import format_of
from mnist_keras.datasets.image_folder.walk import Folder, ImageFile
from mnist_keras.datasets.images import DataError, LabeledImages, image_fingerprint

# Part of the name under which an audit is remembered: another set of rules, another name.
_RULES = 3
# Images are looked at in chunks of this many, or fewer if they are large.
_CHUNK, _CHUNK_BYTES = 256, 2**24
# Ratio of the aspect ratios from which an image counts as stretched.
_STRETCHED = 1.25

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageForm:
    """What every image is brought to."""

    color_mode: ColorMode = "rgb"
    image_size: tuple[int, int] = (28, 28)  # height and width in pixels
    interpolation: Interpolation = "bilinear"  # for images of another size
    aspect: Aspect = "stretch"  # what becomes of another ratio of height and width
    keep: bool = False  # whether images and classes are taken that only Keras takes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return (*self.image_size, decoding.CHANNELS[self.color_mode])

    def bring(self, image: np.ndarray, remark: Remark = say_nothing) -> np.ndarray:
        """Return an image in this size; another form may do more, or refuse it."""
        return self.resized(image)

    def resized(self, image: np.ndarray) -> np.ndarray:
        """Return an image in this size."""
        return resizing.fit(image, self.image_size, self.interpolation, self.aspect)


AS_THE_ORIGINAL = ImageForm()


def read_files(
    root: Path,
    training: Folder,
    files: Sequence[ImageFile],
    form: ImageForm,
    cache: Cache | None,
    progress: Progress | None,
) -> tuple[ImageStore, list[Finding]]:
    """Return the images of all files and what was found of them, read or remembered.

    The first of the files are those of `training`; the other arguments are those of `audit`.
    """
    # No times: file systems may keep whole seconds, or one time for all files.
    decides = (_RULES, PIL.__version__, form, training.class_names, len(training.files), *files)
    name = fingerprint_of_bytes((repr(part).encode() for part in decides), digits=32)

    def again(position: int, fingerprint: bytes) -> np.ndarray:
        path = os.path.join(root, files[position].path)
        with suppress(BadImageError):
            image = form.bring(decode(read_file(path), form.color_mode, keep=form.keep))
            if image_fingerprint(image).encode() == fingerprint:
                return image
        raise DataError(f"{escaped(path)}: changed since it was audited")

    store = ImageStore(name, (len(files), *form.shape), cache, again)
    found = store.recall(partial(_contents, root, files, progress)) if files else []
    if found is None:
        try:
            found, contents = _read_all(root, training, files, form, store, progress)
        except BaseException:
            store.forget()
            raise
        if any(finding.kind == "unreadable_file" for finding in found):
            store.forget()  # another day the file may be readable
        else:
            store.remember(found, contents)
    return store, found


def _contents(root: Path, files: Sequence[ImageFile], progress: Progress | None) -> str:
    """Return the hash of the contents of all files."""
    found = []
    for number, file in enumerate(files, 1):
        with suppress(BadImageError):
            found.append(_digest(read_file(os.path.join(root, file.path))))
        if progress and (number % _CHUNK == 0 or number == len(files)):
            progress(number, len(files))
    return fingerprint_of_bytes(found)


def _digest(content: bytes) -> bytes:
    return fingerprint_of_bytes([content], digits=32).encode()


def _read_all(
    root: Path,
    training: Folder,
    files: Sequence[ImageFile],
    form: ImageForm,
    store: ImageStore,
    progress: Progress | None,
) -> tuple[list[Finding], str]:
    """Put all images into the store. Return what is found of them, and the hash of all contents."""
    found: list[Finding] = []
    digests: list[bytes] = []
    looks: list[oddities.Looks] = []
    encodings: list[tuple[str, str]] = []
    step = max(1, min(_CHUNK, _CHUNK_BYTES // math.prod(form.shape)))
    for start in range(0, len(files), step):
        good = {}
        for position, file in enumerate(files[start : start + step], start):
            own, image, encoding = _read_one(root, file.path, form, digests)
            found += own
            if image is not None:
                good[position] = image
                encodings.append(encoding)
        if good:
            chunk = np.stack([*good.values()])
            looks.append(oddities.look(chunk))
            store.put(np.array([*good]), chunk)
        if progress:
            progress(min(start + step, len(files)), len(files))
    kept = np.flatnonzero(store.readable)
    contents = fingerprint_of_bytes(digests)
    if not len(kept):
        return found, contents
    images = LabeledImages(
        name="",
        images=store.lazy(kept),
        labels=np.array([files[i].label for i in kept.tolist()]),
        class_names=training.class_names,
        fingerprints=store.fingerprints[kept],
        file_paths=tuple(files[i].path for i in kept.tolist()),
    )
    traits = dict(zip(("type", "size"), zip(*encodings, strict=True), strict=True))
    heldout = kept >= len(training.files)
    together = oddities.findings(images, heldout, oddities.joined(looks), traits)
    return [*found, *together], contents


def _read_one(
    root: Path, path: str, form: ImageForm, digests: list[bytes]
) -> tuple[list[Finding], np.ndarray | None, tuple[str, str]]:
    """Return the findings of a file and, if it can be used, its image, and its type and size.

    The hash of its content is put behind `digests`.
    """
    found: list[Finding] = []

    def remark(kind: str, reason: str = "") -> None:
        found.append(Finding(kind, path, reason))

    try:
        content = read_file(os.path.join(root, path))
        digests.append(_digest(content))
        image = decode(content, form.color_mode, remark, form.keep)
        brought = form.bring(image, remark)
    except BadImageError as error:
        return [Finding(error.kind, path, str(error))], None, ("", "")
    type = str(format_of(content))
    if os.path.splitext(path)[1].lower() not in decoding.FORMATS[type]:
        remark("mislabeled", f"holds a {type}")
    height, width, _ = image.shape
    to_height, to_width = form.image_size
    if (height, width) != (to_height, to_width):
        ratio = width * to_height / (height * to_width)
        stretched = form.aspect == "stretch" and not 1 / _STRETCHED <= ratio <= _STRETCHED
        kind = "stretched" if stretched else "resized"
        remark(kind, f"{kind}: {width}×{height} to {to_width}×{to_height} pixels")
    return found, brought, (type, sys.intern(f"{width}×{height}"))
