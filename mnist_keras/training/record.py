"""One file for each Run: written whole or not at all, and checked when it is read."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mnist_keras._foundations.files import FileError, write
from mnist_keras.training.run import Run, fingerprint
from mnist_keras.training.settings import Settings

_FORMAT = 3


class RecordError(FileError):
    """A results folder or a record that cannot be used. The message names the file."""


@dataclass(frozen=True)
class Score:
    """The classes a model gave to the test and to the held-out images: `int64` arrays."""

    test: np.ndarray
    heldout: np.ndarray


@dataclass(frozen=True)
class Mistakes:
    """Wrongly classified images: `uint8` of shape `(n, height, width, channels)`, and classes."""

    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Record:
    """What a Run gave.

    Attributes:
        run: What was trained.
        data_name: Name of the data, as tables show it.
        data_fingerprint: Hash of all images and labels.
        class_names: One name a class.
        n_training: Labeled images that were trained on.
        n_unlabeled: Images that were learned from without their labels.
        test_labels: True classes of the test images.
        heldout_labels: True classes of the held-out images; empty without any.
        loss: Training loss of each epoch, the mean over its steps.
        accuracy: Training accuracy of each epoch, between 0 and 1; NaN where it has no labels.
        losses: The mean of "crossentropy" and of "focal" (gamma 2) over each epoch's steps, so
            that runs trained with different losses compare on the same quantity; as `accuracy`.
        seconds: Wall-clock seconds of each epoch, without scoring.
        cpu_seconds: Processor seconds of each epoch, all threads together.
        peak_memory: Most bytes the process has held so far.
        scores: By epoch, the classes given to test and held-out images.
        mistakes: A few images that the run ended up getting wrong.
        diverged: The epoch (from 1) whose loss was not finite, or `None`.
        fingerprints: Hashes of the initial weights, of the batches in their order, and of the first
            epoch's dropout masks. They are equal wherever the run is the same.
        versions: Versions of what decides the numbers; `"backend"` names the backend.
    """

    run: Run
    data_name: str
    data_fingerprint: str
    class_names: tuple[str, ...]
    n_training: int
    n_unlabeled: int
    test_labels: np.ndarray
    heldout_labels: np.ndarray
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    losses: Mapping[str, tuple[float, ...]]
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    peak_memory: int
    scores: dict[int, Score]
    mistakes: Mistakes
    diverged: int | None
    fingerprints: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def name(self) -> str:
        """Hash of everything that decides the run's numbers."""
        return fingerprint(self.run, self.data_fingerprint, self.versions)


def write_record(folder: Path, record: Record) -> Path:
    """Write a record into a folder, under the name of its run, and return the path."""
    body = _to_json(record)
    text = json.dumps({"sha256": _checksum(body), **body}, indent=1)
    path = folder / f"{record.name}.json"
    write(path, text.encode())
    return path


def read_record(path: Path) -> Record:
    """Return the record of a file.

    Raises:
        RecordError: If the file cannot be read, or is not what was written.
    """
    try:
        document = json.loads(path.read_bytes())
        claimed = document.pop("sha256")
        if claimed != _checksum(document):
            raise RecordError(f"{path}: damaged: its checksum does not match")
        if document["format"] != _FORMAT:
            raise RecordError(f"{path}: written by another version of mnist-keras")
        record = _from_json(document)
        if record.name != path.stem:
            raise RecordError(f"{path}: not the record of that name, but of {record.name}")
        return record
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: not a record: {error!r}") from error


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _to_json(record: Record) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "versions": dict(record.versions),
        "seed": record.run.seed,
        "settings": asdict(record.run.settings),
        "data": {
            "name": record.data_name,
            "fingerprint": record.data_fingerprint,
            "class_names": list(record.class_names),
            "n_training": record.n_training,
            "n_unlabeled": record.n_unlabeled,
            "test_labels": _pack(record.test_labels),
            "heldout_labels": _pack(record.heldout_labels),
        },
        "loss": _pack_numbers(record.loss),
        "losses": {name: _pack_numbers(values) for name, values in record.losses.items()},
        "accuracy": _pack_numbers(record.accuracy),
        "seconds": list(record.seconds),
        "cpu_seconds": list(record.cpu_seconds),
        "peak_memory": record.peak_memory,
        "diverged": record.diverged,
        "fingerprints": dict(record.fingerprints),
        "scores": {
            str(epoch): {"test": _pack(score.test), "heldout": _pack(score.heldout)}
            for epoch, score in record.scores.items()
        },
        "mistakes": {
            "shape": list(record.mistakes.images.shape),
            "images": base64.b64encode(record.mistakes.images.tobytes()).decode("ascii"),
            "labels": _pack(record.mistakes.labels),
            "predicted": _pack(record.mistakes.predicted),
        },
    }


