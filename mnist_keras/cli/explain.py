"""`mnist-keras explain`: pictures of how a trained model decides."""

from pathlib import Path
from typing import Any

import click

from mnist_keras.cli import options
from mnist_keras.cli.progress import reading


@click.command(epilog=options.example("mnist-keras explain model.keras photos -o pictures"))
@options.model
@options.directory
@options.output_folder(
    Path("results/explanations"),
    "Folder for the pictures and their page. If it is `explanations` in a folder of `run`, the "
    "report there shows the pictures as well.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME",
    help="Convolution whose maps are drawn; may be given more than once. Default: the last one.",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="Class that the maps explain. Default: the one predicted for each image.",
)
@options.number("--images", 10, "Images in the strip of maps.", 1, most=100)
@options.number("--embed", 1000, "Largest number of images in the t-SNE plots.", 10)
@options.number("--seed", 0, "Decides which images are drawn, and where t-SNE begins.")
@options.invert
@options.fit
@options.on_bad
@options.max_files
@options.backend
def explain(
    model: Path,
    directory: Path,
    output: Path,
    layers: tuple[str, ...],
    class_name: str | None,
    images: int,
    embed: int,
    seed: int,
    backend: str | None,
    **others: Any,
) -> None:
    """Draw where a model looks, its mistakes, and how it sorts images.

    DIR holds labeled images, as for `evaluate`. The pictures are: HiResCAM, Grad-CAM and occlusion
    maps, with the effect of erasing what they point to; t-SNE of pixels and of the features before
    and after training, with the 1-NN score of each; the first layer's filters; and the most
    confident mistakes. Each picture is written as PNG and SVG, and one page, index.html, shows all.
    """
    output = options.outside(output, "output", directory)
    options.use_backend(backend)
    from mnist_keras._foundations.files import write
    from mnist_keras._foundations.pictures import read_gallery
    from mnist_keras.experiments.report import page
    from mnist_keras.inference import portrait
    from mnist_keras.inference.classification import labeled_images
    from mnist_keras.inference.model_file import load_model

    trained = load_model(model)
    label = portrait.check(trained, layers, class_name)
    with reading() as progress:
        labeled = labeled_images(directory, trained.card, progress=progress, **others)
    drawn = portrait.draw(
        trained, labeled, layers=layers, label=label, count=images, embedded=embed, seed=seed
    )
    options.make_folder(output)
    title = f"{model.name} ({trained.card.settings.model}) on {labeled.name}."
    for picture in portrait.write(output, title, drawn):
        click.echo(f"{output / picture.name}.png: {picture.caption}")
    gallery = read_gallery(output)
    assert gallery is not None
    write(output / "index.html", page.gallery_html(gallery).encode())
    click.echo(f"{output / 'index.html'}")
