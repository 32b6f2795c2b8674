"""`mnist-keras run`: plan, train, and print the tables."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli import options, terminal
from mnist_keras.cli.compare import print_comparison
from mnist_keras.cli.data_options import check_data_options, data_options, seed_images
from mnist_keras.cli.progress import progress
from mnist_keras.cli.report import finish, print_report

if TYPE_CHECKING:
    from mnist_keras.experiments.plan import Plan
    from mnist_keras.experiments.results_folder import ResultsFolder
    from mnist_keras.training.run import Run

_ARGUMENTS = "mnist_keras.arguments"


class RepeatableCommand(click.Command):
    """A command that remembers its arguments, so that another process can be given them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, after they were noted."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


def _again(*options: str) -> list[str]:
    """Return the words of this command; of an option that is given twice, the last one counts."""
    given = click.get_current_context().meta[_ARGUMENTS]
    end = given.index("--") if "--" in given else len(given)  # what follows is not an option
    return [sys.executable, "-m", "mnist_keras", "run", *given[:end], *options, *given[end:]]


@click.command(
    cls=RepeatableCommand,
    epilog=options.example(
        "mnist-keras run loss --seeds 5",
        "mnist-keras run my.toml --data photos --output mine",
    ),
)
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]…")
@data_options
@click.option(
    "--save-split",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write which images are trained on, tested on and held out, by file and by content.",
)
@options.number(
    "--seeds", 5, "Number of seeds; each draws, splits, initializes and shuffles anew.", 1
)
@options.number("--first-seed", 0, "The first seed; the others follow it.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder for the records, tables and figures.",
)
@options.number(
    "--jobs", 1, "Train in this many processes, with the cores divided between them.", 1
)
@click.option("--only", hidden=True)  # what a process of --jobs is told
@click.option("--cores", hidden=True)
@options.verbose
@options.strict
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
    verbose: bool,
    strict: bool,
    dry_run: bool,
    backend: str | None,
    **data: Any,
) -> None:
    """Run experiments and print their tables beside the original's.

    EXPERIMENT is a name from `mnist-keras list`, a TOML file of your own, or `all`. Without one,
    the original's four tables are run. MNIST comes from --idx, the environment variable
    MNIST_KERAS_IDX, Keras's cache or a download; without any of them the embedded digits are used.

    Runs whose records are in the --output folder are not trained again: the same command after a
    stop goes on, and its tables are those of a run that was never stopped.
    """
    from mnist_keras.experiments.experiment import find
    from mnist_keras.experiments.plan import describe, plan

    check_data_options(**data)
    output = options.outside(output, "output", data["directory"], data["idx"])
    if save_split:
        options.outside(save_split, "save_split", data["directory"], data["idx"])
    found = find(experiments)
    settings = [arm.settings for experiment in found for arm in experiment.arms]
    all_seeds = range(first_seed, first_seed + seeds)
    if dry_run:
        terminal.show("\n".join(describe(found, plan(settings, all_seeds))) + "\n")
        return
    if backend == "all":
        _run_on_every_backend(output)
        return

    from mnist_keras._foundations.files import write
    from mnist_keras.experiments.results_folder import ResultsFolder
    from mnist_keras.experiments.run import missing_runs, pin, plan_of, train_runs

    folder = ResultsFolder(output)
    if only and cores:
        pin(_numbers(cores))
        options.use_backend(backend)
        images = seed_images(**data)
        written = folder.read_plan()
        own = [written.runs[number] for number in _numbers(only)]
        runs = [run for run in missing_runs(written, folder) if run in own]
        with progress(runs) as show:
            train_runs(runs, folder, images.of, show)
        return

    options.use_backend(backend)
    failed: list[str] = []
    with folder.writing() as interrupted:
        if interrupted:
            click.echo(f"{output}: {interrupted}", err=True)
        images = seed_images(**data)
        if save_split:
            write(save_split, images.split_text(settings, all_seeds).encode())
        written = plan_of(found, all_seeds, images)
        folder.write_plan(written)
        for sentence in folder.set_aside_damaged():
            click.echo(sentence, err=True)
        runs = missing_runs(written, folder)
        if there := len(written.runs) - len(runs):
            click.echo(f"{there} of {len(written.runs)} runs are already there.", err=True)
        try:
            if jobs > 1:
                failed = _train_in_processes(written, runs, folder, jobs)
            else:
                with progress(runs) as show:
                    train_runs(runs, folder, images.of, show)
        except (KeyboardInterrupt, SystemExit):
            print_report(folder, "text", verbose)
            raise
        results = print_report(folder, "text", verbose)
    for title in failed:
        click.echo(f"failed: {title}", err=True)
    if failed:
        sys.exit(6)
    finish(folder, results, strict)


def _train_in_processes(
    plan: "Plan", runs: "Sequence[Run]", folder: "ResultsFolder", jobs: int
) -> list[str]:
    """Train runs in several processes on cores of their own; return the titles of failed ones."""
    from mnist_keras._foundations.stopping import deferred
    from mnist_keras.experiments.plan import choose
    from mnist_keras.experiments.run import available_cores, divide, tasks_of, work

    cores = divide(available_cores(), jobs)

    def start(task: Sequence[int], worker: int) -> "subprocess.Popen[bytes]":
        only, own = (",".join(map(str, numbers)) for numbers in (task, cores[worker]))
        return subprocess.Popen(_again("--only", only, "--cores", own))

    def is_done(number: int) -> bool:
        return plan.runs[number] in choose(plan, folder.records()[0])

    with deferred():  # between two looks at the processes: none is left running
        failed = work(tasks_of(runs, plan, jobs), jobs, start, is_done)
    return [plan.runs[number].title for number in failed]


def _run_on_every_backend(output: Path) -> None:
    """Run this command once on each backend, in a process of its own, and compare the results.

    Exits with the code of the first run that fails, or with 5 if the results do not agree.
    """
    from mnist_keras._foundations import backends

    if not (names := backends.installed()):
        backends.choose()  # says what to install
    codes = []
    for name in names:
        click.echo(f"# {name}\n")
        sys.stdout.flush()
        words = _again("--backend", name, "--output", str(output / name))
        codes.append(subprocess.run(words).returncode)
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


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]