def _from_json(body: Mapping[str, Any]) -> Record:
    scores = {
        int(epoch): Score(_unpack(score["test"]), _unpack(score["heldout"]))
        for epoch, score in body["scores"].items()
    }
    data, wrong = body["data"], body["mistakes"]
    pixels = np.frombuffer(base64.b64decode(wrong["images"], validate=True), np.uint8)
    return Record(
        run=Run(settings=Settings(**body["settings"]), seed=body["seed"], scored_at=tuple(scores)),
        data_name=data["name"],
        data_fingerprint=data["fingerprint"],
        class_names=tuple(data["class_names"]),
        n_training=data["n_training"],
        n_unlabeled=data["n_unlabeled"],
        test_labels=_unpack(data["test_labels"]),
        heldout_labels=_unpack(data["heldout_labels"]),
        loss=_unpack_numbers(body["loss"]),
        accuracy=_unpack_numbers(body["accuracy"]),
        losses={name: _unpack_numbers(values) for name, values in body["losses"].items()},
        seconds=tuple(body["seconds"]),
        cpu_seconds=tuple(body["cpu_seconds"]),
        peak_memory=body["peak_memory"],
        scores=scores,
        mistakes=Mistakes(
            images=pixels.reshape(wrong["shape"]),
            labels=_unpack(wrong["labels"]),
            predicted=_unpack(wrong["predicted"]),
        ),
        diverged=body["diverged"],
        fingerprints=body["fingerprints"],
        versions=body["versions"],
    )


def _pack_numbers(values: Sequence[float]) -> list[float | None]:
    """Return numbers as JSON has them: one that is not finite has no number and becomes null."""
    return [value if np.isfinite(value) else None for value in values]


def _unpack_numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(float("nan") if value is None else value for value in values)


def _pack(classes: np.ndarray) -> str:
    """Return classes as base64 of little-endian 16-bit integers: short, and plain JSON."""
    return base64.b64encode(classes.astype("<u2").tobytes()).decode("ascii")


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), "<u2").astype(np.int64)


# Called with the epoch (from 1) and its training loss.
OnEpoch = Callable[[int, float], None]
# Of a network, by path.
Weights = Mapping[str, np.ndarray]


@dataclass
class History:
    """The epochs of a training; those of several, one after the other, are added by `+`.

    Attributes:
        loss: Training loss of each epoch, the mean over its steps.
        accuracy: Training accuracy, between 0 and 1; NaN where there are no labels.
        losses: The same of `"crossentropy"` and of `"focal"`; NaN where there are no labels.
        seconds: Wall-clock seconds, without scoring.
        cpu_seconds: Processor seconds, all threads together.
        initial: Digest of the initial weights; empty if they come from another training.
        masks: Digest of the first epoch's dropout masks.
        batches: Digest of the batches in their order.
        diverged: Whether the last epoch's loss is not finite.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(
        default_factory=lambda: {"crossentropy": [], "focal": []}
    )
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    initial: str = ""
    masks: str = ""
    batches: str = ""
    diverged: bool = False

    def __add__(self, other: "History") -> "History":
        def both(name: str) -> str:
            return "-".join(filter(None, (getattr(self, name), getattr(other, name))))

        return History(
            loss=self.loss + other.loss,
            accuracy=self.accuracy + other.accuracy,
            losses={name: values + other.losses[name] for name, values in self.losses.items()},
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            initial=both("initial"),
            masks=both("masks"),
            batches=both("batches"),
            diverged=self.diverged or other.diverged,
        )


@dataclass(frozen=True)
class Training:
    """One training: the weights its network ended with, and its epochs."""

    weights: Weights
    history: History
