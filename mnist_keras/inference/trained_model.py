"""A trained model with its card, and how both are made."""

from dataclasses import dataclass

import keras
import numpy as np

from mnist_keras._foundations import backends
from mnist_keras.datasets.images import LabeledImages
from mnist_keras.inference.model_card import Card, Metrics, ModelFileError, metrics_of
from mnist_keras.inference.model_input import ModelInput
from mnist_keras.models.prediction import predict
from mnist_keras.training import representation
from mnist_keras.training.data import Data
from mnist_keras.training.engine import train
from mnist_keras.training.networks import build_model, count_parameters, get_weights
from mnist_keras.training.record import DivergedError, History, OnEpoch
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

# What the weights of a file may hold.
MOST_BYTES = 2**31


@dataclass(frozen=True)
class TrainedModel:
    """A model of logits, or an encoder, and its card."""

    model: keras.Model
    card: Card

    def untrained(self) -> keras.Model:
        """Return the same network with the weights it had before training."""
        card = self.card
        return build_model(card.settings, card.input.form.shape, len(card.class_names), card.seed)


def train_model(
    settings: Settings,
    seed: int,
    data: Data,
    start: TrainedModel | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainedModel:
    """Train one network for a file.

    Args:
        settings: How to train. Several members without a student are refused: a file holds one.
        seed: Of the training.
        data: The images of the seed.
        start: An encoder to begin with.
        on_epoch: Called with the epoch (from 1) and its training loss.

    Raises:
        ModelFileError: If the network is too large for a file, several networks would answer, or
            the encoder takes other images.
        DivergedError: If the loss stopped being finite; it says at which epoch.
    """
    shape, class_names = data.images.images.shape[1:], data.images.class_names
    check_size(settings, shape, len(class_names))
    if not settings.is_one_network:
        raise ModelFileError("a file holds one network, and these settings ask for several")
    if start and start.card.input.form.shape != shape:
        takes, found = ("×".join(map(str, s)) for s in (start.card.input.form.shape, shape))
        raise ModelFileError(f"the encoder takes {takes}, the images are {found}")
    weights, origin = None, ""
    if start:
        weights, by = get_weights(start.model), start.card.settings
        epochs = f"{by.pretraining_epochs} epochs of {start.card.data_name}"
        origin = f"{by.pretraining}, {epochs} without labels"
    trained = train(Run.whole(settings, seed), data, on_epoch=on_epoch, start=weights)
    record, model = trained.record, trained.model
    seen, test = data.split(settings, seed)
    # What the last step does is in no epoch's loss.
    if model is None or not np.isfinite(predict(model, seen.images)).all():
        epoch = record.history.diverged or settings.all_epochs
        raise DivergedError(f"diverged at epoch {epoch}; nothing is written")
    alone = None
    if settings.views:  # the record's classes are those of the image and its views together
        alone = predict(model, test.extended(data.heldout).images).argmax(axis=-1)
    card = Card(
        class_names=class_names,
        input=ModelInput.of(seen.images),
        settings=settings,
        seed=seed,
        data_name=record.data_name,
        data_fingerprint=record.data_fingerprint,
        metrics=metrics_of(record, alone),
        versions=record.versions,
        pretraining=origin,
        trained_on=seen.fingerprints,
    )
    return TrainedModel(model, card)


def pretrain_encoder(
    settings: Settings, seed: int, images: LabeledImages, on_epoch: OnEpoch | None = None
) -> tuple[TrainedModel, History]:
    """Train an encoder for a file without looking at labels; also return what each epoch gave.

    Of the settings, `pretraining`, `pretraining_epochs`, `width` and `activation` count.
    """
    encoder, history = representation.pretrain(
        images.sorted_by_content().images,
        settings.pretraining,
        settings.pretraining_epochs,
        activation=settings.activation,
        width=settings.width or 16,
        seed=seed,
        on_epoch=on_epoch,
    )
    if history.diverged:
        raise DivergedError(f"diverged at epoch {history.diverged}; nothing is written")
    card = Card(
        class_names=(),
        input=ModelInput.of(images.images),
        settings=settings,
        seed=seed,
        data_name=images.name,
        data_fingerprint=images.fingerprint,
        metrics=Metrics(training_loss=history.loss[-1]),
        versions=backends.versions(),
        trained_on=images.fingerprints[:0],
    )
    return TrainedModel(encoder, card), history


def check_size(settings: Settings, input_shape: tuple[int, ...], num_classes: int) -> int:
    """Return how many bytes the weights of a model are, if a file may hold that many."""
    if (size := 4 * count_parameters(settings, input_shape, num_classes)) > MOST_BYTES:
        raise ModelFileError(
            f"a {settings.model} of {' × '.join(map(str, input_shape))} and {num_classes} classes "
            f"has {size:,} bytes of weights; files hold up to {MOST_BYTES:,}"
        )
    return size
