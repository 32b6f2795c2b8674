"""Train one Run and return its Record. Nothing here prints or writes."""

import gc
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import keras
import numpy as np

from mnist_keras import backends, models
from mnist_keras.batches import Batches
from mnist_keras.images import Images, LabeledImages, joined
from mnist_keras.losses import FocalLoss, focal_loss
from mnist_keras.optimizers import Adam, RAdam
from mnist_keras.portable import Dropout
from mnist_keras.prediction import predict
from mnist_keras.records import Mistakes, Record, Score
from mnist_keras.runs import Run, Settings
from mnist_keras.splits import sides, split_indices

# Misclassified images kept with a run: at most this many, and so many bytes.
_MISTAKES, _MISTAKE_BYTES = 12, 65_536


@dataclass(frozen=True)
class Data:
    """The images of one seed: what is trained and tested on, and what never was drawn for it.

    Attributes:
        images: The report's 500, to be split by the seed.
        heldout: Images of the same classes that are in no training or test set; may be empty.
        test: Content hashes of the images to test on; by default the run's seed draws them.
    """

    images: LabeledImages
    heldout: LabeledImages
    test: np.ndarray | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of both parts, and of the split if it is given."""
        parts = f"{self.images.fingerprint}-{self.heldout.fingerprint}"
        return parts if self.test is None else f"{parts}-{_digest(np.sort(self.test))}"

    def split(self, settings: Settings, seed: int) -> tuple[LabeledImages, LabeledImages]:
        """Return the images to train on and those to test on.

        Both are sorted by content, so that batches do not depend on the files' names and order.
        """
        images = self.images.canonical()
        training, test = (
            split_indices(images, settings.validation_split, seed, settings.stratify)
            if self.test is None
            else sides(images, self.test)
        )
        return images.take(training), images.take(test)


def compiled_model(
    settings: Settings, input_shape: tuple[int, ...], num_classes: int
) -> keras.Model:
    """Return the model of an arm, compiled. It has some initial weights; `train` sets a run's."""
    loss = {
        "crossentropy": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "focal": lambda: FocalLoss(settings.gamma, settings.alpha, from_logits=True),
    }[settings.loss]
    optimizer = {"adam": Adam, "radam": RAdam, "sgd": keras.optimizers.SGD}[settings.optimizer]
    model = build_model(settings, input_shape, num_classes, seed=0)
    model.compile(
        optimizer(settings.learning_rate),
        loss(),
        metrics=[
            keras.metrics.SparseCategoricalAccuracy("accuracy"),
            keras.metrics.SparseCategoricalCrossentropy("crossentropy", from_logits=True),
            keras.metrics.MeanMetricWrapper(focal_loss, "focal", from_logits=True),
        ],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def build_model(
    settings: Settings, input_shape: tuple[int, ...], num_classes: int, seed: int
) -> keras.Model:
    """Return the model of an arm with a seed's initial weights, not compiled."""
    build = {"basic_net": models.basic_net, "cnn": models.cnn}[settings.model]
    return build(input_shape, num_classes, settings.activation, seed)


def train(
    model: keras.Model,
    run: Run,
    data: Data,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Record:
    """Train a run from its initial weights.

    Args:
        model: `compiled_model` of the run's settings. Its compiled functions are used, its
            weights are not: the same model serves every seed.
        run: What to train.
        data: The images of the run's seed.
        on_epoch: Called with the epoch (from 1) and its training loss.

    Returns:
        The record of the run: loss, accuracy and seconds of each epoch, and the classes given
        to the test and held-out images after each of `run.scored_at`. If the loss stops being
        finite, the record ends with that epoch.
    """
    training, test = data.split(run.settings, run.seed)
    y = training.labels.astype("int32")
    batches = _UnitBatches(training.images, y, run.settings.batch_size, seed=run.seed)
    scored = joined(test.images, data.heldout.images)
    labels = np.concatenate([test.labels, data.heldout.labels])
    classes = labels  # no mistakes, if the run diverges before it is scored
    _restart(model, run)
    digests = {
        "weights": _digest(*map(keras.ops.convert_to_numpy, model.weights)),
        "masks": _digest(*_first_masks(model, batches)),
    }
    watch = _Watch(batches, on_epoch)
    scores = {}
    for start, end in pairwise((0, *run.scored_at)):
        # Keras would shuffle the order of the batches once more, with Python's generator.
        model.fit(
            batches, initial_epoch=start, epochs=end, shuffle=False, verbose=0, callbacks=[watch]
        )
        if watch.diverged:
            break
        classes = predict(model, scored).argmax(axis=-1)
        scores[end] = Score(test=classes[: len(test)], heldout=classes[len(test) :])
    return Record(
        run=run,
        data_name=data.images.name,
        data_fingerprint=data.fingerprint,
        class_names=data.images.class_names,
        test_labels=test.labels,
        heldout_labels=data.heldout.labels,
        loss=tuple(watch.loss),
        accuracy=tuple(watch.accuracy),
        losses={name: tuple(values) for name, values in watch.losses.items()},
        seconds=tuple(watch.seconds),
        cpu_seconds=tuple(watch.cpu_seconds),
        peak_memory=_peak_memory(),
        scores=scores,
        mistakes=_mistakes(scored, labels, classes),
        diverged=len(watch.loss) if watch.diverged else None,
        digests=digests | {"batches": _digest(training.digests, y, *watch.orders)},
        versions=backends.versions(),
    )


def _restart(model: keras.Model, run: Run) -> None:
    """Set the model back to the first step of the run: its weights, its dropout, its optimizer."""
    new = build_model(run.settings, model.input_shape[1:], model.output_shape[-1], run.seed)
    for old, fresh in zip(model.variables, new.variables, strict=True):
        old.assign(fresh)
    # A model is a ring of references: left to itself, its 88 MB would outlive this function.
    del new, old, fresh
    gc.collect()
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    model.optimizer.learning_rate = run.settings.learning_rate


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


def _digest(*arrays: np.ndarray) -> str:
    """Return a hash of arrays, of their shapes and of their types."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype} {array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()[:16]


def _mistakes(images: Images, labels: np.ndarray, classes: np.ndarray) -> Mistakes:
    """Return the first few images whose class is wrong."""
    count = min(_MISTAKES, _MISTAKE_BYTES // images[0].size)
    wrong = np.flatnonzero(classes != labels)[:count]
    return Mistakes(np.rint(images[wrong]).astype(np.uint8), labels[wrong], classes[wrong])


def _peak_memory() -> int:
    """Return the most bytes this process has held, or 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class _UnitBatches(Batches):
    """Batches of images with values in 0…1."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = super().__getitem__(index)
        return x / 255, y


class _Watch(keras.callbacks.Callback):
    """Keeps the batches to Keras's count of epochs, notes each epoch's numbers, stops at NaN.

    Without it, each `fit` would skip one order: Keras ends an epoch that it never began.
    """

    def __init__(self, batches: Batches, on_epoch: Callable[[int, float], None] | None):
        super().__init__()
        self.batches = batches
        self.on_epoch = on_epoch
        self.loss: list[float] = []
        self.accuracy: list[float] = []
        self.losses: dict[str, list[float]] = {"crossentropy": [], "focal": []}
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.orders: list[np.ndarray] = []
        self.diverged = False

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.set_epoch(epoch)
        self.orders.append(self.batches.order)
        self.started = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.started[0])
        self.cpu_seconds.append(time.process_time() - self.started[1])
        for name, values in self.losses.items():
            values.append(float(logs[name]))
        self.loss.append(float(logs["loss"]))
        self.accuracy.append(float(logs["accuracy"]))
        self.diverged = not np.isfinite(self.loss[-1])
        self.model.stop_training = self.diverged
        if self.on_epoch:
            self.on_epoch(epoch + 1, self.loss[-1])
