"""Records become rows: what the report says of an arm beside what was measured, seed by seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mnist_keras.experiment import Arm, Experiment
from mnist_keras.records import Record

REPORTED_N = 100  # test images of the report


@dataclass(frozen=True)
class Row:
    """One arm: what the report says and what was measured, seed by seed.

    Accuracies are between 0 and 1. Diverged runs are counted, and are in no other number.

    Attributes:
        arm: The arm.
        seeds: Seeds of the runs that reached the arm's last epoch.
        test: Accuracy on the test images, one a seed.
        n_test: Test images of one run.
        heldout: Accuracy on the held-out images, one a seed; empty without any.
        n_heldout: Held-out images of one run.
        loss: Training loss of each epoch, one sequence a seed.
        seconds: Seconds of training up to the arm's last epoch, one a seed.
        diverged: The epoch whose loss was not finite, by seed.
    """

    arm: Arm
    seeds: tuple[int, ...]
    test: tuple[float, ...]
    n_test: int
    heldout: tuple[float, ...]
    n_heldout: int
    loss: tuple[tuple[float, ...], ...]
    seconds: tuple[float, ...]
    diverged: Mapping[int, int]

    @property
    def mean_loss(self) -> list[float]:
        """Training loss of each epoch, averaged over the seeds."""
        return [fmean(values) for values in zip(*self.loss, strict=True)]


@dataclass(frozen=True)
class Results:
    """All rows of a run of the program, and where they come from.

    Attributes:
        tables: The rows of each experiment.
        data: Name of the data.
        versions: Versions of what decides the numbers; `"backend"` names the backend.
        note: Said above the tables, e.g. that the data is not the report's; may be empty.
    """

    tables: Sequence[tuple[Experiment, Sequence[Row]]]
    data: str
    versions: Mapping[str, str]
    note: str = ""


def row(arm: Arm, records: Iterable[Record]) -> Row:
    """Return the row of an arm from the records of all runs."""
    epochs = arm.settings.epochs
    own = sorted(
        (r for r in records if r.run.covers(arm.settings)), key=lambda record: record.run.seed
    )
    done = [record for record in own if epochs in record.scores]
    scored = [record for record in done if len(record.heldout_labels)]
    return Row(
        arm=arm,
        seeds=tuple(record.run.seed for record in done),
        test=tuple(float((r.scores[epochs].test == r.test_labels).mean()) for r in done),
        n_test=len(done[0].test_labels) if done else 0,
        heldout=tuple(float((r.scores[epochs].heldout == r.heldout_labels).mean()) for r in scored),
        n_heldout=len(scored[0].heldout_labels) if scored else 0,
        loss=tuple(record.loss[:epochs] for record in done),
        seconds=tuple(sum(record.seconds[:epochs]) for record in done),
        diverged={r.run.seed: r.diverged for r in own if r.diverged and r.diverged <= epochs},
    )


def distinct_curves(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose loss curve is not the beginning of another row's.

    A row with a reported curve of its own is always among them.
    """
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: -row.arm.settings.epochs):
        within = any(other.mean_loss[: len(row.mean_loss)] == row.mean_loss for other in kept)
        if row.arm.reported_loss or not within:
            kept.append(row)
    return [row for row in rows if row in kept]
