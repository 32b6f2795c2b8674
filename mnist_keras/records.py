"""The results folder: one file for each Run, and the tables made of them. The only writer."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnist_keras.runs import Run, Settings, fingerprint

_FORMAT = 2


class RecordError(ValueError):
    """A results folder or a record that cannot be used. The message names the file."""


@dataclass(frozen=True)
class Score:
    """The classes a model gave to the test and to the held-out images: `int64` arrays."""

    test: np.ndarray
    heldout: np.ndarray


@dataclass(frozen=True)
class Record:
    """What a Run gave.

    Attributes:
        run: What was trained.
        data_name: Name of the data, as tables show it.
        data_fingerprint: Hash of all images and labels.
        class_names: One name a class.
        test_labels: True classes of the test images.
        heldout_labels: True classes of the held-out images; empty without any.
        loss: Training loss of each epoch, the mean over its steps.
        accuracy: Training accuracy of each epoch, between 0 and 1.
        seconds: Wall-clock seconds of each epoch, without scoring.
        scores: By epoch, the classes given to test and held-out images.
        diverged: The epoch (from 1) whose loss was not finite, or `None`.
        digests: Hashes of the initial weights, of the batches in their order, and of the first
            epoch's dropout masks. They are equal wherever the run is the same.
        versions: Versions of what decides the numbers; `"backend"` names the backend.
    """

    run: Run
    data_name: str
    data_fingerprint: str
    class_names: tuple[str, ...]
    test_labels: np.ndarray
    heldout_labels: np.ndarray
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    seconds: tuple[float, ...]
    scores: dict[int, Score]
    diverged: int | None
    digests: Mapping[str, str]
    versions: Mapping[str, str]


def prepare(folder: Path) -> None:
    """Make the results folder and check that it can be written, before any training.

    Raises:
        RecordError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RecordError(f"{folder}: cannot be written: {error.strerror or error}") from error


def write_record(folder: Path, record: Record) -> Path:
    """Write a record under the name of its run and return the path."""
    body = _to_json(record)
    text = json.dumps({"sha256": _checksum(body), **body}, indent=1)
    name = fingerprint(record.run, record.data_fingerprint, record.versions)
    path = folder / "records" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
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
        return _from_json(document)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: not a record: {error!r}") from error


def read_records(folder: Path) -> list[Record]:
    """Return the records of a results folder, in the order of their names.

    Raises:
        RecordError: If there is none, or one cannot be used.
    """
    found = [read_record(path) for path in sorted((folder / "records").glob("*.json"))]
    if not found:
        raise RecordError(f"{folder}: holds no records; `mnist-keras run --output` writes them")
    return found


def write(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there, whenever the machine stops."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


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
            "test_labels": _pack(record.test_labels),
            "heldout_labels": _pack(record.heldout_labels),
        },
        # A loss that is not finite has no JSON number: it is written as null.
        "loss": [value if np.isfinite(value) else None for value in record.loss],
        "accuracy": list(record.accuracy),
        "seconds": list(record.seconds),
        "diverged": record.diverged,
        "digests": dict(record.digests),
        "scores": {
            str(epoch): {"test": _pack(score.test), "heldout": _pack(score.heldout)}
            for epoch, score in record.scores.items()
        },
    }


def _from_json(body: Mapping[str, Any]) -> Record:
    scores = {
        int(epoch): Score(_unpack(score["test"]), _unpack(score["heldout"]))
        for epoch, score in body["scores"].items()
    }
    data = body["data"]
    return Record(
        run=Run(settings=Settings(**body["settings"]), seed=body["seed"], scored_at=tuple(scores)),
        data_name=data["name"],
        data_fingerprint=data["fingerprint"],
        class_names=tuple(data["class_names"]),
        test_labels=_unpack(data["test_labels"]),
        heldout_labels=_unpack(data["heldout_labels"]),
        loss=tuple(float("nan") if value is None else value for value in body["loss"]),
        accuracy=tuple(body["accuracy"]),
        seconds=tuple(body["seconds"]),
        scores=scores,
        diverged=body["diverged"],
        digests=body["digests"],
        versions=body["versions"],
    )


def _pack(classes: np.ndarray) -> str:
    """Return classes as base64 of little-endian 16-bit integers: short, and plain JSON."""
    return base64.b64encode(classes.astype("<u2").tobytes()).decode("ascii")


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), "<u2").astype(np.int64)
