"""`mnist-keras predict`: what a trained model makes of images."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_keras.cli import options

if TYPE_CHECKING:
    from mnist_keras.inference.classification import Classified, ImageSource
    from mnist_keras.inference.model_input import Fit, Invert

_COLUMNS = ("file", "class", "probability", "runner_up", "runner_up_probability")


@click.command()
@options.model
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|-…")
@click.option(
    "--format",
    "format",
    type=click.Choice(["table", "csv", "jsonl"]),
    default="table",
    show_default=True,
)
@options.invert
@options.fit
@options.max_files
@options.backend
def predict(
    model: Path,
    images: tuple[str, ...],
    format: str,
    invert: "Invert",
    fit: "Fit",
    max_files: int,
    backend: str | None,
) -> None:
    """Say for each image its class, the probability of that, and the runner-up.

    MODEL is a file of `mnist-keras train`. Images are files, folders with all images below them,
    or - for one image on stdin. One that cannot be used is named on stderr and skipped; the exit
    code is then 3.

    An image of the model's size is taken as it is. Of another size, say a photo of a digit on
    paper, the sign is taken off its background and centerd as in MNIST (--fit). An image whose background
    is bright where the training images' is dark is inverted, and the reverse (--invert).
    """
    options.use_backend(backend)
    from mnist_keras.datasets.image_folder.decoding import read_stream
    from mnist_keras.inference.classification import ImageSource, classify, image_files
    from mnist_keras.inference.model_file import load_model

    trained = load_model(model)
    sources: list[ImageSource] = []
    for name in images:
        if name == "-":
            sources.append(ImageSource("-", lambda: read_stream(sys.stdin.buffer)))
        elif name:
            sources += image_files(Path(name), max_files)
        else:
            raise click.UsageError("the path is empty")
    write = _writer(format, sources)
    bad = 0
    for found in classify(trained, sources, invert, fit):
        if found.probabilities is None:
            bad += 1
            click.echo(f"{_shown(found.name)}: {found.reason}", err=True)
        else:
            write(_cells(found, trained.card.class_names))
    if bad:
        click.echo(f"{bad:,} of {len(sources):,} images skipped", err=True)
        sys.exit(3)


def _cells(found: "Classified", class_names: Sequence[str]) -> list[str]:
    assert found.probabilities is not None
    first, *others = found.probabilities.argsort(kind="stable")[::-1]
    cells = [found.name]
    for index in (first, *others[:1]):
        cells += [class_names[index], f"{found.probabilities[index]:.6f}"]
    return cells + [""] * (len(_COLUMNS) - len(cells))


def _writer(format: str, sources: "Sequence[ImageSource]") -> Callable[[Sequence[str]], None]:
    """Return the function that writes one line, after what stands above the first."""
    if format == "jsonl":

        def write_json(cells: Sequence[str]) -> None:
            line = dict(zip(_COLUMNS, cells, strict=True))
            numbers = {k: float(v) if v else None for k, v in line.items() if "probability" in k}
            click.echo(json.dumps(line | numbers, ensure_ascii=False))

        return write_json
    if format == "csv":
        table = csv.writer(sys.stdout, lineterminator="\n")

        def write_row(cells: Sequence[str]) -> None:
            table.writerow(cells)
            sys.stdout.flush()

        write_row(_COLUMNS)
        return write_row
    width = max(len(_shown(source.name)) for source in sources)

    def write_line(cells: Sequence[str]) -> None:
        name, *others = cells
        click.echo("  ".join([_shown(name).ljust(width), *others]).rstrip())

    write_line(["file", "class", "probability", "runner-up", "probability"])
    return write_line


def _shown(name: str) -> str:
    from mnist_keras._foundations.files import escaped

    return escaped(name)
