"""How far reading images and training are."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mnist_keras.training.run import Run

_SECONDS_BETWEEN_LINES = 10


@contextmanager
def reading() -> Iterator[Callable[[int, int], None]]:
    """Show how many files are read: a bar on a terminal, now and then a line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("reading images", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def advance(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                click.echo(f"{done:,} of {total:,} images read", err=True)

        yield advance


@contextmanager
def progress(runs: "Sequence[Run]") -> "Iterator[Callable[[Run], Callable[[int, float], None]]]":
    """Show one bar with the time left on a terminal, or a line for each run elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(run.expected_seconds for run in runs))

        def advance(run: "Run") -> Callable[[int, float], None]:
            name = f"[{runs.index(run) + 1}/{len(runs)}] {run.title}"
            epochs = run.settings.all_epochs

            def on_epoch(epoch: int, loss: float) -> None:
                bar.update(
                    task,
                    description=f"{name}: epoch {epoch}, loss {loss:.4f}",
                    advance=run.expected_seconds / epochs,
                )
                if epoch == epochs and not console.is_terminal:
                    click.echo(f"{name}: loss {loss:.4f}", err=True)

            return on_epoch

        yield advance
