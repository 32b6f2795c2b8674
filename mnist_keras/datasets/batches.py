"""Batches in an order that NumPy draws, the same for every backend and data format."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from mnist_keras._foundations.seeds import generator
from mnist_keras.datasets.augmentation import Warp, warp
from mnist_keras.datasets.images import Images


class Batches(keras.utils.PyDataset):
    """Batches of arrays for `fit`, `evaluate` and `predict`, reshuffled each epoch by NumPy.

    The order of epoch `k` depends on `(seed, k)` alone. A `for` loop over all batches goes on to
    the next epoch, and so does each epoch of a `fit` (which also skips one before its first).
    `set_epoch` chooses the epoch. Pass `shuffle=False` to `fit`: otherwise Keras
    shuffles the order of the batches again, with Python's generator.

    Args:
        x: Array of images, or `LazyImages`, shape `(n, ...)`; batches are `float32`.
        y: Array of labels, shape `(n, ...)`, or `None` for batches of images alone.
        batch_size: Images a batch; the last one may be smaller.
        shuffle: Whether to reshuffle each epoch.
        seed: Integer >= 0.
        class_names: One name a class.
        file_paths: Where each image of `x` was read from.
    """

    def __init__(
        self,
        x: Images,
        y: np.ndarray | None,
        batch_size: int = 100,
        shuffle: bool = True,
        seed: int = 0,
        class_names: Sequence[str] = (),
        file_paths: Sequence[str] = (),
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.class_names = list(class_names)
        self.file_paths = list(file_paths)
        self.set_epoch(0)

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        x = self.x[chosen].astype("float32")
        return x if self.y is None else (x, self.y[chosen])

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self)):
            batch = self[index]
            if index == len(self) - 1:
                # Before the last batch leaves: who counts batches never asks for one more.
                self.on_epoch_end()
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch, counted from 0."""
        self.epoch = epoch
        self.order = np.arange(len(self.x))
        if self.shuffle:
            self.order = generator(self.seed, f"order of epoch {epoch}").permutation(self.order)

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order; Keras calls this."""
        self.set_epoch(self.epoch + 1)


def as_format(batches: Batches, format: str | None) -> Any:
    """Return the batches as they are, as a `tf.data.Dataset` or as a `grain.IterDataset`."""
    if format is None:
        return batches
    dataset = _tf_dataset(batches) if format == "tf" else _grain_dataset(batches)
    dataset.class_names = batches.class_names
    dataset.file_paths = batches.file_paths
    return dataset


def _tf_dataset(batches: Batches) -> Any:
    import tensorflow as tf

    def spec(array: Images, dtype: Any) -> Any:
        return tf.TensorSpec((None, *array.shape[1:]), dtype)

    signature = spec(batches.x, tf.float32)
    if batches.y is not None:
        signature = (signature, spec(batches.y, batches.y.dtype))
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))


def _grain_dataset(batches: Batches) -> Any:
    import grain

    class BatchIterator(grain.DatasetIterator):
        """One epoch of the batches; its state is how many of them were read."""

        def __init__(self) -> None:
            super().__init__()
            self.read = 0
            self.epoch = iter(batches)

        def __next__(self) -> Any:
            batch = next(self.epoch)
            self.read += 1
            return batch

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
    """Batches of views in 0…1, another view of each image in each epoch, made ahead by threads.

    The order is that of `Batches`, the views are those of `warp`; both depend on `(seed, epoch)`
    alone, not on `threads`. The threads end with the epoch, or with this object.

    Args:
        x: Array of images with values in 0…255, or `LazyImages`, shape
            `(n, height, width, channels)`.
        y: Array of labels, shape `(n, ...)`, or `None` for batches of views alone.
        strength: How far a view may be from its image.
        ids: One integer an image, shape `(n,)`. Defaults to its index in `x`.
        threads: How many make batches while the caller trains, two each; at 0 the caller waits.
        **kwargs: As `Batches`.

    Raises:
        ValueError: If `threads` is negative, or as `Batches` and `warp`.
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
            self._ahead = {
                i: self._ahead.get(i) or self._pool.submit(self._batch, i) for i in following
            }
        batch = asked.result() if asked else self._batch(index)
        if index == len(self) - 1:
            self._stop()
        return batch

    def _batch(self, index: int) -> Any:
        batch = super().__getitem__(index)
        x = batch if self.y is None else batch[0]
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        views = warp(x / 255, self.ids[chosen], self.epoch, self.seed, self.strength)
        return views if self.y is None else (views, batch[1])

    def set_epoch(self, epoch: int) -> None:
        """Take the order and the views of this epoch, counted from 0."""
        # First, so that no thread sees half of the old epoch and half of the new one.
        self._stop()
        super().set_epoch(epoch)

    def _stop(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._ahead = None, {}
