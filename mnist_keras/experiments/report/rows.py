"""Records become rows: what the report says of an arm beside what was measured, seed by seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from mnist_keras.experiments.experiment import Arm, Experiment
from mnist_keras.experiments.plan import Plan, choose
from mnist_keras.experiments.verdicts import Verdict, verdicts
from mnist_keras.training.record import Mistakes, Record
from mnist_keras.training.run import Run

REPORTED_N = 100  # test images of the report


@dataclass(frozen=True)
class Row:
    """One arm: what the report says and what was measured, seed by seed.

    Accuracies are between 0 and 1. Diverged runs are counted, and are in no other number.

    Attributes:
        arm: The arm.
        n_training: Labeled images that one run was trained on.
        n_unlabeled: Held-out images that it learned from without their labels.
        seeds: Seeds of the runs that reached the arm's last epoch.
        test: Accuracy on the test images, one a seed.
        n_test: Test images of one run.
        heldout: Accuracy on the held-out images, one a seed; empty without any.
        n_heldout: Held-out images of one run.
        loss: Training loss of each epoch, one sequence a seed.
        training_accuracy: The same for the accuracy on the training images.
        seconds: Seconds of training up to the arm's last epoch, one a seed.
        cpu_seconds: The same in processor seconds.
        peak_memory: Most bytes that the process of one of the runs had held.
        confusion: How often held-out (or, without any, test) images of each class, by line, were
            given each class, by column, over all seeds; empty before any run is done.
        diverged: The epoch whose loss was not finite, by seed.
        missing: Seeds whose run is not there.
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
        """Whether the losses of all arms can stand side by side, epoch by epoch."""
        return all(row.arm.settings.is_one_training for row in self.rows)


@dataclass(frozen=True)
class Results:
    """All tables of a plan, and where they come from.

    Attributes:
        tables: One for each experiment.
        data: Name of the data.
        fingerprints: Hash of the data of each seed.
        class_names: One name a class.
        versions: Versions of what decides the numbers; `"backend"` names the backend.
        note: Said above the tables, e.g. that the data is not the original's; may be empty.
        left_out: Files that were not used, each with the reason.
        samples: By class, a PNG in base64 of a few of its images.
        missing: How many of the planned runs are not there.
        planned: How many runs are planned.
        mistakes: Some wrongly classified images of each run, with the run's title.
    """

    tables: Sequence[Table]
    data: str
    fingerprints: Mapping[int, str]
    class_names: Sequence[str]
    versions: Mapping[str, str]
    note: str
    left_out: Mapping[str, str]
    samples: Mapping[str, str]
    missing: int
    planned: int
    mistakes: Sequence[tuple[str, Mistakes]]


def results(plan: Plan, records: Sequence[Record]) -> Results:
    """Return all tables of a plan from those records that belong to it."""
    chosen = choose(plan, records)
    planned = plan.runs
    return Results(
        tables=[
            Table(
                experiment=experiment,
                rows=[row(arm, planned, chosen) for arm in experiment.arms],
                verdicts=verdicts(experiment, chosen),
            )
            for experiment in plan.experiments
        ],
        data=plan.data_name,
        fingerprints=plan.data,
        class_names=next((record.class_names for record in chosen.values()), ()),
        versions=plan.versions,
        note=plan.note,
        left_out=plan.left_out,
        samples=plan.samples,
        missing=len(planned) - len(chosen),
        planned=len(planned),
        mistakes=[
            (run.title, chosen[run].mistakes)
            for run in planned
            if run in chosen and len(chosen[run].mistakes.labels)
        ],
    )


def row(arm: Arm, planned: Iterable[Run], chosen: Mapping[Run, Record]) -> Row:
    """Return the row of an arm from the record of each Run."""
    epochs = arm.settings.all_epochs
    covering = [run for run in planned if run.covers(arm.settings)]
    own = [chosen[run] for run in sorted(covering, key=lambda run: run.seed) if run in chosen]
    done = [record for record in own if epochs in record.scores]
    scored = [record for record in done if len(record.heldout_labels)]
    return Row(
        arm=arm,
        n_training=done[0].n_training if done else 0,
        n_unlabeled=done[0].n_unlabeled if done else 0,
        seeds=tuple(record.run.seed for record in done),
        test=tuple(float((r.scores[epochs].test == r.test_labels).mean()) for r in done),
        n_test=len(done[0].test_labels) if done else 0,
        heldout=tuple(float((r.scores[epochs].heldout == r.heldout_labels).mean()) for r in scored),
        n_heldout=len(scored[0].heldout_labels) if scored else 0,
        loss=tuple(record.loss[:epochs] for record in done),
        training_accuracy=tuple(record.accuracy[:epochs] for record in done),
        seconds=tuple(sum(record.seconds[:epochs]) for record in done),
        cpu_seconds=tuple(sum(record.cpu_seconds[:epochs]) for record in done),
        peak_memory=max((record.peak_memory for record in done), default=0),
        confusion=_confusion(done, epochs),
        diverged={r.run.seed: r.diverged for r in own if r.diverged and r.diverged <= epochs},
        missing=tuple(run.seed for run in covering if run not in chosen),
    )


def _confusion(records: Sequence[Record], epochs: int) -> tuple[tuple[int, ...], ...]:
    if not records:
        return ()
    counts = np.zeros((len(records[0].class_names),) * 2, np.int64)
    for record in records:
        heldout = len(record.heldout_labels) > 0
        score = record.scores[epochs]
        labels = record.heldout_labels if heldout else record.test_labels
        np.add.at(counts, (labels, score.heldout if heldout else score.test), 1)
    return tuple(tuple(line) for line in counts.tolist())


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
