"""`mnist-keras explain`: pictures of how a trained model decides."""

from pathlib import Path
from typing import Any

import click

from mnist_keras.cli.options import (
    NamedPath,
    backend_option,
    directory_argument,
    make_folder,
    max_files_option,
    model_argument,
    on_bad_option,
    use_backend,
)
from mnist_keras.cli.progress import reading


@click.command()
@model_argument
@directory_argument
@click.option(
    "-o",
    "--output",
    type=NamedPath(path_type=Path, file_okay=False),
    default=Path("results/explanations"),
    show_default=True,
    metavar="FOLDER",
    help="For the pictures and their page. As `explanations` in a folder of `run`, the report "
    "there shows them, too.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME",
    help="Convolution for the maps; may be given more than once. Default: the last.",
)
@click.option(
    "--class", "class_name", metavar="NAME", help="Draw maps for it. Default: the predicted one."
)
@click.option(
    "--images",
    "count",
    type=click.IntRange(min=1, max=100),
    default=10,
    show_default=True,
    help="Images in the strip of maps.",
)
@click.option(
    "--embed",
    type=click.IntRange(min=10),
    default=1000,
    show_default=True,
    help="Images on the maps of t-SNE, at most.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@on_bad_option
@max_files_option
@backend_option
def explain(
    model: Path,
    directory: Path,
    output: Path,
    layers: tuple[str, ...],
    class_name: str | None,
    count: int,
    embed: int,
    seed: int,
    on_bad: Any,
    max_files: int,
    backend: str | None,
) -> None:
    """Draw where a model looks, how it sorts images, and what it gets wrong most confidently.

    DIR holds labeled images, as for `evaluate`. Drawn are HiResCAM, Grad-CAM and occlusion maps,
    with what erasing the regions they point to does; t-SNE of pixels and of the features before
    and after training, with the 1-NN score of each; the first layer's filters; and the mistakes
    the model was surest of. Each picture is written as PNG and SVG, all of them on one page,
    index.html.
    """
    use_backend(backend)
    from mnist_keras._foundations.files import write
    from mnist_keras._foundations.pictures import read_gallery, write_index, write_picture
    from mnist_keras.datasets.images import DataError
    from mnist_keras.experiments.report import page
    from mnist_keras.inference import portrait
    from mnist_keras.inference.classification import labeled_images
    from mnist_keras.inference.model_file import load_model
    from mnist_keras.training.settings import check_word

    trained = load_model(model)
    names = trained.card.class_names
    if class_name is not None:
        check_word("class", class_name, names)
    for layer in layers:
        check_word("convolution", layer, portrait.convolutions(trained.model) or ["none"])
    with reading() as progress:
        images = labeled_images(
            directory, trained.card, on_bad=on_bad, max_files=max_files, progress=progress
        )
    if len(images) < 10:
        raise DataError(f"{directory}: {len(images)} images; pictures need at least 10")
    make_folder(output)
    captions = {}
    for picture in portrait.draw(
        trained,
        images,
        layers=layers,
        label=None if class_name is None else names.index(class_name),
        count=count,
        embedded=embed,
        seed=seed,
    ):
        write_picture(output, picture)
        captions[picture.name] = picture.caption
        click.echo(f"{output / picture.name}.png: {picture.caption}")
    write_index(output, f"{model.name} ({trained.card.settings.model}) on {images.name}.", captions)
    gallery = read_gallery(output)
    assert gallery is not None
    write(output / "index.html", page.gallery_html(gallery).encode())
    click.echo(f"{output / 'index.html'}")
