"""Records become rows: what the original says of an arm beside what was measured, by seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from mnist_keras.experiments.experiment import Arm, Experiment
from mnist_keras.experiments.plan import Plan, choose
from mnist_keras.experiments.verdicts import Verdict, verdicts
from mnist_keras.training.record import Mistakes, Record
from mnist_keras.training.run import Run

REPORTED_N = 100  # test images of the original


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm: what the original says and what was measured, seed by seed.

    Accuracies are between 0 and 1. Diverged runs are counted, and enter no other number.
    """

    arm: Arm
    n_training: int  # labeled images that one run was trained on
    n_unlabeled: int  # held-out images that it learned from without their labels
    seeds: tuple[int, ...]  # those of the runs that reached the arm's last epoch
    test: tuple[float, ...]  # accuracy on the test images, at each seed
    n_test: int  # test images of one run
    heldout: tuple[float, ...]  # accuracy on the held-out images, at each seed; empty without any
    n_heldout: int  # held-out images of one run
    loss: tuple[tuple[float, ...], ...]  # training loss of each epoch, at each seed
    training_accuracy: tuple[tuple[float, ...], ...]  # after each epoch, at each seed
    seconds: tuple[float, ...]  # of training up to the arm's last epoch, at each seed
    cpu_seconds: tuple[float, ...]  # the same in processor seconds
    peak_memory: int  # most bytes that the process of one of the runs had held
    # How often images of each class (row) were given each class (column), over all seeds: held-out
    # images, else test images; empty before any run is done.
    confusion: tuple[tuple[int, ...], ...]
    diverged: Mapping[int, int]  # the epoch whose loss was not finite, by seed
    missing: tuple[int, ...]  # seeds without a record

    @property
    def reported_accuracy(self) -> float | None:
        """What the original says, between 0 and 1, or `None`."""
        percent = self.arm.reported_accuracy
        return None if percent is None else percent / 100

    @property
    def mean_loss(self) -> list[float]:
        """Training loss of each epoch, averaged over the seeds."""
        return [fmean(values) for values in zip(*self.loss, strict=True)]


@dataclass(frozen=True)
class Table:
    """One experiment: its rows, and the verdict on each of its claims."""

    experiment: Experiment
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]

    @property
    def has_curves(self) -> bool:
        """Whether the losses of all arms can be shown side by side, epoch by epoch."""
        return all(row.arm.settings.is_one_stage for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Results:
    """All tables of a plan."""

    plan: Plan  # what was to be run, and on which data
    tables: Sequence[Table]  # one for each experiment
    missing_runs: int  # how many of the planned runs have no record
    class_names: Sequence[str]
    mistakes: Sequence[tuple[str, Mistakes]]  # of each run, with its title


def results(plan: Plan, records: Sequence[Record]) -> Results:
    """Return all tables of a plan from those records that belong to it."""
    runs, chosen = plan.runs, choose(plan, records)
    done = list(chosen.items())
    tables = [
        Table(e, [row(arm, runs, chosen) for arm in e.arms], verdicts(e, chosen))
        for e in plan.experiments
    ]
    return Results(
        plan=plan,
        tables=tables,
        missing_runs=len(runs) - len(done),
        class_names=done[0][1].class_names if done else (),
        mistakes=[(run.title, r.mistakes) for run, r in done if len(r.mistakes.labels)],
    )


def row(arm: Arm, planned: Iterable[Run], chosen: Mapping[Run, Record]) -> Row:
    """Return the row of an arm from the record of each run."""
    end = arm.settings.all_epochs
    covering = [run for run in planned if run.covers(arm.settings)]
    covering.sort(key=lambda run: run.seed)
    own = [chosen[run] for run in covering if run in chosen]
    done = [record for record in own if end in record.scores]
    scored = [record for record in done if len(record.heldout_labels)]
    diverged = {record.run.seed: record.history.diverged for record in own}
    return Row(
        arm=arm,
        n_training=done[0].n_training if done else 0,
        n_unlabeled=done[0].n_unlabeled if done else 0,
        seeds=tuple(record.run.seed for record in done),
        test=tuple(float((r.scores[end].test == r.test_labels).mean()) for r in done),
        n_test=len(done[0].test_labels) if done else 0,
        heldout=tuple(float((r.scores[end].heldout == r.heldout_labels).mean()) for r in scored),
        n_heldout=len(scored[0].heldout_labels) if scored else 0,
        loss=tuple(record.history.loss[:end] for record in done),
        training_accuracy=tuple(record.history.training_accuracy[:end] for record in done),
        seconds=tuple(sum(record.history.seconds[:end]) for record in done),
        cpu_seconds=tuple(sum(record.history.cpu_seconds[:end]) for record in done),
        peak_memory=max((record.peak_memory for record in done), default=0),
        confusion=_confusion(done, end),
        diverged={seed: epoch for seed, epoch in diverged.items() if epoch and epoch <= end},
        missing=tuple(run.seed for run in covering if run not in chosen),
    )


def _confusion(records: Sequence[Record], epoch: int) -> tuple[tuple[int, ...], ...]:
    if not records:
        return ()
    counts = np.zeros((len(records[0].class_names),) * 2, np.int64)
    for record in records:
        score, held = record.scores[epoch], len(record.heldout_labels)
        labels = record.heldout_labels if held else record.test_labels
        np.add.at(counts, (labels, score.heldout if held else score.test), 1)
    return tuple(map(tuple, counts.tolist()))


def distinct_curves(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose loss curve is not the beginning of another row's.

    A row with a reported curve of its own is always among them.
    """
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: -row.arm.settings.all_epochs):
        within = any(other.mean_loss[: len(row.mean_loss)] == row.mean_loss for other in kept)
        if row.arm.reported_loss or not within:
            kept.append(row)
    return [row for row in rows if row in kept]
