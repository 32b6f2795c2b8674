"""`mnist-keras compare`: are the results of several backends the same runs?"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mnist_keras.experiments.agreement import Tolerance

_PROMISE = (
    "Initial weights, batches and dropout masks identical; training loss within {first_epoch:g} "
    "after the first epoch and {loss:g} in the first {epochs}; at least {predictions:.1%} of the "
    "predictions equal at the last epoch scored among them. Later epochs are shown, not judged. "
    "Of small_cnn, whose batch normalization multiplies rounding: identical as above, and the loss "
    "within {normalized:.0%} in the first {epochs} epochs; the rest is shown, not judged."
)


@click.command()
@click.argument(
    "directories",
    nargs=-1,
    required=True,
    metavar="DIR…",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--first-epoch", type=click.FloatRange(min=0), default=1e-5, show_default=True)
@click.option("--loss", type=click.FloatRange(min=0), default=5e-3, show_default=True)
@click.option("--predictions", type=click.FloatRange(0, 1), default=0.995, show_default=True)
def compare(
    directories: tuple[Path, ...], first_epoch: float, loss: float, predictions: float
) -> None:
    """Compare the records below DIR… (what `run --output DIR` wrote), Run by Run.

    Each Run's records, of several backends, machines or versions, are held against the first.
    Exit code 5 if any pair is outside the tolerances.
    """
    from mnist_keras.experiments.agreement import Tolerance

    if len(set(map(Path.resolve, directories))) < len(directories):
        raise click.UsageError("a directory is named twice")
    tolerance = Tolerance(first_epoch=first_epoch, loss=loss, predictions=predictions)
    if not print_comparison(directories, tolerance):
        sys.exit(5)


def print_comparison(directories: Sequence[Path], tolerance: "Tolerance | None" = None) -> bool:
    """Print the comparison; return whether all pairs are within the tolerance."""
    from mnist_keras._foundations.texts import markdown_table
    from mnist_keras.experiments.agreement import (
        PROMISED_EPOCHS,
        Tolerance,
        agreement_table,
        compare_all,
    )
    from mnist_keras.experiments.results_folder import ResultsFolder
    from mnist_keras.training.record import RecordError

    tolerance = tolerance or Tolerance()
    named = []
    for directory in directories:
        found, refused = ResultsFolder(directory).records()
        if refused:
            raise refused[0]
        if not found:
            raise RecordError(f"{directory}: no results of `mnist-keras run`")
        named += [(f"{directory.name} ({r.versions['backend']})", r) for r in found]
    agreements, alone = compare_all(named)
    for sentence in alone:
        click.echo(sentence, err=True)
    if not agreements:
        raise click.UsageError("no Run is there twice: nothing to compare")
    click.echo(_PROMISE.format(epochs=PROMISED_EPOCHS, **vars(tolerance)) + "\n")
    for line in markdown_table(agreement_table(agreements, tolerance)):
        click.echo(line)
    return not any(agreement.outside(tolerance) for agreement in agreements)
