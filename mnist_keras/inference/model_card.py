"""A model's card: what is to be known of it besides its weights."""

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from mnist_keras._foundations.files import escaped
from mnist_keras._foundations.statistics import wilson_interval
from mnist_keras.datasets.image_folder.decoding import CHANNELS, Interpolation
from mnist_keras.datasets.image_folder.reading import ImageForm
from mnist_keras.datasets.images import FINGERPRINT, DataError, LabeledImages
from mnist_keras.inference.model_input import Background, ModelInput
from mnist_keras.training.record import Record
from mnist_keras.training.settings import NETWORKS, ExperimentError, Settings, check_word

_FORMAT = 2
_LONGEST_NAME = 1000
# Said of every model, so that who reads the file need not guess.
_SCALE, _LOGITS, _FEATURES = "levels / 255", "logits", "features"


class ModelFileError(DataError):
    """A file that is not a model written by this package, or is damaged. The message names it."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is to be known of a trained model, or of an encoder, besides its weights.

    Attributes:
        class_names: One name a logit; empty for an encoder, whose outputs are features.
        input: The images it takes.
        settings: How it was trained.
        seed: Of that training.
        data_name: What it was trained on, as tables show it.
        data_fingerprint: Hash of those images and labels, held-out ones among them.
        trained_on: Content hashes of the images whose labels it has seen.
        metrics: `"training_loss"` and `"training_accuracy"` of the last epoch; for `"test"` and,
            where there are any, `"heldout"` images their `"accuracy"`, its 95 % `"interval"`
            (Wilson's) and `"n"`.
        versions: Versions it was trained with; `"backend"` names the backend.
        pretraining: Of a model that began as an encoder's file: what that was trained on.
    """

    class_names: tuple[str, ...]
    input: ModelInput
    settings: Settings
    seed: int
    data_name: str
    data_fingerprint: str
    trained_on: np.ndarray
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    pretraining: str = ""


def card_of(record: Record, seen: LabeledImages, pretraining: str = "") -> Card:
    """Return the card of a finished training.

    Args:
        record: What it gave.
        seen: The images that were trained on.
        pretraining: As for `Card`.
    """
    return Card(
        class_names=record.class_names,
        input=ModelInput.of(seen.images),
        settings=record.run.settings,
        seed=record.run.seed,
        data_name=record.data_name,
        data_fingerprint=record.data_fingerprint,
        trained_on=seen.fingerprints,
        metrics=_metrics(record),
        versions=record.versions,
        pretraining=pretraining,
    )


def _metrics(record: Record) -> dict[str, Any]:
    epochs = record.run.settings.all_epochs
    found: dict[str, Any] = {
        "training_loss": record.loss[epochs - 1],
        "training_accuracy": record.accuracy[epochs - 1],
    }
    if math.isnan(found["training_accuracy"]):  # frozen features: no epoch has labels
        del found["training_accuracy"]
    score = record.scores[epochs]
    for name, given, labels in (
        ("test", score.test, record.test_labels),
        ("heldout", score.heldout, record.heldout_labels),
    ):
        if n := len(labels):
            right = int((given == labels).sum())
            interval = list(wilson_interval(right, n))
            found[name] = {"accuracy": right / n, "interval": interval, "n": n}
    return found


def to_json(card: Card, checksums: Mapping[str, str]) -> dict[str, Any]:
    """Return a card as plain JSON values, with the checksums of the file's other parts."""
    form = card.input.form
    return {
        "format": _FORMAT,
        "class_names": list(card.class_names),
        "input": {
            "color_mode": form.color_mode,
            "image_size": list(form.image_size),
            "interpolation": form.interpolation,
            "scale": _SCALE,
            "background": card.input.background,
            "resized": card.input.resized,
        },
        "output": _LOGITS if card.class_names else _FEATURES,
        "settings": asdict(card.settings),
        "seed": card.seed,
        "data": {"name": card.data_name, "fingerprint": card.data_fingerprint},
        "metrics": dict(card.metrics),
        "versions": dict(card.versions),
        "pretraining": card.pretraining,
        "sha256": dict(checksums),
        "trained_on": base64.b64encode(b"".join(card.trained_on.tolist())).decode("ascii"),
    }


def from_json(document: Mapping[str, Any]) -> tuple[Card, Mapping[str, str]]:
    """Return the card and the checksums of plain JSON values.

    Raises:
        ModelFileError: If another version wrote them.
        ValueError: If they are no card; also `KeyError`, `TypeError` or `AttributeError`.
    """
    takes, data = document["input"], document["data"]
    names = document["class_names"]
    said = [document["format"], document["output"], takes["scale"]]
    kinds = [type(document["format"]), type(takes["resized"])]
    output = _FEATURES if names == [] else _LOGITS
    if said != [_FORMAT, output, _SCALE] or kinds != [int, bool]:
        raise ModelFileError("written by another version of mnist-keras")
    height, width = takes["image_size"]
    if not all(type(side) is int and side > 0 for side in (height, width)):
        raise ValueError(f"image_size {takes['image_size']!r}")
    if not isinstance(names, list) or len(set(names)) < len(names):
        raise ValueError("class_names are no list of different names")
    if not all(0 < len(name) <= _LONGEST_NAME and escaped(name) == name for name in names):
        raise ValueError("class_names that cannot be shown")
    if type(document["seed"]) is not int or document["seed"] < 0:
        raise ValueError(f"seed {document['seed']!r}")
    try:
        check_word("color_mode", takes["color_mode"], CHANNELS)
        check_word("interpolation", takes["interpolation"], get_args(Interpolation))
        check_word("background", takes["background"], get_args(Background))
        settings = Settings(**document["settings"])
        check_word("model", settings.model, NETWORKS)
    except ExperimentError as error:
        raise ValueError(str(error)) from error
    if not names and settings.model != "small_cnn":
        raise ValueError(f"an encoder of model {settings.model!r}")
    form = ImageForm(takes["color_mode"], (height, width), takes["interpolation"])
    fingerprints = np.frombuffer(
        base64.b64decode(document["trained_on"], validate=True), FINGERPRINT
    )
    return Card(
        class_names=tuple(names),
        input=ModelInput(form, takes["background"], takes["resized"]),
        settings=settings,
        seed=document["seed"],
        data_name=str(data["name"]),
        data_fingerprint=str(data["fingerprint"]),
        trained_on=fingerprints,
        metrics=dict(document["metrics"]),
        versions={str(k): str(v) for k, v in document["versions"].items()},
        pretraining=str(document["pretraining"]),
    ), document["sha256"]
