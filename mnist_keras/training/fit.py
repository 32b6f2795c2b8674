"""One `fit` of one model, epoch by epoch, and what it gave."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import keras
import numpy as np

from mnist_keras._foundations import stopping
from mnist_keras._foundations.hashing import fingerprint
from mnist_keras.datasets.batches import Batches
from mnist_keras.portable import Dropout
from mnist_keras.training.networks import get_weights
from mnist_keras.training.record import History, OnEpoch


def fit(
    model: keras.Model,
    batches: Batches,
    learning_rate: Callable[[int], float],
    ends: Sequence[int],
    at_end: Callable[[int], None] | None = None,
    on_epoch: OnEpoch | None = None,
    initial: bool = True,
) -> History:
    """Train a compiled model, as it stands, over epochs of batches.

    Args:
        model: The model, at its first step.
        batches: Its training data; each epoch has its own order.
        learning_rate: Takes the epoch, counted from 0.
        ends: Epochs after which `at_end` is called, ascending. The last one ends the training,
            which ends earlier if a loss is not finite.
        at_end: Called with the epoch.
        on_epoch: Called with the epoch (from 1) and its loss.
        initial: Whether the weights are initial ones, not those of another stage.
    """
    orders: list[np.ndarray] = []
    numbers: defaultdict[str, list[float]] = defaultdict(list)
    started = 0.0, 0.0

    def begin(epoch: int, logs: object) -> None:
        nonlocal started
        # Otherwise each `fit` would skip one order: Keras ends an epoch that it never began.
        batches.set_epoch(epoch)
        orders.append(batches.order)
        model.optimizer.learning_rate = learning_rate(epoch)
        started = time.perf_counter(), time.process_time()

    def end(epoch: int, logs: Mapping[str, float]) -> None:
        numbers["seconds"].append(time.perf_counter() - started[0])
        numbers["cpu_seconds"].append(time.process_time() - started[1])
        for name in ("loss", "accuracy", "crossentropy", "focal"):
            numbers[name].append(float(logs.get(name, "nan")))
        loss = numbers["loss"][-1]
        model.stop_training = not np.isfinite(loss)
        if on_epoch:
            on_epoch(epoch + 1, loss)

    weights = fingerprint(*get_weights(model).values()) if initial else ""
    masks = fingerprint(*_first_masks(model, batches))
    # Not at the end of batches: Keras would fetch the loss of each one for it.
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=begin,
        on_epoch_end=end,
        on_train_batch_begin=lambda batch, logs: stopping.check(),
    )
    for first, last in pairwise((0, *ends)):
        # Keras would shuffle the order of the batches once more, with Python's generator.
        model.fit(
            batches, initial_epoch=first, epochs=last, shuffle=False, verbose=0, callbacks=[watch]
        )
        if model.stop_training:
            break
        if at_end:
            at_end(last)
    return History(
        training_accuracy=tuple(numbers.pop("accuracy")),
        **{name: tuple(values) for name, values in numbers.items()},
        fingerprints={"weights": weights, "masks": masks, "batches": fingerprint(*orders)},
    )


def _first_masks(model: keras.Model, batches: Batches) -> Iterator[np.ndarray]:
    """Yield the dropout masks of the first epoch's steps, as each layer makes them."""
    count, most = len(batches.x), batches.batch_size
    sizes = [min(most, count - start) for start in range(0, count, most)]
    for layer in model.layers:
        if isinstance(layer, Dropout):
            key, first = keras.ops.convert_to_numpy(layer.seed_generator.state)
            for step, size in enumerate(sizes, start=int(first)):
                mask = layer.keep(np.array([key, step], "int32"), (size, *layer.input.shape[1:]))
                yield keras.ops.convert_to_numpy(mask)
