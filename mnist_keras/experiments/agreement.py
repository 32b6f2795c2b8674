"""Whether records of one run from several backends, machines or versions agree."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import starmap, zip_longest
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from mnist_keras.experiments.results_folder import ResultsFolder
from mnist_keras.training.record import Record, RecordError
from mnist_keras.training.run import Run
from mnist_keras.training.settings import ExperimentFields, Number

# Rounding errors grow from step to step, so agreement is promised for this many epochs only.
PROMISED_EPOCHS = 10


class Tolerance(ExperimentFields):
    """How far two records of one run may be apart.

    Initial weights, batches and dropout masks must be identical to the last bit.
    """

    first_epoch: Number = 1e-5
    """Largest difference of the first epoch's training loss."""
    loss: Number = 5e-3
    """Largest difference of the training loss in the first ten epochs."""
    predictions: Annotated[float, Field(ge=0, le=1)] = 0.995
    """Least share of test and held-out images given the same class, at the last scored epoch among
    the first ten."""
    normalized: Number = 0.05
    """Largest difference of small_cnn's loss in the first ten epochs, as a share of that loss.
    Nothing else is asked of this network: batch normalization multiplies rounding errors by two or
    three in each step."""

    def __str__(self) -> str:
        return (
            "Initial weights, batches and dropout masks identical; training loss within "
            f"{self.first_epoch:g} after the first epoch and {self.loss:g} in the first "
            f"{PROMISED_EPOCHS}; at least {self.predictions:.1%} of the predictions equal at the "
            "last epoch scored among them. Later epochs are shown, not judged. Of small_cnn, whose "
            "batch normalization multiplies rounding: identical as above, and the loss within "
            f"{self.normalized:.0%} in the first {PROMISED_EPOCHS} epochs; the rest is shown, not "
            "judged."
        )


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two records of one run, side by side."""

    run: Run
    first: str  # where the records come from
    second: str
    unequal: tuple[str, ...]  # which of "weights", "batches" and "masks" differ
    # Difference of the training loss, epoch by epoch. It is infinite where one of the records has
    # ended, or only one of the losses is finite.
    loss: tuple[float, ...]
    share: tuple[float, ...]  # the same as a share of the loss
    training_accuracy: float  # largest difference, between 0 and 1
    predictions: dict[int, float]  # by scored epoch, the share of images given the same class

    def outside(self, tolerance: Tolerance) -> list[str]:
        """Return what is outside the tolerance, in words; nothing if the two agree."""
        found = [f"{name} not identical" for name in self.unequal]
        if self.run.settings.model == "small_cnn":
            if max(self.share[:PROMISED_EPOCHS]) > tolerance.normalized:
                found.append(f"loss more than {tolerance.normalized:.0%} apart")
            return found
        if self.loss[0] > tolerance.first_epoch:
            found.append(f"first epoch's loss more than {tolerance.first_epoch:g} apart")
        if max(self.loss[:PROMISED_EPOCHS]) > tolerance.loss:
            found.append(f"loss more than {tolerance.loss:g} apart")
        promised = [share for epoch, share in self.predictions.items() if epoch <= PROMISED_EPOCHS]
        if promised and promised[-1] < tolerance.predictions:
            found.append(f"less than {tolerance.predictions:.1%} of predictions equal")
        return found


def named_records(folders: Iterable[Path]) -> list[tuple[str, Record]]:
    """Return the records of results folders, each with the name of its folder and its backend.

    Raises:
        RecordError: If a folder has no records, or one that cannot be used.
    """
    named = []
    for folder in folders:
        found, refused = ResultsFolder(folder).records()
        if refused:
            raise refused[0]
        if not found:
            raise RecordError(f"{folder}: no results of `mnist-keras run`")
        named += [(f"{folder.name} ({r.versions['backend']})", r) for r in found]
    return named


def compare(first: tuple[str, Record], second: tuple[str, Record]) -> Agreement:
    """Return the agreement of two records, each with its name; refuse other runs or data."""
    (name, one), (other_name, other) = first, second
    if _key(one) != _key(other):
        raise ValueError("expected two records of one run on the same data")
    mine, theirs = one.history, other.history
    # Without a network there is no loss.
    loss = _differences(mine.loss, theirs.loss) or (0.0,)
    pairs = zip_longest(loss, mine.loss, fillvalue=math.nan)
    accuracies = _differences(mine.training_accuracy, theirs.training_accuracy)
    scored = {e: (one.scores[e], other.scores[e]) for e in sorted({*one.scores} & {*other.scores})}
    return Agreement(
        run=one.run,
        first=name,
        second=other_name,
        unequal=tuple(
            key for key, value in mine.fingerprints.items() if value != theirs.fingerprints.get(key)
        ),
        loss=loss,
        share=tuple(apart / abs(whole) if apart else 0.0 for apart, whole in pairs),
        training_accuracy=max(accuracies, default=0.0),
        predictions={
            epoch: float(np.concatenate([a.test == b.test, a.heldout == b.heldout]).mean())
            for epoch, (a, b) in scored.items()
        },
    )


def compare_all(records: Iterable[tuple[str, Record]]) -> tuple[list[Agreement], list[str]]:
    """Compare the records of each run, each with its name, with the first one of that run.

    Also returned is a sentence for each run that was found only once.
    """
    by_run: dict[tuple[Run, str], list[tuple[str, Record]]] = {}
    for name, record in records:
        by_run.setdefault(_key(record), []).append((name, record))
    agreements = [compare(first, other) for first, *others in by_run.values() for other in others]
    alone = [
        f"only in {name}: {record.run.title} on {record.data_name}"
        for (name, record), *others in by_run.values()
        if not others
    ]
    return agreements, alone


def _key(record: Record) -> tuple[Run, str]:
    return record.run, record.data_fingerprint


def _differences(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    def apart(a: float | None, b: float | None) -> float:
        if a is None or b is None or math.isfinite(a) != math.isfinite(b):
            return math.inf
        return abs(a - b) if math.isfinite(a) else 0.0

    return tuple(starmap(apart, zip_longest(one, other)))


def agreement_table(agreements: Sequence[Agreement], tolerance: Tolerance) -> list[list[str]]:
    """Return header and rows: the differences of each pair of records, and the verdict."""
    header = [
        *("run", "compared", "Δ loss, epoch 1", f"Δ loss, epochs 1–{PROMISED_EPOCHS}"),
        *("Δ loss, later", "Δ accuracy", "equal predictions", "verdict"),
    ]
    return [header] + [
        [
            a.run.title,
            f"{a.first} – {a.second}",
            f"{a.loss[0]:.1e}",
            _largest(a.loss[:PROMISED_EPOCHS], 1),
            _largest(a.loss[PROMISED_EPOCHS:], 1 + PROMISED_EPOCHS),
            f"{100 * a.training_accuracy:.2f} %",
            ", ".join(f"{share:.2%} at {epoch}" for epoch, share in a.predictions.items()) or "–",
            "; ".join(a.outside(tolerance)) or "same run",
        ]
        for a in agreements
    ]


def _largest(differences: Sequence[float], first_epoch: int) -> str:
    if not differences:
        return "–"
    largest = max(differences)
    return f"{largest:.1e} at {first_epoch + differences.index(largest)}"
