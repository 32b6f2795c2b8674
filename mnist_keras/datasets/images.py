"""Labeled images: what every source and every folder gives."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mnist_keras._foundations.hashing import fingerprint_of_bytes


class DataError(ValueError):
    """The data cannot be used. The message names the file or the folder."""


class LazyImages:
    """Images that are read when they are asked for; indexed by rows as an array is.

    Args:
        read: Takes an array of positions and returns their images, in that order.
        shape: `(n, height, width, channels)` of all images that `read` knows.
        dtype: Type of the array that `read` returns.
        positions: Those of these images, in this order. Defaults to all.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        positions: np.ndarray | None = None,
    ):
        self._read = read
        self._positions = np.arange(shape[0]) if positions is None else positions
        self.shape = (len(self._positions), *shape[1:])
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> np.ndarray:
        positions = self._positions[index]
        return self._read(positions) if np.ndim(positions) else self._read(positions[None])[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def take(self, indices: Sequence[int] | np.ndarray) -> "LazyImages":
        """Return the images at `indices`, still unread."""
        chosen = self._positions[np.asarray(indices, np.int64)]
        return LazyImages(self._read, self.shape, self.dtype, chosen)


Images = np.ndarray | LazyImages


def joined(first: Images, second: Images) -> Images:
    """Return the first images and the second after them; unread if either part is unread."""
    if not len(second):
        return first
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second])
    dtype = np.result_type(first.dtype, second.dtype)

    def read(positions: np.ndarray) -> np.ndarray:
        images = np.empty((len(positions), *first.shape[1:]), dtype)
        early = positions < len(first)
        images[early] = first[positions[early]]
        images[~early] = second[positions[~early] - len(first)]
        return images

    return LazyImages(read, (len(first) + len(second), *first.shape[1:]), dtype)


def channels_first(images: Images) -> Images:
    """Return images of shape `(n, channels, height, width)`; unread if they were unread."""
    if isinstance(images, np.ndarray):
        return np.moveaxis(images, -1, 1)
    shape = (len(images), images.shape[3], *images.shape[1:3])
    return LazyImages(lambda rows: np.moveaxis(images[rows], -1, 1), shape, images.dtype)


def scaled(images: Images) -> np.ndarray:
    """Return levels in 0…255 as `float32` in 0…1, which the models of this package take."""
    return images[:].astype(np.float32) / 255


@dataclass(frozen=True)
class LabeledImages:
    """Images of one size with their classes.

    Attributes:
        name: What the images are called in tables, e.g. `"MNIST t10k"`.
        images: Array of shape `(n, height, width, channels)`, or `LazyImages` of that shape;
            `uint8`, or `float32` in 0…255 where images had to be resized.
        labels: `int64` array of shape `(n,)`, indices into `class_names`.
        class_names: Name of each class.
        fingerprints: `image_fingerprint` of each image, shape `(n,)`.
        file_paths: Where each image was read from; empty for images that are not in files.
    """

    name: str
    images: Images
    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprints: np.ndarray
    file_paths: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        file_paths: Sequence[str] = (),
    ) -> "LabeledImages":
        """Return arrays as labeled images, with the fingerprint of each image."""
        fingerprints = np.array([image_fingerprint(image) for image in images], FINGERPRINT)
        labels = labels.astype(np.int64)
        return cls(name, images, labels, tuple(class_names), fingerprints, tuple(file_paths))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | np.ndarray) -> "LabeledImages":
        """Return the images at `indices`, in that order."""
        lazy = isinstance(self.images, LazyImages)
        return replace(
            self,
            images=self.images.take(indices) if lazy else self.images[indices],
            labels=self.labels[indices],
            fingerprints=self.fingerprints[indices],
            file_paths=tuple(self.file_paths[i] for i in indices) if self.file_paths else (),
        )

    def extended(self, others: "LabeledImages") -> "LabeledImages":
        """Return these images, and after them others of the same classes and size."""
        return replace(
            self,
            images=joined(self.images, others.images),
            labels=np.concatenate([self.labels, others.labels]),
            fingerprints=np.concatenate([self.fingerprints, others.fingerprints]),
            file_paths=(*self.file_paths, *others.file_paths),
        )

    def canonical(self) -> "LabeledImages":
        """Return the images sorted by class and content, so that no draw depends on file names."""
        return self.take(self.canonical_order)

    def sorted_by_content(self) -> "LabeledImages":
        """Return the images sorted by content alone, so that their order reveals no label."""
        return self.take(np.argsort(self.fingerprints, kind="stable"))

    @property
    def canonical_order(self) -> np.ndarray:
        """Indices that sort the images by class and content."""
        return np.lexsort((self.fingerprints, self.labels))

    @property
    def fingerprint(self) -> str:
        """Hash of all images and labels, whatever their order and file names."""
        order = self.canonical_order
        labels = self.labels[order].astype("<i8").tobytes()
        form = repr((self.images.shape, self.class_names)).encode()
        return fingerprint_of_bytes([form, labels, self.fingerprints[order].tobytes()])


FINGERPRINT = np.dtype("S32")


def image_fingerprint(image: np.ndarray) -> str:
    """Return the hash of one image: equal levels have equal hashes, whatever their type."""
    if image.dtype != np.uint8:
        levels = image.astype(np.uint8)
        image = levels if np.array_equal(levels, image) else image
    return fingerprint_of_bytes([np.ascontiguousarray(image).data], digits=32)


def png(image: np.ndarray) -> bytes:
    """Return an 8-bit image of shape `(height, width, channels)` as the bytes of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


# At most this many classes, images of each, and pixels per side of an image.
_CLASSES, _IMAGES, _SIDE = 20, 8, 64


def class_samples(images: LabeledImages) -> dict[str, str]:
    """Return, by class name, its first images side by side, as a PNG file in base64."""
    ordered = images.canonical_order
    samples = {}
    for label in np.unique(images.labels)[:_CLASSES]:
        chosen = ordered[images.labels[ordered] == label][:_IMAGES]
        few = np.rint(images.images[chosen]).astype(np.uint8)
        step = -(-max(few.shape[1:3]) // _SIDE)
        strip = np.concatenate(few[:, ::step, ::step], axis=1)
        samples[images.class_names[label]] = base64.b64encode(png(strip)).decode("ascii")
    return samples
