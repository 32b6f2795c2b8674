"""One file for each Run: written whole or not at all, and checked when it is read."""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnist_keras.runs import Run, fingerprint
from mnist_keras.settings import Settings

_FORMAT = 3


class RecordError(ValueError):
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
        n_training: Labelled images that were trained on.
        n_unlabelled: Images that were learned from without their labels.
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
        digests: Hashes of the initial weights, of the batches in their order, and of the first
            epoch's dropout masks. They are equal wherever the run is the same.
        versions: Versions of what decides the numbers; `"backend"` names the backend.
    """

    run: Run
    data_name: str
    data_fingerprint: str
    class_names: tuple[str, ...]
    n_training: int
    n_unlabelled: int
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
    digests: Mapping[str, str]
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


def write(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there, whenever the machine stops."""
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def whole(path: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield the name of a file or folder to write; it takes the place of `path` when it is whole.

    Args:
        path: Its place; what is there is replaced.
        suffix: Of the name to write, for who goes by it. Defaults to that of `path`.

    Raises:
        RecordError: If it cannot be written.
    """
    unfinished = _unfinished(path, path.suffix if suffix is None else suffix)
    try:
        yield unfinished
        if unfinished.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be made, before anything is done for it.

    Raises:
        RecordError: If it cannot be written.
    """
    trial = _unfinished(path, path.suffix)
    try:
        trial.touch()
        trial.unlink()
        path.exists()  # raises if the name is too long
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror or error}") from error


def _unfinished(path: Path, suffix: str) -> Path:
    # Cut short: with its endings, a name may become longer than file systems allow.
    return path.with_name(f".{path.name[:99]}.{os.getpid()}.unfinished{suffix}")


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
            "n_unlabelled": record.n_unlabelled,
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
        "digests": dict(record.digests),
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
        n_unlabelled=data["n_unlabelled"],
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
        digests=body["digests"],
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
