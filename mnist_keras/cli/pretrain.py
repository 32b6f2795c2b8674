"""`mnist-keras pretrain`: an encoder learns from images without labels, into a file."""

from pathlib import Path
from typing import Any

import click

from mnist_keras.cli import options
from mnist_keras.cli.data_options import unlabeled_images
from mnist_keras.cli.progress import progress


@click.command(
    epilog=options.example(
        "mnist-keras pretrain photos -o encoder.keras",
        "mnist-keras train --from encoder.keras --data photos -o model.keras",
    )
)
@options.directory
@options.output("The file that is written: the encoder with its card.")
@options.overwrite
@options.word(
    "--method",
    "mnist_keras.training.settings:Pretraining",
    "vicreg",
    "What two views of an image should have in common.",
)
@options.number("--epochs", 30, "How often each image is seen.", 1)
@options.number("--width", 16, "Channels of the first convolution.", 1, most=1024)
@click.option(
    "--grayscale", is_flag=True, help="Read one channel, not three; `train --data` reads three."
)
@options.number("--seed", 0, "Decides initial weights, order and views.")
@options.on_bad
@options.max_files
@options.backend
def pretrain(
    directory: Path,
    output: Path,
    overwrite: bool,
    method: Any,
    epochs: int,
    width: int,
    grayscale: bool,
    seed: int,
    backend: str | None,
    **reading: Any,
) -> None:
    """Train an encoder on images without labels.

    It learns from all images below DIR, and is written into FILE.keras.
    The names of folders in DIR make no difference. Two views are made of each image, moved,
    turned, stretched and bent at random, and the encoder learns to give both the same features.
    `mnist-keras train --from FILE.keras` goes on with few labeled images. Images are brought to
    28×28 in three channels.
    """
    options.outside(output, "output", directory)
    options.check_output(output, overwrite, ".keras")
    options.use_backend(backend)
    from mnist_keras.datasets.image_folder.reading import ImageForm
    from mnist_keras.inference.model_file import save_model
    from mnist_keras.inference.trained_model import pretrain_encoder
    from mnist_keras.training.run import Run
    from mnist_keras.training.settings import Settings

    form = ImageForm("grayscale" if grayscale else "rgb")
    images = unlabeled_images(directory, form=form, **reading)
    settings = Settings(
        model="small_cnn",
        width=width,
        loss="crossentropy",
        schedule="one_cycle",
        pretraining=method,
        pretraining_epochs=epochs,
        frozen=True,
    )
    run = Run.whole(settings, seed)
    with progress([run]) as show:
        trained, history = pretrain_encoder(settings, seed, images, show(run))
    save_model(output, trained)
    click.echo(f"{output}: encoder, {method}, {epochs} epochs of {len(images):,} images")
    click.echo(f"loss {history.loss[0]:.4f} in the first epoch, {history.loss[-1]:.4f} in the last")
    click.echo(f"{sum(history.seconds):.0f} s of training")
