"""`mnist-keras run`: plan, train, and print the tables."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli.data_options import check_data_options, data_options, seed_images
from mnist_keras.cli.options import strict_option, use_backend
from mnist_keras.cli.processes import (
    RepeatableCommand,
    pin,
    run_on_every_backend,
    train_in_processes,
)
from mnist_keras.cli.progress import cost, progress
from mnist_keras.cli.report import finish, print_report

if TYPE_CHECKING:
    from mnist_keras.experiments.experiment import Experiment
    from mnist_keras.experiments.plan import Plan
    from mnist_keras.experiments.results_folder import ResultsFolder
    from mnist_keras.training.data import Data, SeedImages
    from mnist_keras.training.run import Run


@click.command(cls=RepeatableCommand)
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]…")
@data_options
@click.option(
    "--save-split",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write which images are trained on, tested on and held out, by file and by content.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of seeds; each draws, splits, initializes and shuffles anew.",
)
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The first seed; the others follow it.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder for the records, tables and figures.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train in this many processes, with the cores divided between them.",
)
@click.option("--only", hidden=True)  # what a process of --jobs is told
@click.option("--cores", hidden=True)
@strict_option
@click.option("--dry-run", is_flag=True, help="Show the plan and its cost, and stop.")
@click.option(
    "--backend",
    metavar="NAME",
    help="jax, tensorflow or torch; or all: every installed one in its own process and folder, "
    "then `compare`. Default: KERAS_BACKEND, else the first installed.",
)
def run(
    experiments: tuple[str, ...],
    save_split: Path | None,
    seeds: int,
    first_seed: int,
    output: Path,
    jobs: int,
    only: str | None,
    cores: str | None,
    strict: bool,
    dry_run: bool,
    backend: str | None,
    **data: Any,
) -> None:
    """Run experiments and print their tables beside the original's numbers.

    EXPERIMENT is a name from `mnist-keras list`, a TOML file of your own, or `all`. Without one,
    the original's four tables are run. MNIST comes from --idx, the environment variable
    MNIST_KERAS_IDX, Keras's cache or a download; without any of them the embedded digits are used.

    Runs whose records are in the --output folder are not trained again: the same command after a
    stop goes on, and its tables are those of a run that was never stopped.
    """
    from mnist_keras.experiments.experiment import find
    from mnist_keras.experiments.plan import plan

    check_data_options(**data)
    found = find(experiments)
    all_seeds = range(first_seed, first_seed + seeds)
    runs = plan([arm.settings for e in found for arm in e.arms], all_seeds)
    if dry_run:
        _show_plan(found, runs)
        return

    if backend == "all":
        run_on_every_backend(output)
        return

    from mnist_keras._foundations.files import write
    from mnist_keras.experiments.plan import widened
    from mnist_keras.experiments.results_folder import ResultsFolder

    folder = ResultsFolder(output)
    if only and cores:
        pin(_numbers(cores))
        use_backend(backend)
        images = seed_images(**data)
        runs, there = folder.read_plan().runs, folder.records()[0]
        _train_all([widened(runs[n], there) for n in _numbers(only)], folder, images.of)
        return

    use_backend(backend)
    failed: list[str] = []
    with folder.writing() as interrupted:
        if interrupted:
            click.echo(f"{output}: {interrupted}", err=True)
        images = seed_images(**data)
        if save_split:
            settings = [arm.settings for e in found for arm in e.arms]
            write(save_split, images.split_text(settings, all_seeds).encode())
        written = _plan(found, all_seeds, images)
        folder.write_plan(written)
        missing = _missing(written, folder)
        try:
            if jobs > 1:
                failed = train_in_processes(written, missing, folder, jobs)
            else:
                _train_all(missing, folder, images.of)
        except (KeyboardInterrupt, SystemExit):
            print_report(folder, "text")
            raise
        results = print_report(folder, "text")
    for title in failed:
        click.echo(f"failed: {title}", err=True)
    if failed:
        sys.exit(6)
    finish(results, strict)


def _plan(
    experiments: "Sequence[Experiment]", seeds: "Sequence[int]", images: "SeedImages"
) -> "Plan":
    """Return what is to be run, and on which data."""
    from mnist_keras._foundations import backends
    from mnist_keras.datasets.images import class_samples
    from mnist_keras.experiments.plan import Plan

    return Plan(
        experiments=tuple(experiments),
        data_name=images.name,
        data_fingerprints={seed: images.of(seed).fingerprint for seed in seeds},
        versions=backends.versions(),
        note=images.note,
        left_out=images.left_out,
        samples=class_samples(images.of(seeds[0]).images),
    )


def _show_plan(experiments: "Sequence[Experiment]", runs: "Sequence[Run]") -> None:
    arms = [arm for experiment in experiments for arm in experiment.arms]
    seeds = sorted({run.seed for run in runs})
    click.echo(f"{len(arms)} arms, {len(runs)} runs, seeds {seeds[0]}…{seeds[-1]}")
    for run in runs:
        covered = ", ".join(arm.name for arm in arms if run.covers(arm.settings))
        click.echo(f"  {run.title}, for: {covered}")
    alone = len(seeds) * sum(arm.settings.all_epochs for arm in arms)
    planned = sum(run.settings.all_epochs for run in runs)
    minutes = sum(cost(run) for run in runs) / 60
    click.echo(
        f"{planned} epochs instead of the {alone} of training every arm alone, "
        f"about {minutes:.0f} min on two cores"
    )


def _missing(plan: "Plan", folder: "ResultsFolder") -> "list[Run]":
    """Return the runs that have no record, after setting damaged records aside."""
    from mnist_keras.experiments.plan import choose, widened

    for sentence in folder.set_aside_damaged():
        click.echo(sentence, err=True)
    there, _ = folder.records()
    done = choose(plan, there)
    if done:
        click.echo(f"{len(done)} of {len(plan.runs)} runs are already there.", err=True)
    return [widened(run, there) for run in plan.runs if run not in done]


def _train_all(
    runs: "Sequence[Run]", folder: "ResultsFolder", data_of: "Callable[[int], Data]"
) -> None:
    """Train runs and write their records."""
    from mnist_keras.training.engine import train
    from mnist_keras.training.networks import Networks

    networks = Networks()
    with progress(runs) as show:
        for run in runs:
            trained = train(
                run,
                data_of(run.seed),
                on_epoch=show(run),
                kept=folder.trainings,
                networks=networks,
            )
            folder.write_record(trained.record)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]
