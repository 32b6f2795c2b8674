"""The stages that a run is made of. What two arms share is trained once.

    pretraining ──► members ──► what they say of unlabeled images ──► students
    (no labels)     (labels)    │           (soft labels)              │
                                └──────────── next round ◄─────────────┘

A plain run is a single member. The networks of the last stage classify. Of the unlabeled images no
label is looked at.
"""

from collections.abc import Callable, MutableMapping, Sequence

import keras
import numpy as np

from mnist_keras._foundations import backends
from mnist_keras._foundations.hashing import fingerprint, fingerprint_of_json
from mnist_keras._foundations.seeds import generator
from mnist_keras.datasets.augmentation import WARPS, warp
from mnist_keras.datasets.batches import Batches, WarpedBatches
from mnist_keras.datasets.images import DataError, Images, LabeledImages, LazyImages, joined
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training import representation
from mnist_keras.training.fit import fit
from mnist_keras.training.networks import (
    Networks,
    get_weights,
    learning_rate,
    restart,
    set_weights,
    smoothed,
    targets,
)
from mnist_keras.training.record import DivergedError, History, OnEpoch, Training, Weights
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

# Of a linear layer on frozen features, scikit-learn's inverse penalty.
_PROBE = 0.03
# A student's soft labels are its teachers' probabilities to this power, normalized.
_SHARPENING = 3
# How often a student sees each labeled image in an epoch, and the size of its batches.
_REPEATS, _STUDENT_BATCH = 3, 100

Kept = MutableMapping[str, Training]


