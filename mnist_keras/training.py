"""Train one Run and return its Record. Nothing here prints or writes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import keras
import numpy as np

from mnist_keras import models
from mnist_keras.batches import Batches
from mnist_keras.datasets import split_indices
from mnist_keras.images import LabeledImages
from mnist_keras.losses import FocalLoss
from mnist_keras.optimizers import Adam, RAdam
from mnist_keras.records import Record, Score
from mnist_keras.runs import Run, Settings

# Images classified at once: large enough that reading the CNN's 84 MB of weights costs little.
_SCORING_BATCH = 500


@dataclass(frozen=True)
class Data:
    """The images of one seed: what is trained and tested on, and what never was drawn for it.

    Attributes:
        images: The report's 500, to be split by the seed.
        heldout: Images of the same classes that are in no training or test set; may be empty.
    """

    images: LabeledImages
    heldout: LabeledImages

    @property
    def fingerprint(self) -> str:
        """Hash of both parts."""
        return f"{self.images.fingerprint}-{self.heldout.fingerprint}"


def compiled_model(
    settings: Settings, seed: int, input_shape: tuple[int, ...], num_classes: int
) -> keras.Model:
    """Return the model of an arm, compiled, with the initial weights of `seed`."""
    build = {"basic_net": models.basic_net, "cnn": models.cnn}[settings.model]
    loss = {
        "crossentropy": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "focal": lambda: FocalLoss(settings.gamma, settings.alpha, from_logits=True),
    }[settings.loss]
    optimizer = {"adam": Adam, "radam": RAdam, "sgd": keras.optimizers.SGD}[settings.optimizer]
    model = build(input_shape, num_classes, settings.activation, seed)
    model.compile(
        optimizer(settings.learning_rate),
        loss(),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
    return model


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
    settings = run.settings
    # Sorted by content, so that batches do not depend on the files' names and order.
    images = data.images.canonical()
    training, test = split_indices(images, settings.validation_split, run.seed, settings.stratify)
    batches = Batches(
        images.images[training].astype("float32") / 255,
        images.labels[training].astype("int32"),
        settings.batch_size,
        seed=run.seed,
    )
    _restart(model, run)
    watch = _Watch(batches, on_epoch)
    scores = {}
    for start, end in pairwise((0, *run.scored_at)):
        # Keras would shuffle the order of the batches once more, with Python's generator.
        model.fit(
            batches, initial_epoch=start, epochs=end, shuffle=False, verbose=0, callbacks=[watch]
        )
        if watch.diverged:
            break
        scores[end] = Score(
            test=predict_classes(model, images.images[test]),
            heldout=predict_classes(model, data.heldout.images),
        )
    return Record(
        run=run,
        data_name=images.name,
        data_fingerprint=data.fingerprint,
        class_names=images.class_names,
        test_labels=images.labels[test],
        heldout_labels=data.heldout.labels,
        loss=tuple(watch.loss),
        accuracy=tuple(watch.accuracy),
        seconds=tuple(watch.seconds),
        scores=scores,
        diverged=len(watch.loss) if watch.diverged else None,
    )


def predict_classes(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the most likely class of each image.

    Args:
        model: Model of logits.
        images: Array of shape `(n, height, width, channels)` with values in 0…255.

    Returns:
        `int64` array of shape `(n,)`.
    """
    classes = [np.empty(0, np.int64)]
    for start in range(0, len(images), _SCORING_BATCH):
        x = images[start : start + _SCORING_BATCH].astype("float32") / 255
        # One shape for all calls: a compiled backend compiles once, whatever the count.
        padded = np.zeros((_SCORING_BATCH, *x.shape[1:]), "float32")
        padded[: len(x)] = x
        classes.append(model.predict_on_batch(padded)[: len(x)].argmax(axis=-1))
    return np.concatenate(classes)


def _restart(model: keras.Model, run: Run) -> None:
    """Give the model the state of a new one of the run's seed, and its optimizer too."""
    new = compiled_model(run.settings, run.seed, model.input_shape[1:], model.output_shape[-1])
    olds = [*model.variables, *model.optimizer.variables]
    news = [*new.variables, *new.optimizer.variables]
    for old, fresh in zip(olds, news, strict=True):
        old.assign(fresh)


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
        self.seconds: list[float] = []
        self.diverged = False

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.set_epoch(epoch)
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.started)
        self.loss.append(float(logs["loss"]))
        self.accuracy.append(float(logs["accuracy"]))
        self.diverged = not np.isfinite(self.loss[-1])
        self.model.stop_training = self.diverged
        if self.on_epoch:
            self.on_epoch(epoch + 1, self.loss[-1])
