"""A model's card: what is to be known of it besides its weights."""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from mnist_keras._foundations.fields import Fields, sentence
from mnist_keras._foundations.statistics import wilson_interval
from mnist_keras._foundations.texts import percent
from mnist_keras.datasets.images import DataError
from mnist_keras.inference.model_input import ModelInput
from mnist_keras.training.record import Array, Record
from mnist_keras.training.settings import Settings

_FORMAT = 3
# Said in every card, so that readers of the file need not guess.
_SCALE, _LOGITS, _FEATURES = "levels / 255", "logits", "features"


class ModelFileError(DataError):
    """A file that this package did not write, or that is damaged. The message names it."""


class Accuracy(Fields):
    """An accuracy on some images, with its 95 % interval (Wilson's)."""

    accuracy: float
    interval: Annotated[tuple[float, float], Field(strict=False)]
    n: int

    @classmethod
    def of(cls, given: np.ndarray, labels: np.ndarray) -> "Accuracy | None":
        """Return the accuracy of the classes given to images, or `None` without any."""
        if not (n := len(labels)):
            return None
        right = int((given == labels).sum())
        return cls(accuracy=right / n, interval=wilson_interval(right, n), n=n)


class Metrics(Fields):
    """What a model reached, at the end of its training."""

    training_loss: float
    training_accuracy: float | None = None
    test: Accuracy | None = None
    heldout: Accuracy | None = None

    def __str__(self) -> str:
        lines = [f"training loss {self.training_loss:.4f}"]
        for title, found in (("test", self.test), ("held-out", self.heldout)):
            if found:
                accuracy = percent(found.accuracy, found.interval, unit=" %")
                lines.append(f"{title} accuracy {accuracy}, n = {found.n:,}")
        return "\n".join(lines)


class Card(Fields):
    """What is to be known of a trained model, or of an encoder, besides its weights."""

    class_names: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...]
    """One name a logit; empty for an encoder, whose outputs are features."""
    input: ModelInput
    settings: Settings
    seed: Annotated[int, Field(ge=0)]
    """With the settings, what decided its training."""
    data_name: str
    """What it was trained on, as tables show it."""
    data_fingerprint: str
    """Hash of those images and labels, held-out ones among them."""
    metrics: Metrics
    """What it reached, alone: without other members and without views."""
    versions: Mapping[str, str]
    """Versions it was trained with; "backend" names the backend."""
    pretraining: str = ""
    """Of a model that began as an encoder's file: what that was trained on."""
    trained_on: Array
    """Content hashes of the images whose labels it has seen."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names are not different names")
        if min(self.input.form.image_size) < 1:
            raise ValueError(f"image_size {self.input.form.image_size}")
        if not self.settings.has_network:
            raise ValueError(f"{self.settings.model!r} is not a network")
        if not self.class_names and self.settings.model != "small_cnn":
            raise ValueError(f"an encoder of model {self.settings.model!r}")
        return self


def metrics_of(record: Record, given: np.ndarray | None = None) -> Metrics:
    """Return what a run reached at its end.

    The classes `given` to the test and then the held-out images replace those of the record.
    """
    history, epochs = record.history, record.run.settings.all_epochs
    accuracy = history.training_accuracy[epochs - 1]
    score = record.scores[epochs]
    n = len(record.test_labels)
    test, heldout = (score.test, score.heldout) if given is None else (given[:n], given[n:])
    return Metrics(
        training_loss=history.loss[epochs - 1],
        # With frozen features, no epoch has labels.
        training_accuracy=None if math.isnan(accuracy) else accuracy,
        test=Accuracy.of(test, record.test_labels),
        heldout=Accuracy.of(heldout, record.heldout_labels),
    )


def to_document(card: Card, checksums: Mapping[str, str]) -> dict[str, Any]:
    """Return a card as plain JSON values, with the checksums of the file's other parts."""
    return {
        "format": _FORMAT,
        "scale": _SCALE,
        "output": _LOGITS if card.class_names else _FEATURES,
        "sha256": dict(checksums),
        **card.model_dump(mode="json", exclude_none=True),
    }


def from_document(document: Any) -> tuple[Card, Mapping[str, str]]:
    """Return the card and the checksums of plain JSON values."""
    if not isinstance(document, dict):
        raise ModelFileError(f"its card cannot be read: {document!r}")
    said = [document.pop(key, None) for key in ("format", "scale", "output")]
    output = _LOGITS if document.get("class_names") else _FEATURES
    if said != [_FORMAT, _SCALE, output] or type(said[0]) is not int:
        raise ModelFileError("written by another version of mnist-keras")
    checksums = document.pop("sha256", None)
    if not isinstance(checksums, dict):
        raise ModelFileError("its card cannot be read: it has no checksums")
    try:
        return Card.model_validate_json(json.dumps(document)), checksums
    except ValidationError as error:
        raise ModelFileError(f"its card cannot be read: {sentence(error, Card)}") from error
