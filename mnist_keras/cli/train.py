"""`mnist-keras train`: one model, of any settings that an experiment can name, into a file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mnist_keras.cli import options
from mnist_keras.cli.data_options import (
    check_data_options,
    data_options,
    seed_images,
    unlabeled_images,
)
from mnist_keras.cli.field_options import fields_command, given
from mnist_keras.cli.progress import progress

# Settings of runs that no single network comes from.
_LEFT_OUT = (
    *("copies", "members", "views", "pretraining", "pretraining_epochs", "frozen"),
    *("self_training", "self_training_epochs", "self_training_rounds"),
)
_SECTIONS = {
    "Images": (
        *("directory", "source", "idx", "per_class", "split", "validation_split", "stratify"),
        *("on_bad", "cache", "max_files", "unlabeled"),
    ),
    "Model": ("model", "width", "activation", "best", "encoder"),
    "Training": (
        *("loss", "gamma", "alpha", "label_smoothing", "optimizer", "learning_rate", "schedule"),
        *("weight_decay", "epochs", "batch_size", "augmentation", "seed"),
    ),
}


def _networks() -> dict[str, Any]:
    from mnist_keras.training.settings import Network

    return {"model": Network}


@click.command(
    cls=fields_command("mnist_keras.training.settings:Settings", _LEFT_OUT, _networks, _SECTIONS),
    epilog=options.example(
        "mnist-keras train -o cnn.keras",
        "mnist-keras train --best --data photos -o best.keras",
    ),
)
@options.output("The file that is written: the model with its card.")
@options.overwrite
@click.option(
    "--best",
    is_flag=True,
    help="Take the recipe that did best with few labels; other options change it.",
)
@click.option(
    "--from",
    "encoder",
    type=options.NamedPath(path_type=Path),
    metavar="ENCODER.keras",
    help="Begin with an encoder of `pretrain`, and with --best's recipe for labels alone.",
)
@options.folder(
    "--unlabeled", "With --best: learn from all images below DIR, whose labels are not looked at."
)
@options.number("--seed", 0, "Decides draw, split, initial weights, batch order and dropout.")
@data_options
@options.backend
def train(
    output: Path,
    overwrite: bool,
    best: bool,
    encoder: Path | None,
    unlabeled: Path | None,
    seed: int,
    backend: str | None,
    **chosen: Any,
) -> None:
    """Train one model and write it into FILE.keras.

    Without settings it is the original's CNN with its focal loss, for ten epochs. It is trained as
    `run` trains it, to the same bits. The file holds the weights and a card: class names, the
    images it takes, settings, hash of the data, accuracies with intervals, and versions. Every
    backend reads it.

    --best trains a small network on warped images, then a student of three of them on images
    whose labels are not looked at. These are the held-out images, which it is scored on as well,
    or those of --unlabeled. Without any, one network is trained on the labels.
    """
    from mnist_keras.experiments.recipes import LABELS_ALONE, WITH_UNLABELED
    from mnist_keras.training.settings import Settings

    changes = given(chosen, Settings.model_fields)
    check_data_options(**chosen)
    options.outside(output, "output", chosen["directory"], chosen["idx"], unlabeled)
    options.check_output(output, overwrite, ".keras")
    if unlabeled and not best:
        raise click.UsageError("--unlabeled goes with --best")
    if best and encoder:
        raise click.UsageError("--from has the recipe of --best already; leave one out")
    options.use_backend(backend)
    from mnist_keras.inference.model_file import load_encoder, save_model
    from mnist_keras.inference.model_input import ModelInput
    from mnist_keras.inference.trained_model import train_model
    from mnist_keras.training.run import Run

    start = load_encoder(encoder) if encoder else None
    images = seed_images(**chosen)
    if images.note:
        click.echo(images.note, err=True)
    data = images.of(seed)
    if unlabeled:
        form = ModelInput.of(data.images.images).form
        reading = {name: chosen[name] for name in ("on_bad", "max_files")}
        data = replace(data, unlabeled=unlabeled_images(unlabeled, form=form, **reading))
    settings = Settings()
    if start:
        encoded = {name: getattr(start.card.settings, name) for name in ("width", "activation")}
        settings = LABELS_ALONE.settings.replace(**encoded)
    elif best:
        recipe = WITH_UNLABELED if len(data.without_labels) else LABELS_ALONE
        settings = recipe.settings
        click.echo(recipe.expectation(len(data.images), len(data.without_labels)), err=True)
    settings = settings.replace(**changes)
    run = Run.whole(settings, seed)
    with progress([run]) as show:
        trained = train_model(settings, seed, data, start, show(run))
    save_model(output, trained)
    click.echo(f"{output}: {settings.model}, seed {seed}, trained on {images.name}")
    click.echo(trained.card.metrics)
    if settings.uses_unlabeled and not unlabeled:
        click.echo("The held-out images were learned from, without their labels.")
