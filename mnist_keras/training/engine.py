"""Train a run into its record and, if a single model answers, that model. Nothing here writes."""

import sys
import time
from dataclasses import dataclass

import keras
import numpy as np

from mnist_keras._foundations import backends, stopping
from mnist_keras._foundations.hashing import fingerprint
from mnist_keras.datasets.images import LabeledImages
from mnist_keras.training import classical
from mnist_keras.training.data import Data
from mnist_keras.training.networks import Networks
from mnist_keras.training.record import History, Mistakes, OnEpoch, Record, Score, Weights
from mnist_keras.training.run import Run
from mnist_keras.training.stages import Kept, Stages

# Misclassified images kept with a run: at most this many, and this many bytes.
_MISTAKES, _MISTAKE_BYTES = 12, 65_536


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    Attributes:
        record: Its numbers.
        model: The model that gave the record's classes; with `views`, its mean over the views of
            each image gave them. `None` if several models gave them, if the run has no network, or
            if a loss was not finite.
    """

    record: Record
    model: keras.Model | None


def train(
    run: Run,
    data: Data,
    *,
    on_epoch: OnEpoch | None = None,
    start: Weights | None = None,
    kept: Kept | None = None,
    networks: Networks | None = None,
) -> Trained:
    """Train a run from its initial weights.

    Args:
        run: What to train.
        data: The images of the run's seed.
        on_epoch: Called with the epoch (from 1) and its training loss.
        start: By path, weights that replace initial ones, e.g. an encoder's.
        kept: Stages that runs share, by fingerprint; those of this run are added. By default none
            are shared.
        networks: Compiled models to use again. The next run that uses them trains the returned
            model further. By default the model is the caller's alone.

    Returns:
        The record of the run and its model. If a loss is not finite, the record ends with that
        epoch.

    Raises:
        DataError: If self-training has no unlabeled images.
    """
    stopping.check()
    training, test = data.split(run.settings, run.seed)
    scored = test.extended(data.heldout)
    model = None
    if run.settings.has_network:
        kept, networks = {} if kept is None else kept, networks or Networks()
        images = training, data.without_labels, data.fingerprint
        stages = Stages(run, *images, networks, kept, on_epoch, start)
        classes = stages.classes(scored)
        history, model = stages.history, stages.model
    else:
        history, classes = _without_network(run, training, scored)
    last = list(classes.values())[-1] if classes else scored.labels
    order = f"{fingerprint(training.fingerprints, training.labels)}-"
    prints = {"weights": "", "masks": "", "batches": ""} | dict(history.fingerprints)
    record = Record(
        run=run,
        versions=backends.versions(),
        data_name=data.images.name,
        data_fingerprint=data.fingerprint,
        class_names=data.images.class_names,
        n_training=len(training),
        n_unlabeled=len(data.without_labels) if run.settings.uses_unlabeled else 0,
        test_labels=test.labels,
        heldout_labels=data.heldout.labels,
        history=history.replace(fingerprints=prints | {"batches": order + prints["batches"]}),
        scores={
            epoch: Score(test=given[: len(test)], heldout=given[len(test) :])
            for epoch, given in classes.items()
        },
        mistakes=_mistakes(scored, last),
        peak_memory=_peak_memory(),
    )
    return Trained(record, model)


def _without_network(
    run: Run, training: LabeledImages, scored: LabeledImages
) -> tuple[History, dict[int, np.ndarray]]:
    """Classify without a network, as if in one epoch without a loss."""
    started = time.perf_counter(), time.process_time()
    classes = classical.classify(run.settings, training, scored.images, run.seed)
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    return History(seconds=(seconds,), cpu_seconds=(cpu,)), {1: classes}


def _mistakes(images: LabeledImages, classes: np.ndarray) -> Mistakes:
    """Return the first few images whose class is wrong."""
    count = min(_MISTAKES, _MISTAKE_BYTES // images.images[0].size)
    wrong = np.flatnonzero(classes != images.labels)[:count]
    pixels = np.rint(images.images[wrong]).astype(np.uint8)
    return Mistakes(images=pixels, labels=images.labels[wrong], predicted=classes[wrong])


def _peak_memory() -> int:
    """Return the most bytes this process has held, or 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
