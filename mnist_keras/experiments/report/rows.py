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

    Attributes:
        arm: The arm.
        n_training: Labeled images that one run was trained on.
        n_unlabeled: Held-out images that it learned from without their labels.
        seeds: Seeds of the runs that reached the arm's last epoch.
        test: Accuracy on the test images at each seed.
        n_test: Test images of one run.
        heldout: Accuracy on the held-out images at each seed; empty without any.
        n_heldout: Held-out images of one run.
        loss: Training loss of each epoch, at each seed.
        training_accuracy: Accuracy on the training images after each epoch, at each seed.
        seconds: Seconds of training up to the arm's last epoch, at each seed.
        cpu_seconds: The same in processor seconds.
        peak_memory: Most bytes that the process of one of the runs had held.
        confusion: How often held-out images of each class (row) were given each class (column),
            over all seeds; of test images if none are held out, and empty before any run is done.
        diverged: The epoch whose loss was not finite, by seed.
        missing: Seeds without a record.
    """

    arm: Arm
    n_training: int
    n_unlabeled: int
    seeds: tuple[int, ...]
    test: tuple[float, ...]
    n_test: int
    heldout: tuple[float, ...]
    n_heldout: int
    loss: tuple[tuple[float, ...], ...]
    training_accuracy: tuple[tuple[float, ...], ...]
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    peak_memory: int
    confusion: tuple[tuple[int, ...], ...]
    diverged: Mapping[int, int]
    missing: tuple[int, ...]

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
    """All tables of a plan.

    Attributes:
        plan: What was to be run, and on which data.
        tables: One for each experiment.
        missing_runs: How many of the planned runs have no record.
        class_names: One name for each class.
        mistakes: Some misclassified images of each run, with the run's title.
    """

    plan: Plan
    tables: Sequence[Table]
    missing_runs: int
    class_names: Sequence[str]
    mistakes: Sequence[tuple[str, Mistakes]]

    @property
    def planned_runs(self) -> int:
        """How many runs are planned."""
        return len(self.plan.runs)


def results(plan: Plan, records: Sequence[Record]) -> Results:
    """Return all tables of a plan from those records that belong to it."""
    chosen = choose(plan, records)
    runs = plan.runs
    done = [chosen[run] for run in runs if run in chosen]
    return Results(
        plan=plan,
        tables=[
            Table(
                experiment=experiment,
                rows=[row(arm, runs, chosen) for arm in experiment.arms],
                verdicts=verdicts(experiment, chosen),
            )
            for experiment in plan.experiments
        ],
        missing_runs=len(runs) - len(done),
        class_names=done[0].class_names if done else (),
        mistakes=[
            (run.title, chosen[run].mistakes)
            for run in runs
            if run in chosen and len(chosen[run].mistakes.labels)
        ],
    )


def row(arm: Arm, planned: Iterable[Run], chosen: Mapping[Run, Record]) -> Row:
    """Return the row of an arm from the record of each run."""
    end = arm.settings.all_epochs
    by_seed = sorted(planned, key=lambda run: run.seed)
    covering = [run for run in by_seed if run.covers(arm.settings)]
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
        score = record.scores[epoch]
        if len(record.heldout_labels):
            np.add.at(counts, (record.heldout_labels, score.heldout), 1)
        else:
            np.add.at(counts, (record.test_labels, score.test), 1)
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
