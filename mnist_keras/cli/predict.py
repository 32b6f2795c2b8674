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
    import numpy as np

    from mnist_keras.inference.model_input import Fit, Invert

_COLUMNS = ("file", "class", "probability", "runner_up", "runner_up_probability")


@click.command(
    epilog=options.example(
        "mnist-keras predict model.keras photo.jpg",
        "mnist-keras predict model.keras photos --format csv",
    )
)
@options.model
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|-…")
@options.word("--format", ("table", "csv", "jsonl"), "table", "How the answers are printed.")
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
    """Print the class of each image, its probability, and the runner-up.

    MODEL is a file of `mnist-keras train`. Images are files, folders with all files below them,
    or - for one image on stdin. Files that cannot be used, such as an empty page, are named on
    stderr and skipped; the exit code is then 3.

    An image of the model's size is taken as it is. In an image of another size, such as a photo of
    a digit on paper, the digit is separated from its background and centered as in MNIST (--fit);
    what does not look like one digit is remarked on. If the background is bright and that of the
    training images is dark, or the reverse, the image is inverted (--invert).
    """
    options.use_backend(backend)
    from mnist_keras._foundations.files import escaped, shown_names
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
    names = [escaped(source.name) for source in sources]
    classes: Sequence[str] = trained.card.class_names  # JSON keeps them as they are
    if format != "jsonl":
        classes = shown_names(classes)
    write = _writer(format, max(map(len, names)), max(map(len, classes)))
    bad = 0
    for shown, found in zip(names, classify(trained, sources, invert, fit), strict=True):
        for remark in found.remarks if found.probabilities is not None else ():
            click.echo(f"{shown}: {remark}", err=True)
        if found.probabilities is None:
            bad += 1
            click.echo(f"{shown}: {found.reason}", err=True)
        else:
            cells = _cells(found.probabilities, classes)
            write([shown if format == "table" else found.name, *cells])
    if bad:
        click.echo(f"{bad:,} of {len(sources):,} images skipped", err=True)
        sys.exit(3)


def _cells(probabilities: "np.ndarray", class_names: Sequence[str]) -> list[str]:
    first, *others = probabilities.argsort(kind="stable")[::-1]
    cells = [(class_names[i], f"{probabilities[i]:.6f}") for i in (first, *others[:1])]
    return [cell for pair in (*cells, ("", ""))[:2] for cell in pair]


def _writer(format: str, file: int, name: int) -> Callable[[Sequence[str]], None]:
    """Return the function that writes one row; the header is written at once.

    `file` and `name` are the lengths of the longest file's and class's names.
    """
    if format == "jsonl":

        def write_json(cells: Sequence[str]) -> None:
            row = dict(zip(_COLUMNS, cells, strict=True))
            numbers = {k: float(v) if v else None for k, v in row.items() if "probability" in k}
            click.echo(json.dumps(row | numbers, ensure_ascii=False))

        return write_json
    if format == "csv":
        table = csv.writer(sys.stdout, lineterminator="\n")

        def write_row(cells: Sequence[str]) -> None:
            table.writerow(cells)
            sys.stdout.flush()

        write_row(_COLUMNS)
        return write_row

    heading = ("file", "class", "probability", "runner-up", "probability")
    widths = [max(*pair) for pair in zip(map(len, heading), (file, name, 0, name, 0), strict=True)]

    def write_line(cells: Sequence[str]) -> None:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        click.echo("  ".join(padded).rstrip())

    write_line(heading)
    return write_line
