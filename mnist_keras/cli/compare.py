"""`mnist-keras compare`: are the results of several backends the same runs?"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli import options
from mnist_keras.cli.field_options import fields_command, given
from mnist_keras.cli.terminal import show

if TYPE_CHECKING:
    from mnist_keras.experiments.agreement import Tolerance


@click.command(
    cls=fields_command("mnist_keras.experiments.agreement:Tolerance"),
    epilog=options.example("mnist-keras compare results/jax results/torch"),
)
@click.argument(
    "directories",
    nargs=-1,
    required=True,
    metavar="DIR…",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
def compare(directories: tuple[Path, ...], **tolerances: Any) -> None:
    """Compare the records of several results folders, run by run.

    Each DIR is an --output of `run`.
    Each run's records, of several backends, machines or versions, are held against the first.
    Exit code 5 if any pair is outside the tolerances.
    """
    from mnist_keras.experiments.agreement import Tolerance

    if len(set(map(Path.resolve, directories))) < len(directories):
        raise click.UsageError("a directory is named twice")
    tolerance = Tolerance(**given(tolerances, Tolerance.model_fields))
    if not print_comparison(directories, tolerance):
        sys.exit(5)


def print_comparison(directories: Sequence[Path], tolerance: "Tolerance | None" = None) -> bool:
    """Print the comparison; return whether all pairs are within the tolerance."""
    from mnist_keras._foundations.texts import markdown_table
    from mnist_keras.experiments import agreement

    tolerance = tolerance or agreement.Tolerance()
    agreements, alone = agreement.compare_all(agreement.named_records(directories))
    for sentence in alone:
        click.echo(sentence, err=True)
    if not agreements:
        raise click.UsageError("no run is there twice: nothing to compare")
    table = markdown_table(agreement.agreement_table(agreements, tolerance))
    show("\n".join([f"{tolerance}", "", *table]) + "\n")
    return not any(pair.outside(tolerance) for pair in agreements)
