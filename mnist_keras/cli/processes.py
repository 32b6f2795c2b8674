"""Runs in processes of their own: one for each backend, or several that share the cores."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_keras.cli.compare import print_comparison

if TYPE_CHECKING:
    from mnist_keras.experiments.plan import Plan
    from mnist_keras.experiments.results_folder import ResultsFolder
    from mnist_keras.training.run import Run

_POLL_SECONDS = 0.1
_RUN = (sys.executable, "-m", "mnist_keras", "run")
_ARGUMENTS = "mnist_keras.arguments"


class RepeatableCommand(click.Command):
    """A command that remembers its arguments, so that another process can be given them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, after they were noted."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


def _run_again(*options: str) -> list[str]:
    """Return the words of this run; of an option that is given twice, the last one counts."""
    return [*_RUN, *click.get_current_context().meta[_ARGUMENTS], *options]


def run_on_every_backend(output: Path) -> None:
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
        words = _run_again("--backend", name, "--output", str(output / name))
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


def train_in_processes(
    plan: "Plan", runs: "Sequence[Run]", folder: "ResultsFolder", jobs: int
) -> list[str]:
    """Train runs in several processes on cores of their own; return the titles of failed ones."""
    from mnist_keras.experiments.plan import choose

    numbers = {run: number for number, run in enumerate(plan.runs)}
    tasks = []
    for _, group in groupby(runs, key=lambda run: run.settings):
        seeds = [numbers[run] for run in group]
        tasks += [part for start in range(jobs) if (part := seeds[start::jobs])]
    cores = divide(_available_cores(), jobs)

    def start(task: Sequence[int], worker: int) -> "subprocess.Popen[bytes]":
        only, own = (",".join(map(str, numbers)) for numbers in (task, cores[worker]))
        return subprocess.Popen(_run_again("--only", only, "--cores", own))

    def is_done(number: int) -> bool:
        return plan.runs[number] in choose(plan, folder.records()[0])

    failed = work(tasks, jobs, start, is_done)
    return [plan.runs[number].title for number in failed]


def _available_cores() -> list[int]:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def divide(cores: Sequence[int], jobs: int) -> list[list[int]]:
    """Return the cores of each of `jobs` workers: equally many, and each one's alone.

    Equally many, because the number of threads decides the last bits of a run. With more workers
    than cores, each has one core, and some share it.
    """
    each = max(1, len(cores) // jobs)
    return [[cores[(job * each + i) % len(cores)] for i in range(each)] for job in range(jobs)]


def pin(cores: Sequence[int]) -> None:
    """Keep this process, and the threads of a backend not yet imported, on some cores."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(len(cores))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def work(
    tasks: Sequence[Sequence[int]],
    workers: int,
    start: Callable[[Sequence[int], int], subprocess.Popen[bytes]],
    is_done: Callable[[int], bool],
) -> list[int]:
    """Do the tasks, several at a time; one that dies costs the run it was at, and no more.

    Args:
        tasks: Of each task the numbers of its runs, in order.
        workers: How many tasks are under way at a time.
        start: Starts a process for some runs; its second argument is the worker, from 0.
        is_done: Whether a run's record is there.

    Returns:
        The runs whose process died or failed while it was at them.
    """
    waiting = [list(task) for task in tasks]
    busy: dict[int, tuple[list[int], subprocess.Popen[bytes]]] = {}
    failed = []
    try:
        while waiting or busy:
            for worker in range(workers):
                if worker not in busy and waiting:
                    task = waiting.pop(0)
                    busy[worker] = task, start(task, worker)
            time.sleep(_POLL_SECONDS)
            for worker, (task, process) in list(busy.items()):
                if process.poll() is None:
                    continue
                del busy[worker]
                rest = [run for run in task if not is_done(run)]
                if rest:
                    failed.append(rest[0])
                    if rest[1:]:
                        waiting.insert(0, rest[1:])
    finally:
        for _, process in busy.values():
            process.kill()
            process.wait()
    return failed
