"""Train Runs and return their Records. Nothing here prints or writes."""

import sys
import time

import numpy as np

from mnist_keras._foundations import backends
from mnist_keras._foundations.hashing import fingerprint
from mnist_keras.datasets.augmentation import WARPS
from mnist_keras.datasets.batches import WarpedBatches
from mnist_keras.datasets.images import LabeledImages
from mnist_keras.models.prediction import predict
from mnist_keras.training import classical
from mnist_keras.training.data import Data
from mnist_keras.training.fit import fit
from mnist_keras.training.networks import Networks, get_weights, restart, targets
from mnist_keras.training.record import History, Mistakes, OnEpoch, Record, Score, Weights
from mnist_keras.training.run import Run
from mnist_keras.training.settings import NO_NETWORKS
from mnist_keras.training.stages import DivergedError, Kept, Stages

# Misclassified images kept with a run: at most this many, and so many bytes.
_MISTAKES, _MISTAKE_BYTES = 12, 65_536


class Trainer:
    """Trains runs. What several of them share is compiled once, and trained once.

    Args:
        kept: Trainings that runs share, by name; those of later runs are added. Defaults to none.

    Attributes:
        networks: The compiled network of the last run.
    """

    def __init__(self, kept: Kept | None = None):
        self.kept: Kept = {} if kept is None else kept
        self.networks = Networks()

    def train(
        self,
        run: Run,
        data: Data,
        on_epoch: OnEpoch | None = None,
        start: Weights | None = None,
    ) -> Record:
        """Train a run from its initial weights.

        Args:
            run: What to train.
            data: The images of the run's seed.
            on_epoch: Called with the epoch (from 1) and its training loss.
            start: By path, weights that take the place of initial ones, e.g. an encoder's; for
                runs whose schedule is a cycle.

        Returns:
            The record of the run: loss, accuracy and seconds of each epoch, and the classes given
            to the test and held-out images after each of `run.scored_at`. If the loss stops being
            finite, the record ends with that epoch.
        """
        training, test = data.split(run.settings, run.seed)
        scored = test.extended(data.heldout)
        if run.settings.model in NO_NETWORKS:
            history, classes = _without_network(run, training, scored)
        elif run.settings.schedule == "constant":
            history, classes = self._in_one_go(run, training, scored, on_epoch)
        else:
            history, classes = self._in_stages(run, training, scored, data, on_epoch, start)
        last = list(classes.values())[-1] if classes else scored.labels
        return Record(
            run=run,
            data_name=data.images.name,
            data_fingerprint=data.fingerprint,
            class_names=data.images.class_names,
            n_training=len(training),
            n_unlabeled=len(data.pool) if run.settings.uses_heldout else 0,
            test_labels=test.labels,
            heldout_labels=data.heldout.labels,
            loss=tuple(history.loss),
            accuracy=tuple(history.accuracy),
            losses={name: tuple(values) for name, values in history.losses.items()},
            seconds=tuple(history.seconds),
            cpu_seconds=tuple(history.cpu_seconds),
            peak_memory=_peak_memory(),
            scores={
                epoch: Score(test=given[: len(test)], heldout=given[len(test) :])
                for epoch, given in classes.items()
            },
            mistakes=_mistakes(scored, last),
            diverged=len(history.loss) if history.diverged else None,
            fingerprints={
                "weights": history.initial,
                "masks": history.masks,
                "batches": f"{fingerprint(training.fingerprints, training.labels)}-{history.batches}",
            },
            versions=backends.versions(),
        )

    def _in_one_go(
        self, run: Run, training: LabeledImages, scored: LabeledImages, on_epoch: OnEpoch | None
    ) -> tuple[History, dict[int, np.ndarray]]:
        """Train one network at a constant rate, scored wherever the run says."""
        s = run.settings
        model = self.networks.of(s, training.images.shape[1:], len(training.class_names))
        restart(model, s, run.seed)
        initial = fingerprint(*get_weights(model).values())
        y = targets(s, training.labels, len(training.class_names))
        batches = WarpedBatches(
            training.images, y, WARPS[s.augmentation], batch_size=s.batch_size, seed=run.seed
        )
        classes = {}

        def score(epoch: int) -> None:
            classes[epoch] = predict(model, scored.images).argmax(axis=-1)

        history = fit(model, batches, lambda epoch: s.learning_rate, run.scored_at, score, on_epoch)
        history.initial = initial
        return history, classes

    def _in_stages(
        self,
        run: Run,
        training: LabeledImages,
        scored: LabeledImages,
        data: Data,
        on_epoch: OnEpoch | None,
        start: Weights | None,
    ) -> tuple[History, dict[int, np.ndarray]]:
        """Train one stage after the other, scored at the end."""
        stages = Stages(
            run, training, data.pool, data.fingerprint, self.networks, self.kept, on_epoch, start
        )
        try:
            probabilities = stages.probabilities(scored)
        except DivergedError:
            return stages.history, {}
        return stages.history, {run.settings.all_epochs: probabilities.argmax(axis=-1)}


def _without_network(
    run: Run, training: LabeledImages, scored: LabeledImages
) -> tuple[History, dict[int, np.ndarray]]:
    """Classify without a network, as if in one epoch without a loss."""
    started = time.perf_counter(), time.process_time()
    classes = classical.classify(run.settings, training, scored.images, run.seed)
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    return History(seconds=[seconds], cpu_seconds=[cpu]), {1: classes}


def _mistakes(images: LabeledImages, classes: np.ndarray) -> Mistakes:
    """Return the first few images whose class is wrong."""
    count = min(_MISTAKES, _MISTAKE_BYTES // images.images[0].size)
    wrong = np.flatnonzero(classes != images.labels)[:count]
    pixels = np.rint(images.images[wrong]).astype(np.uint8)
    return Mistakes(pixels, images.labels[wrong], classes[wrong])


def _peak_memory() -> int:
    """Return the most bytes this process has held, or 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
