"""How far reading images and training are: a bar on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mnist_keras._foundations import stopping

if TYPE_CHECKING:
    from mnist_keras.training.run import Run

_SECONDS_BETWEEN_LINES = 10


@contextmanager
def _bar() -> Iterator[tuple[Any, bool]]:
    """Yield a bar, and whether there is a terminal to show it on.

    Of a task's line, its description is what a narrow terminal cuts.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
        TextColumn("{task.fields[at]}", table_column=Column(no_wrap=True)),
        BarColumn(10),
        TimeRemainingColumn(compact=True),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, expand=True) as bar:
        yield bar, console.is_terminal


@contextmanager
def reading() -> Iterator[Callable[[int, int], None]]:
    """Show how many files are read."""
    said = time.monotonic()
    with _bar() as (bar, terminal):
        task = bar.add_task("reading images", at="")

        def advance(done: int, total: int) -> None:
            nonlocal said
            stopping.check()
            bar.update(task, completed=done, total=total, at=f"{done:,} of {total:,}")
            if not terminal and time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                click.echo(f"{done:,} of {total:,} images read", err=True)

        yield advance


@contextmanager
def progress(runs: "Sequence[Run]") -> "Iterator[Callable[[Run], Callable[[int, float], None]]]":
    """Show the run that is trained and the time left; without a terminal, a line for each run.

    A stop waits for the end of a batch, and for a record to be written.
    """
    from rich.markup import escape

    with _bar() as (bar, terminal), stopping.deferred():
        task = bar.add_task("", total=sum(run.expected_seconds for run in runs), at="")

        def advance(run: "Run") -> Callable[[int, float], None]:
            name = f"[{runs.index(run) + 1}/{len(runs)}] {run.title}"
            epochs = run.settings.all_epochs
            bar.update(task, description=escape(name), at="compiling")

            def on_epoch(epoch: int, loss: float) -> None:
                done = "scoring" if epoch == epochs else f"epoch {epoch}/{epochs}"
                seconds = run.expected_seconds / epochs
                bar.update(task, at=f"{done}, loss {loss:.4f}", advance=seconds)
                if epoch == epochs and not terminal:
                    click.echo(f"{name}: loss {loss:.4f}", err=True)

            return on_epoch

        yield advance
