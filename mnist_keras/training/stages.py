"""The stages of a run. A stage that several arms share is trained once.

    pretraining ──► members ──► their answers on unlabeled images ──► students
    (no labels)     (labels)    │           (soft labels)              │
                                └──────────── next round ◄─────────────┘

A plain run is a single member. The models of the last stage classify. The labels of the unlabeled
images are never read.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from mnist_keras._foundations import backends, stopping
from mnist_keras._foundations.hashing import fingerprint, fingerprint_of_json
from mnist_keras._foundations.seeds import generator
from mnist_keras.datasets.augmentation import WARPS, warp
from mnist_keras.datasets.batches import WarpedBatches
from mnist_keras.datasets.images import DataError, Images, LabeledImages, LazyImages, joined
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training import representation
from mnist_keras.training.fit import fit
from mnist_keras.training.networks import (
    Networks,
    get_weights,
    one_cycle,
    restart,
    set_weights,
    smoothed,
    targets,
)
from mnist_keras.training.record import DivergedError, History, OnEpoch, Training, Weights
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

# Inverse penalty of the linear layer on frozen features, scikit-learn's `C`.
_PROBE = 0.03
# A student's soft labels are its teachers' probabilities to this power, normalized.
_SHARPENING = 3
# How often a student sees each labeled image in an epoch, and the size of its batches.
_REPEATS, _STUDENT_BATCH = 3, 100

Kept = MutableMapping[str, Training]
# Trains a stage, and returns its model and its epochs.
Train = Callable[[], tuple[keras.Model, History]]


@dataclass
class Stages:
    """The stages of a run, one after the other.

    Attributes:
        run: What is trained.
        training: The labeled images.
        unlabeled: Images whose labels are not read: the held-out ones, or others.
        data_fingerprint: Hash of the data.
        networks: Where the compiled model comes from.
        kept: Stages by fingerprint. A stage found here is not trained again; others are added.
        on_epoch: Called with the epoch, counted over all stages, and its loss.
        start: By path, weights that members start from if there is no pretraining.
        history: The epochs of all stages so far.
        model: The model that gave the last answers. `None` if they are the mean of several models,
            or if no model has finished training.
    """

    run: Run
    training: LabeledImages
    unlabeled: LabeledImages
    data_fingerprint: str
    networks: Networks
    kept: Kept
    on_epoch: OnEpoch | None = None
    start: Weights | None = None
    history: History = field(default_factory=History, init=False)
    model: keras.Model | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.settings, self.seed = self.run.settings, self.run.seed
        self.unlabeled = self.unlabeled.sorted_by_content()
        self._n_classes = len(self.training.class_names)
        self._targets = targets(self.settings, self.training.labels, self._n_classes)
        # The images, targets and batch size of a member.
        self._labeled = self.training.images, self._targets, self.settings.batch_size

    def classes(self, scored: LabeledImages) -> dict[int, np.ndarray]:
        """Train all stages and return the classes of images after each of `run.scored_at`."""
        if self.settings.schedule == "constant":
            return self._plain(scored)
        try:
            return {self.settings.all_epochs: self.probabilities(scored).argmax(axis=-1)}
        except DivergedError:
            self.model = None
            return {}

    def _plain(self, scored: LabeledImages) -> dict[int, np.ndarray]:
        model = self._started(self.seed, self.start)
        given = {}

        def classify(epoch: int) -> None:
            given[epoch] = predict(model, scored.images).argmax(axis=-1)

        self.history = self._fit(
            model, self.seed, self.run.scored_at, *self._labeled, at_end=classify
        )
        self.model = None if self.history.diverged else model
        return given

    def probabilities(self, scored: LabeledImages) -> np.ndarray:
        """Train all stages and return the last one's probabilities, of shape `(n, classes)`.

        Raises:
            DivergedError: If a loss is not finite.
            DataError: If self-training has no unlabeled images.
        """
        members = self.members()
        if self.settings.self_training == "none":
            return self._mean(members, scored)
        if not len(self.unlabeled):
            raise DataError(
                "self-training needs images without labels, and there are none held out"
            )
        if self.settings.self_training == "transductive":
            return self._mean([self._student(members, self.unlabeled)], scored)
        # Each half is scored by the student that learned from the other one.
        order = generator(self.seed, "halves").permutation(len(self.unlabeled))
        halves = [self.unlabeled.take(np.sort(part)) for part in np.array_split(order, 2)]
        students = [self._student(members, half) for half in halves]
        in_first = np.isin(scored.fingerprints, halves[0].fingerprints)
        result = np.empty((len(scored), self._n_classes))
        for student, unseen in zip(students, (~in_first, in_first), strict=True):
            result[unseen] = self._mean([student], scored.take(np.flatnonzero(unseen)))
        self.model = None
        return result

    def members(self) -> list[Training]:
        """Return the stages that learn from labels, trained or kept."""
        start = self.start
        if self.settings.pretraining != "none":
            start = self._pretrained().weights
        return [self._member(number, start) for number in range(self.settings.members)]

    def _pretrained(self) -> Training:
        s = self.settings

        def train() -> tuple[keras.Model, History]:
            return representation.pretrain(
                self.training.extended(self.unlabeled).sorted_by_content().images,
                s.pretraining,
                s.pretraining_epochs,
                activation=s.activation,
                width=s.width or 16,
                seed=self.seed,
                on_epoch=self._note,
            )

        decide = {"model", "width", "activation", "schedule", "pretraining", "pretraining_epochs"}
        own = Settings(**s.model_dump(include=decide | {"validation_split", "stratify"}))
        return self._once("pretraining", own, self.seed, train)

    def _member(self, number: int, start: Weights | None) -> Training:
        s, seed = self.settings, self._seed("member", number)

        def train() -> tuple[keras.Model, History]:
            model = self._started(seed, start)
            if not s.frozen:
                initial = not start
                return model, self._fit(model, seed, (s.epochs,), *self._labeled, initial=initial)
            encoder = keras.Model(model.input, model.get_layer("flatten").output)
            features = predict(encoder, self.training.images)
            kernel, bias = representation.linear_probe(features, self.training.labels, _PROBE)
            set_weights(model, {"logits/kernel": kernel, "logits/bias": bias})
            return model, History()

        own = s.replace(
            members=1, views=0, self_training="none", self_training_epochs=0, self_training_rounds=1
        )
        return self._once("member", own, seed, train)

    def _student(self, members: Sequence[Training], unlabeled: LabeledImages) -> Training:
        """Train a student of each member, round after round; in the last round, of the first."""
        rounds = self.settings.self_training_rounds
        for number in range(rounds):
            soft = self._mean(members, unlabeled)
            teachers = members if number < rounds - 1 else members[:1]
            members = [
                self._taught(teacher, number * len(members) + place, unlabeled, soft)
                for place, teacher in enumerate(teachers)
            ]
        return members[0]

    def _taught(
        self, teacher: Training, number: int, unlabeled: LabeledImages, soft: np.ndarray
    ) -> Training:
        """Train a model further, on unlabeled images with soft labels and on the labeled ones."""
        s, seed = self.settings, self._seed("student", number)

        def train() -> tuple[keras.Model, History]:
            model = self._started(seed, teacher.weights)
            labeled = self.training.take(np.tile(np.arange(len(self.training)), _REPEATS))
            x = joined(unlabeled.images, labeled.images)
            sharp = soft**_SHARPENING
            sharp /= sharp.sum(axis=-1, keepdims=True)
            # Soft labels are less than certain already: half of the label smoothing is enough.
            sharp = smoothed(sharp, s.label_smoothing / 2)
            y = np.concatenate([sharp, *[self._targets] * _REPEATS])
            ends = (s.self_training_epochs,)
            return model, self._fit(model, seed, ends, x, y, _STUDENT_BATCH, initial=False)

        kind = f"student {number} of {fingerprint(unlabeled.fingerprints)}"
        return self._once(kind, s.replace(self_training_rounds=1), seed, train)

    def _seed(self, kind: str, number: int) -> int:
        """Return the seed of a model: the run's own for the first of a kind."""
        if not number:
            return self.seed
        return int(generator(self.seed, f"{kind} {number}").integers(2**31))

    def _once(self, kind: str, settings: Settings, seed: int, train: Train) -> Training:
        """Return a stage that is kept, or train and keep it."""
        stopping.check()
        versions = backends.versions()
        decides = [kind, settings.model_dump(), seed, self.data_fingerprint, versions]
        if self.start is not None:
            decides.append(fingerprint(*self.start.values()))
        name = fingerprint_of_json(decides)
        training = self.kept.get(name)
        if training is None:
            model, history = train()
            training = self.kept[name] = Training(get_weights(model), history)
        else:
            for epoch, loss in enumerate(training.history.loss, 1):
                self._note(epoch, loss)
        self.history += training.history
        if training.history.diverged:
            raise DivergedError
        return training

    def _note(self, epoch: int, loss: float) -> None:
        """Pass on an epoch of the stage that follows `history`."""
        if self.on_epoch:
            self.on_epoch(len(self.history.loss) + epoch, loss)

    def _network(self) -> keras.Model:
        return self.networks.of(self.settings, self.training.images.shape[1:], self._n_classes)

    def _started(self, seed: int, weights: Weights | None) -> keras.Model:
        model = self._network()
        restart(model, self.settings, seed, weights)
        return model

    def _fit(
        self,
        model: keras.Model,
        seed: int,
        ends: Sequence[int],
        x: Images,
        y: np.ndarray,
        batch_size: int,
        **options: Any,
    ) -> History:
        """Train a model on views of images by the run's schedule."""
        s = self.settings

        def rate(epoch: int) -> float:
            if s.schedule == "constant":
                return s.learning_rate
            return one_cycle(s.learning_rate, epoch, ends[-1])

        batches = WarpedBatches(x, y, WARPS[s.augmentation], batch_size=batch_size, seed=seed)
        return fit(model, batches, rate, ends, on_epoch=self._note, **options)

    def _mean(self, trainings: Sequence[Training], images: LabeledImages) -> np.ndarray:
        """Return the mean of the probabilities of models, over views of each image."""
        s, model = self.settings, self._network()
        # The views are those of epochs that no training reaches.
        views = [self._view(images, s.epochs + number) for number in range(s.views)]
        outputs = []
        for training in trainings:
            set_weights(model, training.weights)
            outputs += [softmax(predict(model, seen)) for seen in (images.images, *views)]
        self.model = model if len(trainings) == 1 else None
        return np.asarray(np.mean(outputs, axis=0))

    def _view(self, images: LabeledImages, epoch: int) -> LazyImages:
        """Return a view of each image, warped half as far as in training; its content decides."""
        strength = WARPS[self.settings.augmentation].scaled(0.5)
        ids = np.array([int(name[:15], 16) for name in images.fingerprints])

        def read(positions: np.ndarray) -> np.ndarray:
            return warp(images.images[positions], ids[positions], epoch, self.seed, strength)

        return LazyImages(read, images.images.shape, np.dtype(np.float32))
