"""`mnist-keras data`: write a source as class-per-folder PNGs."""

from pathlib import Path

import click

from mnist_keras.cli import options
from mnist_keras.datasets.choices import SOURCES


@click.command(epilog=options.example("mnist-keras data digits here --per-class 20"))
@click.argument("source", type=click.Choice(list(SOURCES)))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@options.idx
@options.per_class
@options.number("--seed", 0, "Decides which images are drawn.")
@options.word(
    "--channels", ("1", "3"), "1", "Write gray PNGs, or the same values in three channels."
)
@options.backend
def data(
    source: str,
    directory: Path,
    idx: Path | None,
    per_class: int,
    seed: int,
    channels: str,
    backend: str | None,
) -> None:
    """Write a source as folders of images, one for each class.

    DIRECTORY gets train-50/0…9, drawn with --seed, and heldout/0…9, the rest.
    mnist and fashion_mnist come from --idx (for mnist also MNIST_KERAS_IDX) or through Keras (its
    cache, else a download); digits are scikit-learn's 1,797 scans and need no network.
    """
    from mnist_keras.datasets import sources

    options.outside(directory, "directory", idx)
    if source != "digits" and idx is None:
        options.use_backend(backend)
    images = sources.load(source, idx, int(channels))
    train, heldout = sources.write_folders(images, directory, per_class, seed)
    click.echo(f"{images.name}: wrote {train} and {heldout}")
