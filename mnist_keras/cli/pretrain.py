"""`mnist-keras pretrain`: an encoder learns from images without labels, into a file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_keras.cli.data_options import unlabeled_images
from mnist_keras.cli.options import (
    backend_option,
    check_output,
    directory_argument,
    max_files_option,
    on_bad_option,
    output_option,
    overwrite_option,
    use_backend,
)
from mnist_keras.cli.progress import progress
from mnist_keras.training.settings import PRETRAININGS, Settings

if TYPE_CHECKING:
    from mnist_keras.datasets.image_folder.findings import OnBad


@click.command()
@directory_argument
@output_option("The encoder, with its card.")
@overwrite_option
@click.option(
    "--method",
    type=click.Choice(PRETRAININGS[1:]),
    default="vicreg",
    show_default=True,
    help="What two views of an image are to have in common.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=30, show_default=True)
@click.option(
    "--width",
    type=click.IntRange(min=1, max=1024),
    default=16,
    show_default=True,
    help="Channels of the first convolution.",
)
@click.option(
    "--grayscale", is_flag=True, help="One channel instead of three; `train` on --data has three."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Initializes, shuffles and warps.",
)
@on_bad_option
@max_files_option
@backend_option
def pretrain(
    directory: Path,
    output: Path,
    overwrite: bool,
    method: str,
    epochs: int,
    width: int,
    grayscale: bool,
    seed: int,
    on_bad: "OnBad",
    max_files: int,
    backend: str | None,
) -> None:
    """Train an encoder on all images below DIR, without labels, and write it into FILE.keras.

    What the folders in DIR are called makes no difference. Of each image two views are made,
    moved, turned, stretched and bent at random, and the encoder learns to give them like features.
    `mnist-keras train --from FILE.keras` goes on with few labeled images. Images are brought to
    28×28 in three channels.
    """
    check_output(output, overwrite)
    use_backend(backend)
    from mnist_keras._foundations import backends
    from mnist_keras.datasets.image_folder.reading import ImageForm
    from mnist_keras.inference.model_card import Card
    from mnist_keras.inference.model_file import TrainedModel, save_model
    from mnist_keras.inference.model_input import ModelInput
    from mnist_keras.training.representation import pretrain as train_encoder
    from mnist_keras.training.run import Run

    form = ImageForm("grayscale" if grayscale else "rgb")
    images = unlabeled_images(directory, form, on_bad, max_files)
    settings = Settings(
        model="small_cnn",
        width=width,
        loss="crossentropy",
        schedule="one_cycle",
        pretraining=method,
        pretraining_epochs=epochs,
        frozen=True,
    )
    run = Run(settings=settings, seed=seed, scored_at=(epochs,))
    with progress([run]) as show:
        encoder, history = train_encoder(
            images.sorted_by_content().images,
            method,
            epochs,
            width=width,
            seed=seed,
            on_epoch=show(run),
        )
    if history.diverged:
        click.echo(f"diverged at epoch {len(history.loss)}; nothing is written", err=True)
        sys.exit(6)
    card = Card(
        class_names=(),
        input=ModelInput.of(images.images),
        settings=settings,
        seed=seed,
        data_name=images.name,
        data_fingerprint=images.fingerprint,
        trained_on=images.fingerprints[:0],
        metrics={"training_loss": history.loss[-1]},
        versions=backends.versions(),
    )
    save_model(output, TrainedModel(encoder, card))
    click.echo(f"{output}: encoder, {method}, {epochs} epochs of {len(images):,} images")
    click.echo(f"loss {history.loss[0]:.4f} in the first epoch, {history.loss[-1]:.4f} in the last")
    click.echo(f"{sum(history.seconds):.0f} s of training")