class Stages:
    """The stages of a run, one after the other.

    Args:
        run: What is trained.
        training: The labeled images.
        unlabeled: Images whose labels are not looked at: the held-out ones, or others.
        data_fingerprint: Hash of the data.
        networks: Where the compiled network comes from.
        kept: Trainings by name: what is in it is not trained again, and what is trained is put
            in it.
        on_epoch: Called with the epoch, counted over all stages, and its loss.
        start: Weights, by path, that members start from where there is no pretraining.

    Attributes:
        history: The epochs of all stages so far.
        model: The network whose answers were taken at the end, or `None` if they are the mean of
            several networks or none has come to its end.
    """

    def __init__(
        self,
        run: Run,
        training: LabeledImages,
        unlabeled: LabeledImages,
        data_fingerprint: str,
        networks: Networks,
        kept: Kept,
        on_epoch: OnEpoch | None = None,
        start: Weights | None = None,
    ):
        self.run, self.settings, self.seed = run, run.settings, run.seed
        self.training = training
        self.unlabeled = unlabeled.sorted_by_content()
        self.history = History()
        self.model: keras.Model | None = None
        self._data_fingerprint = data_fingerprint
        self._networks = networks
        self._kept = kept
        self._on_epoch = on_epoch
        self._start = start

    def classes(self, scored: LabeledImages) -> dict[int, np.ndarray]:
        """Train all stages and return the classes of images after each of `run.scored_at`.

        If a loss stops being finite, nothing follows: `history` ends there.

        Raises:
            DataError: If there are no images to learn from without labels.
        """
        if self.settings.schedule == "constant":
            return self._plain(scored)
        try:
            return {self.settings.all_epochs: self.probabilities(scored).argmax(axis=-1)}
        except DivergedError:
            self.model = None
            return {}

    def _plain(self, scored: LabeledImages) -> dict[int, np.ndarray]:
        """Train the only network, and look at its answers on the way."""
        model = self._restarted(self.seed, self._start)
        given = {}

        def score(epoch: int) -> None:
            given[epoch] = predict(model, scored.images).argmax(axis=-1)

        self.history = self._fit_labels(
            model, self.settings, self.seed, self._on_epoch, self.run.scored_at, score
        )
        self.model = None if self.history.diverged else model
        return given

    def probabilities(self, scored: LabeledImages) -> np.ndarray:
        """Train all stages and return what the last one makes of images.

        Returns:
            `float64` array of shape `(n, classes)`.

        Raises:
            DivergedError: If a loss stops being finite.
            DataError: If there are no images to learn from without labels.
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
        result = np.empty((len(scored), self._classes))
        for student, unseen in zip(students, (~in_first, in_first), strict=True):
            result[unseen] = self._mean([student], scored.take(np.flatnonzero(unseen)))
        self.model = None
        return result

    def members(self) -> list[Training]:
        """Train the networks that learn from labels, or take them from where they are kept."""
        start = self._start
        if self.settings.pretraining != "none":
            start = self._pretrained().weights
        return [self._member(number, start) for number in range(self.settings.members)]

    def _pretrained(self) -> Training:
        s = self.settings
        names = ("model", "width", "activation", "schedule", "pretraining", "pretraining_epochs")
        own = Settings(
            **{name: getattr(s, name) for name in (*names, "validation_split", "stratify")}
        )

        def pretrain(on_epoch: OnEpoch) -> Training:
            images = self.training.extended(self.unlabeled).sorted_by_content()
            encoder, history = representation.pretrain(
                images.images,
                s.pretraining,
                s.pretraining_epochs,
                activation=s.activation,
                width=s.width or 16,
                seed=self.seed,
                on_epoch=on_epoch,
            )
            return Training(get_weights(encoder), history)

        return self._once("pretraining", own, self.seed, pretrain)

    def _member(self, number: int, start: Weights | None) -> Training:
        seed = self._seed("member", number)
        own = self.settings.replace(
            members=1,
            views=0,
            self_training="none",
            self_training_epochs=0,
            self_training_rounds=1,
        )

        def train(on_epoch: OnEpoch) -> Training:
            model = self._restarted(seed, start)
            if own.frozen:
                features = predict(_features(model), self.training.images)
                kernel, bias = representation.linear_probe(features, self.training.labels, _PROBE)
                set_weights(model, {"logits/kernel": kernel, "logits/bias": bias})
                return Training(get_weights(model), History())
            initial = "" if start else None
            history = self._fit_labels(model, own, seed, on_epoch, (own.epochs,), initial=initial)
            return Training(get_weights(model), history)

        return self._once("member", own, seed, train)

    def _fit_labels(
        self,
        model: keras.Model,
        settings: Settings,
        seed: int,
        on_epoch: OnEpoch | None,
        ends: Sequence[int],
        at_end: Callable[[int], None] | None = None,
        initial: str | None = None,
    ) -> History:
        """Fit a network to the labels, from its first step on."""
        return fit(
            model,
            self._views(
                self.training.images,
                targets(self.settings, self.training.labels, self._classes),
                settings.batch_size,
                seed,
            ),
            lambda epoch: learning_rate(settings, epoch, settings.epochs),
            ends,
            at_end=at_end,
            on_epoch=on_epoch,
            initial=fingerprint(*get_weights(model).values()) if initial is None else initial,
        )

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
        """Train a network further, on unlabeled images with soft labels and on the labeled ones.

        Soft labels are smoothed by half of the label smoothing: they are not sure already.
        """
        own = self.settings.replace(self_training_rounds=1)
        seed, epochs = self._seed("student", number), own.self_training_epochs

        def train(on_epoch: OnEpoch) -> Training:
            model = self._restarted(seed, teacher.weights)
            sharp = soft**_SHARPENING
            sharp /= sharp.sum(axis=-1, keepdims=True)
            labeled = self.training.take(np.tile(np.arange(len(self.training)), _REPEATS))
            y = np.concatenate(
                [
                    smoothed(sharp, own.label_smoothing / 2),
                    targets(own, labeled.labels, self._classes),
                ]
            )
            history = fit(
                model,
                self._views(joined(unlabeled.images, labeled.images), y, _STUDENT_BATCH, seed),
                lambda epoch: learning_rate(own, epoch, epochs),
                (epochs,),
                on_epoch=on_epoch,
            )
            return Training(get_weights(model), history)

        kind = f"student {number} of {fingerprint(unlabeled.fingerprints)}"
        return self._once(kind, own, seed, train)

    def _seed(self, kind: str, number: int) -> int:
        """Return the seed of a network, for the first of a kind the run's own."""
        if not number:
            return self.seed
        return int(generator(self.seed, f"{kind} {number}").integers(2**31))

    def _once(
        self, kind: str, settings: Settings, seed: int, train: Callable[[OnEpoch], Training]
    ) -> Training:
        """Return a training from where it is kept, or train and keep it."""
        versions = backends.versions()
        decides = [kind, settings.model_dump(), seed, self._data_fingerprint, versions]
        if self._start is not None:
            decides.append(fingerprint(*self._start.values()))
        name = fingerprint_of_json(decides)
        done = len(self.history.loss)

        def on_epoch(epoch: int, loss: float) -> None:
            if self._on_epoch:
                self._on_epoch(done + epoch, loss)

        training = self._kept.get(name)
        if training is None:
            training = train(on_epoch)
            self._kept[name] = training
        else:
            for epoch, loss in enumerate(training.history.loss, 1):
                on_epoch(epoch, loss)
        self.history += training.history
        if training.history.diverged:
            raise DivergedError
        return training

    @property
    def _classes(self) -> int:
        return len(self.training.class_names)

    def _network(self) -> keras.Model:
        return self._networks.of(self.settings, self.training.images.shape[1:], self._classes)

    def _restarted(self, seed: int, weights: Weights | None) -> keras.Model:
        model = self._network()
        restart(model, self.settings, seed, weights)
        return model

    def _views(self, x: Images, y: np.ndarray, batch_size: int, seed: int) -> Batches:
        strength = WARPS[self.settings.augmentation]
        return WarpedBatches(x, y, strength, batch_size=batch_size, seed=seed)

    def _mean(self, trainings: Sequence[Training], images: LabeledImages) -> np.ndarray:
        """Return the mean of the probabilities of networks, over views of each image."""
        s, model = self.settings, self._network()
        # Epochs that no training has reached.
        views = [_warped(images, s, s.epochs + view, self.seed) for view in range(s.views)]
        outputs = []
        for training in trainings:
            set_weights(model, training.weights)
            outputs += [softmax(predict(model, seen)) for seen in (images.images, *views)]
        self.model = model if len(trainings) == 1 else None
        return np.asarray(np.mean(outputs, axis=0))


def _warped(images: LabeledImages, settings: Settings, epoch: int, seed: int) -> LazyImages:
    """Return a view of each image, half as far from it as in training; its content decides it."""
    strength = WARPS[settings.augmentation].scaled(0.5)
    ids = np.array([int(name[:15], 16) for name in images.fingerprints])

    def read(positions: np.ndarray) -> np.ndarray:
        return warp(images.images[positions], ids[positions], epoch, seed, strength)

    return LazyImages(read, images.images.shape, np.dtype(np.float32))


def _features(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("flatten").output)
