"""Labelled images in memory: what every source and every folder gives."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


class DataError(ValueError):
    """The data cannot be used. The message names the file or the folder."""


@dataclass(frozen=True)
class LabeledImages:
    """Images of one size with their classes.

    Attributes:
        name: What the images are called in tables, e.g. `"MNIST t10k"`.
        images: Array of shape `(n, height, width, channels)`; `uint8`, or `float32` in
            0…255 where images had to be resized.
        labels: `int64` array of shape `(n,)`, indices into `class_names`.
        class_names: One name a class.
        digests: One content hash an image, shape `(n,)`.
        file_paths: Where each image was read from; empty for images that are in no file.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    digests: np.ndarray
    file_paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | np.ndarray) -> "LabeledImages":
        """Return the images at `indices`, in that order."""
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            digests=self.digests[indices],
            file_paths=tuple(self.file_paths[i] for i in indices) if self.file_paths else (),
        )

    def canonical(self) -> "LabeledImages":
        """Return the images sorted by class and content.

        What is drawn from this order depends on the pixels alone, not on file names
        nor on the order in which a file system lists them.
        """
        return self.take(self.canonical_order)

    @property
    def canonical_order(self) -> np.ndarray:
        """Indices that sort the images by class and content."""
        return np.lexsort((self.digests, self.labels))

    @property
    def fingerprint(self) -> str:
        """Hash of all images and labels, whatever their order or file names."""
        order = self.canonical_order
        state = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        state.update(self.labels[order].astype("<i8").tobytes())
        state.update(self.digests[order].tobytes())
        return state.hexdigest()[:16]


def label(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    file_paths: Sequence[str] = (),
) -> LabeledImages:
    """Return `LabeledImages` of these arrays, with the content hash of each image."""
    digests = [hashlib.sha256(image.tobytes()).hexdigest()[:32] for image in images]
    return LabeledImages(
        name,
        images,
        labels.astype(np.int64),
        tuple(class_names),
        np.array(digests, dtype="U32"),
        tuple(file_paths),
    )
