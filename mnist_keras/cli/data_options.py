"""The options that say what is trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli import options
from mnist_keras.cli.progress import reading
from mnist_keras.datasets.choices import PER_CLASS, SOURCES, Cache

if TYPE_CHECKING:
    from mnist_keras.datasets.images import LabeledImages
    from mnist_keras.training.data import SeedImages

_OPTIONS = (
    options.folder(
        "--data",
        "Your images: class folders with or without heldout/, train/ and test/, what `data` "
        "wrote, IDX files, or an .npz file with Keras's keys.",
        "directory",
    ),
    options.word(
        "--source",
        tuple(SOURCES),
        None,
        "Draw from this source. Default: mnist, or digits where MNIST is not available.",
    ),
    options.idx,
    options.number(
        "--per-class",
        None,
        f"Draw N images of each class; the others are held out. Default: {PER_CLASS} of a source, "
        "and all of --data.",
        2,
        metavar="N",
    ),
    options.on_bad,
    options.word(
        "--cache",
        Cache,
        None,
        "Where the images of --data are kept; none decodes them for each batch. Default: memory "
        "up to 1 GiB, then disk.",
    ),
    options.max_files,
    click.option(
        "--split",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Train and test on the images that a file of --save-split says.",
    ),
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `seed_images` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_data_options(
    directory: Path | None,
    source: str | None,
    idx: Path | None,
    per_class: int | None,
    split: Path | None,
    **others: Any,
) -> None:
    """Refuse options that do not go together, before anything is read."""
    if directory and (source or idx):
        raise click.UsageError("--data is a source of its own; leave out --source and --idx")
    if split and per_class:
        raise click.UsageError("--split says which images are drawn; leave out --per-class")


def seed_images(
    directory: Path | None = None,
    source: str | None = None,
    idx: Path | None = None,
    per_class: int | None = None,
    split: Path | None = None,
    **reading_options: Any,
) -> "SeedImages":
    """Return the images that the options ask for, and say what there is to warn of."""
    from mnist_keras.training.data import from_files, from_source

    if directory is None:
        found = from_source(source, idx, per_class or PER_CLASS)
    else:
        with reading() as progress:
            found = from_files(directory, per_class, progress=progress, **reading_options)
    for warning in found.warnings:
        click.echo(warning, err=True)
    return found.on_split(split) if split else found


def unlabeled_images(path: Path, **options: Any) -> "LabeledImages":
    """Return all images below a folder, whatever its folders are called, showing progress."""
    from mnist_keras.datasets.user_images import read_unlabeled

    on_bad = options.pop("on_bad")
    with reading() as progress:
        return read_unlabeled(path, progress=progress, **options).require(on_bad).images
