"""One `fit` of one model, epoch by epoch, and what it gave."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from mnist_keras._foundations.hashing import fingerprint
from mnist_keras.datasets.batches import Batches
from mnist_keras.portable import Dropout
from mnist_keras.training.record import History, OnEpoch


def fit(
    model: keras.Model,
    batches: Batches,
    learning_rate: Callable[[int], float],
    ends: Sequence[int],
    at_end: Callable[[int], None] | None = None,
    on_epoch: OnEpoch | None = None,
    initial: str = "",
) -> History:
    """Train a compiled model, as it stands, over epochs of batches.

    Args:
        model: The model, at its first step.
        batches: What it sees; each epoch has its own order.
        learning_rate: Of each epoch, counted from 0.
        ends: Epochs after which `at_end` is called with the epoch, ascending; the last one ends
            the training. It ends earlier if the loss stops being finite.
        at_end: Called with the epoch.
        on_epoch: Called with the epoch (from 1) and its loss.
        initial: Fingerprint of the initial weights; empty if they come from another stage.
    """
    masks = fingerprint(*_first_masks(model, batches))
    watch = _Watch(batches, learning_rate, on_epoch)
    for start, end in pairwise((0, *ends)):
        # Keras would shuffle the order of the batches once more, with Python's generator.
        model.fit(
            batches, initial_epoch=start, epochs=end, shuffle=False, verbose=0, callbacks=[watch]
        )
        if model.stop_training:
            break
        if at_end:
            at_end(end)
    return History(
        **{name: tuple(values) for name, values in watch.numbers.items()},
        fingerprints={"weights": initial, "masks": masks, "batches": fingerprint(*watch.orders)},
    )


class _Watch(keras.callbacks.Callback):
    """Keeps the batches to Keras's count of epochs, notes each epoch's numbers, stops at NaN.

    Without it, each `fit` would skip one order: Keras ends an epoch that it never began.
    """

    def __init__(
        self, batches: Batches, learning_rate: Callable[[int], float], on_epoch: OnEpoch | None
    ):
        super().__init__()
        self.batches = batches
        self.learning_rate = learning_rate
        self.on_epoch = on_epoch
        self.orders: list[np.ndarray] = []
        self.numbers: defaultdict[str, list[float]] = defaultdict(list)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.set_epoch(epoch)
        self.orders.append(self.batches.order)
        self.model.optimizer.learning_rate = self.learning_rate(epoch)
        self.started = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        noted = {
            "seconds": time.perf_counter() - self.started[0],
            "cpu_seconds": time.process_time() - self.started[1],
            "loss": float(logs["loss"]),
            "training_accuracy": float(logs.get("accuracy", "nan")),
            "crossentropy": float(logs.get("crossentropy", "nan")),
            "focal": float(logs.get("focal", "nan")),
        }
        for name, value in noted.items():
            self.numbers[name].append(value)
        self.model.stop_training = not np.isfinite(noted["loss"])
        if self.on_epoch:
            self.on_epoch(epoch + 1, noted["loss"])


def _first_masks(model: keras.Model, batches: Batches) -> Iterator[np.ndarray]:
    """Yield the dropout masks of the first epoch's steps, as each layer makes them."""
    whole, rest = divmod(len(batches.x), batches.batch_size)
    sizes = [batches.batch_size] * whole + [rest] * (rest > 0)
    for layer in model.layers:
        if isinstance(layer, Dropout):
            key, first = keras.ops.convert_to_numpy(layer.seed_generator.state)
            for step, size in enumerate(sizes, start=int(first)):
                mask = layer.keep(np.array([key, step], "int32"), (size, *layer.input.shape[1:]))
                yield keras.ops.convert_to_numpy(mask)
