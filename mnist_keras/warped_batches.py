"""Batches of warped images, made by threads while the last ones are trained on."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from mnist_keras.augmentation import Warp, warp
from mnist_keras.batches import Batches
from mnist_keras.images import Images


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
