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
def _bar(*columns: str) -> Iterator[tuple[Any, bool]]:
    """Yield a bar, and whether there is a terminal to show it on."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    shown = [getattr(progress, name)() for name in (*columns, "TimeRemainingColumn")]
    description = progress.TextColumn("{task.description}")
    terminal = console.is_terminal
    with progress.Progress(description, *shown, console=console, disable=not terminal) as bar:
        yield bar, terminal


@contextmanager
def reading() -> Iterator[Callable[[int, int], None]]:
    """Show how many files are read."""
    said = time.monotonic()
    with _bar("BarColumn", "MofNCompleteColumn") as (bar, terminal):
        task = bar.add_task("reading images")

        def advance(done: int, total: int) -> None:
            nonlocal said
            stopping.check()
            bar.update(task, completed=done, total=total)
            if not terminal and time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                click.echo(f"{done:,} of {total:,} images read", err=True)

        yield advance


@contextmanager
def progress(runs: "Sequence[Run]") -> "Iterator[Callable[[Run], Callable[[int, float], None]]]":
    """Show the run that is trained and the time left; without a terminal, a line for each run.

    A stop waits for the end of a batch, and for a record to be written.
    """
    with _bar("BarColumn") as (bar, terminal), stopping.deferred():
        task = bar.add_task("", total=sum(run.expected_seconds for run in runs))

        def advance(run: "Run") -> Callable[[int, float], None]:
            name = f"[{runs.index(run) + 1}/{len(runs)}] {run.title}"
            epochs = run.settings.all_epochs

            def on_epoch(epoch: int, loss: float) -> None:
                said = f"{name}: epoch {epoch}, loss {loss:.4f}"
                bar.update(task, description=said, advance=run.expected_seconds / epochs)
                if epoch == epochs and not terminal:
                    click.echo(f"{name}: loss {loss:.4f}", err=True)

            return on_epoch

        yield advance
