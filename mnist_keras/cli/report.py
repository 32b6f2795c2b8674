"""`mnist-keras report`: tables, figures, verdicts and the page again, from records alone."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_keras.cli import options
from mnist_keras.cli.terminal import show

if TYPE_CHECKING:
    from mnist_keras.experiments.report.rows import Results
    from mnist_keras.experiments.results_folder import ResultsFolder

_FILES = {"csv": "tables.csv", "json": "tables.json", "latex": "tables.tex", "html": "report.html"}


@click.command(epilog=options.example("mnist-keras report results --format csv"))
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@options.word("--format", ("text", *_FILES), "text", "What to print; all forms are written to DIR.")
@options.verbose
@options.strict
def report(directory: Path, format: str, verbose: bool, strict: bool) -> None:
    """Make tables, figures and page anew from the records below DIR.

    DIR is the --output of `run`.
    Writes tables.md, .csv, .tex, .json, the figures and report.html, and prints the tables.
    Nothing is trained, and no backend is needed.
    """
    from mnist_keras.experiments.results_folder import ResultsFolder

    folder = ResultsFolder(directory)
    folder.read_plan()  # says what is wrong before a folder is made for the lock
    with folder.writing():
        for error in folder.records()[1]:
            click.echo(f"left out: {error}", err=True)
        results = print_report(folder, format, verbose)
    finish(folder, results, strict)


def print_report(folder: "ResultsFolder", format: str, verbose: bool) -> "Results":
    """Write the report of a folder and print one of its forms."""
    from mnist_keras.experiments.report import tables
    from mnist_keras.experiments.report.write import write_report

    results = write_report(folder)
    if format == "text" and sys.stdout.isatty() and not verbose:
        show(tables.markdown(results, brief=True))
    elif format == "text":
        show(f"{tables.markdown(results)}\n{tables.costs(results)}")
    else:
        click.echo((folder.path / _FILES[format]).read_text("utf-8"), nl=False)
    return results


def finish(folder: "ResultsFolder", results: "Results", strict: bool) -> None:
    """Say what was written and what more seeds would settle.

    Exits with 6 if a run diverged, or with 5 if a claim had to be supported and is not.
    """
    click.echo(f"Figures, losses by epoch and more: {folder.path / _FILES['html']}", err=True)
    if any(row.diverged for table in results.tables for row in table.rows):
        click.echo("Some runs diverged.", err=True)
        sys.exit(6)
    verdicts = [verdict for table in results.tables for verdict in table.verdicts]
    undecided = [verdict for verdict in verdicts if verdict.is_open]
    if settled := [seeds for verdict in undecided if (seeds := verdict.seeds_needed)]:
        click.echo(
            f"Open claims: {len(undecided)} of {len(verdicts)}. At differences like these, "
            f"--seeds {max(settled)} would settle {len(settled)}.",
            err=True,
        )
    unsupported = [verdict for verdict in verdicts if verdict.verdict != "supported"]
    if strict and unsupported:
        click.echo(f"{len(unsupported)} of {len(verdicts)} claims are not supported.", err=True)
        sys.exit(5)
