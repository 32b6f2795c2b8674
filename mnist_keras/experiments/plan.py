"""What to run: the runs that arms ask for, each once, and those whose records are there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from mnist_keras._foundations.fields import Fields
from mnist_keras.experiments.experiment import Experiment
from mnist_keras.training.record import Record
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings


class Plan(Fields):
    """What a results folder is for: enough to say which records belong to its tables."""

    experiments: tuple[Experiment, ...]
    """The tables."""
    data_name: str
    """Name of the data, as tables show it."""
    data_fingerprints: dict[int, str]
    """Hash of the data of each seed."""
    versions: Mapping[str, str]
    """Versions of what decides the numbers; "backend" names the backend."""
    note: str = ""
    """Said above the tables."""
    left_out: Mapping[str, str] = Field(default_factory=dict)
    """Files that were not used, each with the reason."""
    samples: Mapping[str, str] = Field(default_factory=dict)
    """By class, a PNG in base64 of a few of its images."""

    @property
    def runs(self) -> list[Run]:
        """Each run once."""
        arms = [arm.settings for experiment in self.experiments for arm in experiment.arms]
        return plan(arms, self.data_fingerprints)


def plan(arms: Iterable[Settings], seeds: Iterable[int]) -> list[Run]:
    """Return the runs that cover the settings of all arms, each once.

    Equal arms share a run. Where no setting changes during a training, an arm of 20 epochs is the
    first 20 epochs of the same seed's 100. Runs of one arm follow each other: one compilation
    serves all seeds. Short runs come first, so that there is soon something to keep.
    """
    longest: dict[Settings, tuple[Settings, set[int]]] = {}
    for settings in arms:
        constant = settings.schedule == "constant"
        key = settings.replace(epochs=1) if constant else settings
        other, ends = longest.get(key, (settings, set()))
        longest[key] = max(settings, other, key=lambda s: s.epochs), ends | {settings.all_epochs}
    seeds = list(seeds)
    runs = [
        Run(settings=settings, seed=seed, scored_at=tuple(sorted(ends)))
        for settings, ends in longest.values()
        for seed in seeds
    ]
    return sorted(runs, key=lambda run: run.expected_seconds)


def describe(experiments: Iterable[Experiment], runs: Sequence[Run]) -> Iterator[str]:
    """Yield what is to be run, for which arms, and what that costs, as lines of Markdown."""
    arms = [arm for experiment in experiments for arm in experiment.arms]
    seeds = sorted({run.seed for run in runs})
    yield f"{len(arms)} arms, {len(runs)} runs, seeds {seeds[0]}…{seeds[-1]}\n"
    for run in runs:
        covered = ", ".join(arm.name for arm in arms if run.covers(arm.settings))
        yield f"- {run.title}, for: {covered}"
    alone = len(seeds) * sum(arm.settings.all_epochs for arm in arms)
    planned = sum(run.settings.all_epochs for run in runs)
    minutes = sum(run.expected_seconds for run in runs) / 60
    yield (
        f"\n{planned} epochs instead of the {alone} of training every arm alone, "
        f"about {minutes:.0f} min on two cores"
    )


def choose(plan: Plan, records: Sequence[Record]) -> dict[Run, Record]:
    """Return the record of each run of a plan, where there is one.

    Only records of the plan's data and versions count. One of a longer training of equal settings
    counts, too; of several, the shortest.
    """
    chosen = {}
    for run in plan.runs:
        fitting = [
            record
            for record in records
            if record.run.seed == run.seed
            and record.data_fingerprint == plan.data_fingerprints[run.seed]
            and record.versions == plan.versions
            and record.run.covers(run.settings)
            and (record.history.diverged or set(run.scored_at) <= set(record.scores))
        ]
        if fitting:
            chosen[run] = min(fitting, key=lambda record: record.run.settings.epochs)
    return chosen


def widened(run: Run, records: Sequence[Record]) -> Run:
    """Return the run, scored also where an earlier record of it was, which it will replace."""
    earlier = [epoch for record in records if record.run == run for epoch in record.scores]
    return replace(run, scored_at=tuple(sorted({*run.scored_at, *earlier})))
