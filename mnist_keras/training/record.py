"""What a run gave: plain numbers and arrays, on any backend, and their JSON."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, WithJsonSchema

from mnist_keras._foundations.fields import Fields, sentence
from mnist_keras._foundations.files import FileError
from mnist_keras.training.run import Run

FORMAT = 4

# Called with the epoch (from 1) and its training loss.
OnEpoch = Callable[[int, float], None]
# The weights of a model, by path.
Weights = Mapping[str, np.ndarray]


class DivergedError(ArithmeticError):
    """A training had a loss that is not finite."""


class RecordError(FileError):
    """A results folder or a record that cannot be used. The message names the file."""


def _pack(array: np.ndarray) -> dict[str, Any]:
    least = array
    if array.dtype.kind == "i" and array.size and array.min() >= 0:
        least = array.astype(np.min_scalar_type(array.max()))
    text = base64.b64encode(least.tobytes()).decode("ascii")
    return {"dtype": least.dtype.str, "shape": list(array.shape), "base64": text}


def _unpack(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    if set(given) != {"dtype", "shape", "base64"}:
        raise ValueError("an array needs dtype, shape and base64")
    content = base64.b64decode(given["base64"], validate=True)
    return np.frombuffer(content, np.dtype(given["dtype"])).reshape(given["shape"])


# In JSON, an array is its bytes in base64. Integers >= 0 take as few bytes as they need.
Array = Annotated[
    np.ndarray,
    BeforeValidator(_unpack),
    PlainSerializer(_pack, when_used="json"),
    WithJsonSchema({"type": "object"}),
]

# JSON has no NaN: a number that is not finite is null there.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None, when_used="json"),
]


class History(Fields):
    """The epochs of a stage, or of several: `+` puts one after the other."""

    loss: tuple[Number, ...] = ()
    """Training loss of each epoch, the mean over its steps."""
    training_accuracy: tuple[Number, ...] = ()
    """Accuracy on the training images, between 0 and 1; NaN where there are no labels."""
    crossentropy: tuple[Number, ...] = ()
    """Cross entropy with the hard labels, whatever the loss: a quantity to compare runs on."""
    focal: tuple[Number, ...] = ()
    """Focal loss with gamma 2 and the hard labels, whatever the loss."""
    seconds: tuple[float, ...] = ()
    """Wall-clock seconds of each epoch, without scoring."""
    cpu_seconds: tuple[float, ...] = ()
    """Processor seconds of each epoch, all threads together."""
    fingerprints: Mapping[str, str] = Field(default_factory=dict)
    """Fingerprints of the initial "weights", the "batches" in their order and the first epoch's
    dropout "masks". Two equal runs have equal ones."""

    @property
    def diverged(self) -> int | None:
        """The epoch (from 1) whose loss is not finite, or `None`."""
        return len(self.loss) if self.loss and not math.isfinite(self.loss[-1]) else None

    def __add__(self, other: "History") -> "History":
        own, others = dict(self), dict(other)
        mine, theirs = own.pop("fingerprints"), others.pop("fingerprints")
        both = {k: "-".join(filter(None, (mine.get(k), theirs.get(k)))) for k in mine | theirs}
        return History(**{name: own[name] + others[name] for name in own}, fingerprints=both)


@dataclass(frozen=True)
class Training:
    """What a stage gave: the last weights of its model, and its epochs."""

    weights: Weights
    history: History


class Score(Fields):
    """The classes that a model gave to the test and to the held-out images: integers, `(n,)`."""

    test: Array
    heldout: Array


class Mistakes(Fields):
    """A few images that are wrong at the end of a run, with their true and predicted classes.

    Images are `uint8` of shape `(n, height, width, channels)`.
    """

    images: Array
    labels: Array
    predicted: Array


class Record(Fields):
    """What a run gave."""

    run: Run
    """What was trained."""
    versions: Mapping[str, str]
    """Versions of the libraries that decide the numbers; "backend" names the backend."""
    data_name: str
    """Name of the data, as tables show it."""
    data_fingerprint: str
    """Hash of all images and labels."""
    class_names: tuple[str, ...]
    """Name of each class."""
    n_training: int
    """Number of labeled training images."""
    n_unlabeled: int
    """Number of images that were learned from without their labels."""
    test_labels: Array
    """True classes of the test images."""
    heldout_labels: Array
    """True classes of the held-out images; empty if there are none."""
    history: History
    """The epochs of all stages."""
    scores: dict[int, Score]
    """By epoch, the classes given to test and held-out images."""
    mistakes: Mistakes
    """A few images that were wrong at the end."""
    peak_memory: int
    """Most bytes that the process had held by the end of the run."""

    @property
    def name(self) -> str:
        """Hash of everything that decides the run's numbers."""
        return self.run.fingerprint(self.data_fingerprint, self.versions)


def to_json(record: Record) -> str:
    """Return a record as text, with its format and a checksum."""
    body = {"format": FORMAT, **record.model_dump(mode="json")}
    return json.dumps({"sha256": _checksum(body), **body}, indent=1)


def from_json(text: str | bytes) -> Record:
    """Return the record of a text.

    Raises:
        RecordError: If it is damaged, was written by another version or is not a record.
    """
    try:
        document = json.loads(text)
        claimed = document.pop("sha256")
        if claimed != _checksum(document):
            raise RecordError("damaged: its checksum does not match")
        if document.pop("format") != FORMAT:
            raise RecordError("written by another version of mnist-keras")
        return Record.model_validate_json(json.dumps(document))
    except RecordError:
        raise
    except ValidationError as error:
        raise RecordError(f"not a record: {sentence(error, Record)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"not a record: {error!r}") from error


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
