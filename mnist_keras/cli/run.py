"""`mnist-keras run`: plan, train, and print the tables."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mnist_keras.cli.compare import print_comparison
from mnist_keras.cli.options import idx_option, per_class_option, strict_option, use_backend
from mnist_keras.cli.report import finish, print_report

if TYPE_CHECKING:
    from mnist_keras.experiment import Experiment
    from mnist_keras.results import Plan, ResultsFolder
    from mnist_keras.runs import Run
    from mnist_keras.training import Data

# Measured on two cores with 400 images; only the plan and the time left use them.
_SECONDS_PER_EPOCH = {"basic_net": 0.05, "cnn": 0.85}


@click.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]…")
@click.option(
    "--data",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Your class-per-folder images, with or without heldout/, or what `data` wrote.",
)
@click.option(
    "--source",
    type=click.Choice(["mnist", "fashion_mnist", "digits"]),
    help="Draw from this source. Default: mnist, or digits where MNIST cannot be had.",
)
@idx_option
@per_class_option
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Seeds 0…N−1: each draws, splits, initialises and shuffles anew.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder for the records, tables and figures.",
)
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
    directory: Path | None,
    source: str | None,
    idx: Path | None,
    per_class: int,
    seeds: int,
    output: Path,
    strict: bool,
    dry_run: bool,
    backend: str | None,
) -> None:
    """Run experiments and print their tables beside the report's numbers.

    EXPERIMENT is a name from `mnist-keras list`, a TOML file of your own, or `all`. Without one,
    the report's four tables are run. MNIST comes from --idx, the environment variable
    MNIST_KERAS_IDX, Keras's cache or a download; without any of them the embedded digits are used.

    Runs whose records are in the --output folder are not trained again: the same command after a
    stop goes on, and its tables are those of a run that was never stopped.
    """
    from mnist_keras.experiment import find
    from mnist_keras.runs import plan

    given = click.get_current_context().get_parameter_source("per_class")
    if directory and (source or idx or given is ParameterSource.COMMANDLINE):
        raise click.UsageError("--data draws nothing; leave out --source, --idx and --per-class")
    found = find(experiments)
    runs = plan([arm.settings for e in found for arm in e.arms], range(seeds))
    if dry_run:
        _show_plan(found, runs)
        return

    if backend == "all":
        _run_on_every_backend(output)
        return

    from mnist_keras.results import ResultsFolder

    use_backend(backend)
    folder = ResultsFolder(output)
    with folder.writing() as interrupted:
        if interrupted:
            click.echo(f"{output}: {interrupted}", err=True)
        data_of, note = _data(directory, source, idx, per_class)
        try:
            _train(_plan(folder, found, range(seeds), data_of, note), folder, data_of)
        except (KeyboardInterrupt, SystemExit):
            print_report(folder, "text")
            raise
        results = print_report(folder, "text")
    finish(results, strict)


def _plan(
    folder: "ResultsFolder",
    experiments: "Sequence[Experiment]",
    seeds: "Sequence[int]",
    data_of: "Callable[[int], Data]",
    note: str,
) -> "Plan":
    """Write down what is to be run, and on which data, before anything is."""
    from mnist_keras import backends
    from mnist_keras.results import Plan

    plan = Plan(
        experiments=tuple(experiments),
        data_name=data_of(seeds[0]).images.name,
        data={seed: data_of(seed).fingerprint for seed in seeds},
        versions=backends.versions(),
        note=note,
    )
    folder.write_plan(plan)
    return plan


def _run_on_every_backend(output: Path) -> None:
    """Run this command once on each backend, in a process of its own, and compare the results.

    Exits with the code of the first run that fails, or with 5 if the results do not agree.
    """
    from mnist_keras import backends

    if not (names := backends.installed()):
        backends.choose()  # says what to install
    arguments = _arguments_but("backend", "output")
    codes = []
    for name in names:
        click.echo(f"# {name}\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "mnist_keras", "run", *arguments]
        folder = ["--backend", name, "--output", str(output / name)]
        codes.append(subprocess.run([*command, *folder]).returncode)
        click.echo()
    if worst := next((code for code in codes if code not in (0, 6)), 0):
        click.echo("Not compared: a run failed.", err=True)
        sys.exit(worst)
    click.echo("# Comparison\n")
    if len(names) < 2:
        click.echo(f"Only {names[0]} is installed: nothing to compare.")
    elif not print_comparison([output / name for name in names]):
        sys.exit(5)
    sys.exit(max(codes))


def _arguments_but(*left_out: str) -> list[str]:
    """Return what the user gave this command, as words, without some options."""
    context = click.get_current_context()
    words: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            words += map(str, value)
        elif name not in left_out:
            words += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
    return words


def _show_plan(experiments: "Sequence[Experiment]", runs: "Sequence[Run]") -> None:
    arms = [arm for experiment in experiments for arm in experiment.arms]
    seeds = 1 + max(run.seed for run in runs)
    click.echo(f"{len(arms)} arms, {len(runs)} runs, seeds 0…{seeds - 1}")
    for run in runs:
        covered = ", ".join(arm.name for arm in arms if run.covers(arm.settings))
        click.echo(f"  {run.title}, for: {covered}")
    alone = seeds * sum(arm.settings.epochs for arm in arms)
    planned = sum(run.settings.epochs for run in runs)
    minutes = sum(_cost(run) for run in runs) / 60
    click.echo(
        f"{planned} epochs instead of the {alone} of training every arm alone, "
        f"about {minutes:.0f} min on two cores"
    )


def _cost(run: "Run") -> float:
    """Seconds of training to expect."""
    return run.settings.epochs * _SECONDS_PER_EPOCH[run.settings.model]


def _data(
    directory: Path | None, source: str | None, idx: Path | None, per_class: int
) -> "tuple[Callable[[int], Data], str]":
    """Return the images of each seed, and what the tables have to say about them."""
    from mnist_keras import sources
    from mnist_keras.image_folder import read_data_folder
    from mnist_keras.training import Data

    if directory:
        fixed = Data(*read_data_folder(directory))
        return lambda seed: fixed, ""
    if source:
        images = sources.load(source, idx, channels=3)
    else:
        images, reason = sources.default(idx, channels=3)
        if reason:
            click.echo(
                f"MNIST cannot be had ({reason}). Using scikit-learn's embedded digits instead: "
                "these numbers do not compare with the report's.",
                err=True,
            )
    mnist = images.name.startswith("MNIST")
    note = "" if mnist else "These numbers do not compare with the report's."
    return lambda seed: Data(*sources.draw(images, per_class, seed)), note


def _train(plan: "Plan", folder: "ResultsFolder", data_of: "Callable[[int], Data]") -> None:
    """Train the runs that have no record yet; one model serves all seeds of an arm."""
    import keras

    from mnist_keras import training
    from mnist_keras.results import choose, widened

    for sentence in folder.set_aside_damaged():
        click.echo(sentence, err=True)
    there, _ = folder.records()
    done = choose(plan, there)
    runs = [widened(run, there) for run in plan.runs if run not in done]
    if done:
        click.echo(f"{len(done)} of {len(plan.runs)} runs are already there.", err=True)
    with _progress(runs) as advance:
        for settings, group in groupby(runs, key=lambda run: run.settings):
            model = None
            for run in group:
                data = data_of(run.seed)
                if model is None:
                    keras.utils.clear_session()
                    shape, classes = data.images.images.shape[1:], data.images.class_names
                    model = training.compiled_model(settings, shape, len(classes))
                folder.write_record(training.train(model, run, data, on_epoch=advance(run)))


@contextmanager
def _progress(runs: "Sequence[Run]") -> "Iterator[Callable[[Run], Callable[[int, float], None]]]":
    """Show one bar with the time left on a terminal, or a line for each run elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(_cost(run) for run in runs))

        def advance(run: "Run") -> Callable[[int, float], None]:
            name = f"[{runs.index(run) + 1}/{len(runs)}] {run.title}"
            epochs = run.settings.epochs

            def on_epoch(epoch: int, loss: float) -> None:
                bar.update(
                    task,
                    description=f"{name}: epoch {epoch}, loss {loss:.4f}",
                    advance=_cost(run) / epochs,
                )
                if epoch == epochs and not console.is_terminal:
                    click.echo(f"{name}: loss {loss:.4f}", err=True)

            return on_epoch

        yield advance
