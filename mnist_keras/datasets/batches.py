"""Batches in an order drawn by NumPy: the same for every backend and data format."""

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from mnist_keras._foundations.seeds import generator
from mnist_keras.datasets.augmentation import Warp, warp
from mnist_keras.datasets.images import Images


class Batches(keras.utils.PyDataset):
    """Batches of arrays for `fit`, `evaluate` and `predict`, reshuffled by NumPy in each epoch.

    The order of epoch `k` depends on `(seed, k)` alone. A `for` loop over all batches advances to
    the next epoch, and so does each epoch of a `fit`, which also advances before its first epoch.
    `set_epoch` chooses the epoch. Pass `shuffle=False` to `fit`: otherwise Keras shuffles the
    order of the batches again, with Python's generator.

    Args:
        x: Array of images, or `LazyImages`, shape `(n, ...)`; batches are `float32`.
        y: Array of labels, shape `(n, ...)`, or `None` for batches of images alone.
        batch_size: Images per batch; the last batch may be smaller. `None` gives single images
            and labels, without the first dimension.
        shuffle: Whether to reshuffle in each epoch.
        seed: Integer >= 0.
        class_names: Name of each class; `None` for images without classes.
        file_paths: Where each image of `x` was read from.

    Raises:
        ValueError: If `batch_size` or `seed` is out of range.
    """

    def __init__(
        self,
        x: Images,
        y: np.ndarray | None,
        batch_size: int | None = 100,
        shuffle: bool = True,
        seed: int = 0,
        class_names: Sequence[str] | None = (),
        file_paths: Sequence[str] = (),
    ):
        super().__init__()
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
        self.x, self.y = x, y
        self.batch_size, self.single = batch_size or 1, batch_size is None
        self.shuffle, self.seed = shuffle, seed
        self.class_names = None if class_names is None else list(class_names)
        self.file_paths = list(file_paths)
        self.set_epoch(0)

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        x = self.images_at(chosen)
        batch = x if self.y is None else (x, self.y[chosen])
        return keras.tree.map_structure(lambda array: array[0], batch) if self.single else batch

    def images_at(self, chosen: np.ndarray) -> np.ndarray:
        """Return what a batch holds of the images at these indices of `x`."""
        return self.x[chosen].astype("float32")

    def __iter__(self) -> Iterator[Any]:
        own = copy.copy(self)  # keeps its order, whatever other loops do meanwhile
        for index in range(len(self)):
            batch = own[index]
            if index == len(self) - 1:
                # Before the last batch leaves: callers that count batches do not ask for more.
                self.set_epoch(own.epoch + 1)
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0."""
        self.epoch = epoch
        self.order = np.arange(len(self.x))
        if self.shuffle:
            self.order = generator(self.seed, f"order of epoch {epoch}").permutation(self.order)

    def on_epoch_end(self) -> None:
        """Take the order of the next epoch; Keras calls this."""
        self.set_epoch(self.epoch + 1)


def as_format(batches: Batches, format: str | None) -> Any:
    """Return the batches unchanged, as a `tf.data.Dataset` or as a `grain.IterDataset`."""
    if format is None:
        return batches
    dataset = _tf_dataset(batches) if format == "tf" else _grain_dataset(batches)
    dataset.class_names, dataset.file_paths = batches.class_names, batches.file_paths
    return dataset


def _tf_dataset(batches: Batches) -> Any:
    import tensorflow as tf

    first = [] if batches.single else [None]
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec([*first, *array.shape[len(first) :]], array.dtype), batches[0]
    )
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))


def _grain_dataset(batches: Batches) -> Any:
    import grain

    class BatchIterator(grain.DatasetIterator):
        """One epoch of the batches; its state is the number of batches read."""

        def __init__(self) -> None:
            super().__init__()
            self.read = 0
            self.epoch = enumerate(batches, 1)

        def __next__(self) -> Any:
            self.read, batch = next(self.epoch)
            with keras.device("cpu"):
                return keras.tree.map_structure(keras.ops.convert_to_tensor, batch)

        def get_state(self) -> dict[str, int]:
            return {"read": self.read}

        def set_state(self, state: dict[str, int]) -> None:
            self.__init__()  # type: ignore[misc]
            for _ in range(state["read"]):
                next(self)

    class BatchDataset(grain.IterDataset):
        def __iter__(self) -> BatchIterator:
            return BatchIterator()

    return BatchDataset()


class WarpedBatches(Batches):
    """Batches of views in 0…1, with a new view of each image in each epoch, made by threads.

    `Batches` gives the order and `warp` the views. Both depend on `(seed, epoch)` alone, not on
    `threads`. The threads end with the epoch, or with this object.

    Args:
        x: Array of images with values in 0…255, or `LazyImages`, shape
            `(n, height, width, channels)`.
        y: Array of labels, shape `(n, ...)`, or `None` for batches of views alone.
        strength: How far a view may be from its image.
        ids: One integer for each image, shape `(n,)`. Defaults to its index in `x`.
        threads: Number of threads that make the next batches while the caller trains, two batches
            per thread. With 0, each batch is made when it is asked for.
        **kwargs: As for `Batches`.

    Raises:
        ValueError: If `threads` is negative, or as `Batches` and `warp` do.
    """

    def __init__(
        self,
        x: Images,
        y: np.ndarray | None,
        strength: Warp,
        ids: np.ndarray | None = None,
        threads: int = 1,
        **kwargs: Any,
    ):
        if threads < 0:
            raise ValueError(f"`threads` must be at least 0. Received: threads={threads}")
        self.strength = strength
        self.ids = np.arange(len(x)) if ids is None else np.asarray(ids)
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[int, Future[Any]] = {}
        super().__init__(x, y, **kwargs)

    def __getitem__(self, index: int) -> Any:
        asked = self._ahead.pop(index, None)
        following = range(index + 1, min(index + 1 + 2 * self.threads, len(self)))
        if following:
            self._pool = self._pool or ThreadPoolExecutor(self.threads, "warps")
            make = super().__getitem__
            self._ahead = {i: self._ahead.get(i) or self._pool.submit(make, i) for i in following}
        batch = asked.result() if asked else super().__getitem__(index)
        if index == len(self) - 1:
            self._stop()
        return batch

    def images_at(self, chosen: np.ndarray) -> np.ndarray:
        """Return views of the images at these indices of `x`."""
        images = super().images_at(chosen) / 255
        return warp(images, self.ids[chosen], self.epoch, self.seed, self.strength)

    def set_epoch(self, epoch: int) -> None:
        """Take the order and the views of an epoch, counted from 0."""
        self._stop()  # first, so that no thread sees the old order with the new epoch
        super().set_epoch(epoch)

    def _stop(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._ahead = None, {}
