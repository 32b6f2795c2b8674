"""`mnist-keras train`: one model, of any settings that an experiment can name, into a file."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli.data_options import (
    check_data_options,
    data_options,
    seed_images,
    unlabeled_images,
)
from mnist_keras.cli.options import (
    NamedPath,
    backend_option,
    check_output,
    output_option,
    overwrite_option,
    use_backend,
)
from mnist_keras.cli.progress import progress
from mnist_keras.experiments.recipes import LABELS_ALONE, WITH_UNLABELED, Recipe
from mnist_keras.training.settings import (
    ACTIVATIONS,
    AUGMENTATIONS,
    LOSSES,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULES,
    Settings,
)

if TYPE_CHECKING:
    from mnist_keras.inference.model_file import TrainedModel
    from mnist_keras.training.data import Data

_SETTINGS = (
    click.option("--model", type=click.Choice(list(NETWORKS)), help="Default: cnn."),
    click.option("--width", type=int, help="Of small_cnn's first convolution. Default: 16."),
    click.option(
        "--activation",
        type=click.Choice(ACTIVATIONS),
        help="Of the hidden layers. Default: sigmoid for basic_net, else relu.",
    ),
    click.option("--loss", type=click.Choice(LOSSES), help="Default: focal."),
    click.option("--gamma", type=float, help="Of the focal loss. Default: 2."),
    click.option("--alpha", type=float, help="Of the focal loss. Default: 1."),
    click.option("--label-smoothing", type=float, help="Default: 0."),
    click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="Default: adam."),
    click.option("--learning-rate", type=float, help="Default: 0.001."),
    click.option("--schedule", type=click.Choice(SCHEDULES), help="Default: constant."),
    click.option("--weight-decay", type=float, help="Default: 0."),
    click.option("--epochs", type=int, help="Default: 10."),
    click.option("--batch-size", type=int, help="Default: 100."),
    click.option("--augmentation", type=click.Choice(AUGMENTATIONS), help="Warps. Default: none."),
    click.option(
        "--validation-split",
        type=float,
        help="Share of the images that is tested on instead. Default: 0.2.",
    ),
    click.option(
        "--stratify/--no-stratify",
        default=None,
        help="Whether the test set takes that share of each class. Default: it does.",
    ),
)


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.command()
@output_option("The model, with its card.")
@overwrite_option
@click.option(
    "--best",
    is_flag=True,
    help="The recipe that did best with few labels; options change what they name.",
)
@click.option(
    "--from",
    "encoder",
    type=NamedPath(path_type=Path),
    metavar="ENCODER.keras",
    help="Begin with an encoder of `pretrain`, and with --best's recipe for labels alone.",
)
@click.option(
    "--unlabeled",
    type=NamedPath(path_type=Path),
    metavar="DIR",
    help="With --best: learn from all images below DIR, whose labels are not looked at.",
)
@_settings_options
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Draws, splits, initializes and shuffles.",
)
@data_options
@backend_option
def train(
    output: Path,
    overwrite: bool,
    best: bool,
    encoder: Path | None,
    unlabeled: Path | None,
    seed: int,
    backend: str | None,
    **options: Any,
) -> None:
    """Train one model and write it into FILE.keras.

    Without settings it is the original's CNN with its focal loss, for ten epochs. It is trained as
    `run` trains it, to the same bits. The file holds the weights and a card: class names, the
    images it takes, settings, hash of the data, accuracies with intervals, and versions. It is
    read on every backend.

    --best trains a small network on warped images, then a student of three of those on images
    whose labels are not looked at: the held-out ones, which it is scored on as well, or those of
    --unlabeled. Without any, it trains one network on the labels.
    """
    given = {f.name: options.pop(f.name) for f in fields(Settings) if f.name in options}
    check_data_options(**options)
    check_output(output, overwrite)
    if unlabeled and not best:
        raise click.UsageError("--unlabeled goes with --best")
    if best and encoder:
        raise click.UsageError("--from has the recipe of --best already; leave one out")
    use_backend(backend)
    from mnist_keras.inference.model_file import load_encoder, save_model
    from mnist_keras.inference.model_input import ModelInput

    start = load_encoder(encoder) if encoder else None
    images = seed_images(**options)
    for warning in (*images.warnings, *filter(None, [images.note])):
        click.echo(warning, err=True)
    data = images.of(seed)
    if unlabeled:
        form = ModelInput.of(data.images.images).form
        others = unlabeled_images(unlabeled, form, options["on_bad"], options["max_files"])
        data = replace(data, unlabeled=others)
    settings = Settings()
    if start:
        card = start.card
        settings = replace(LABELS_ALONE.settings, width=card.settings.width,
                           activation=card.settings.activation)  # fmt: skip
    elif best:
        recipe = WITH_UNLABELED if len(data.pool) else LABELS_ALONE
        settings = recipe.settings
        click.echo(_expectation(recipe, data), err=True)
    settings = changed(settings, {k: v for k, v in given.items() if v is not None})
    trained = train_model(settings, seed, data, start)
    if trained is None:
        sys.exit(6)
    save_model(output, trained)
    click.echo(f"{output}: {settings.model}, seed {seed}, trained on {images.name}")
    for line in metric_lines(trained.card.metrics):
        click.echo(line)
    if settings.uses_heldout and not unlabeled:
        click.echo("The held-out images were learned from, without their labels.")


def changed(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Return settings with some of them changed, and the defaults of others with them."""
    values = asdict(settings)
    if given.get("model", settings.model) != settings.model:
        values |= {"activation": None, "width": None}
    if given.get("loss", settings.loss) != settings.loss:
        values |= {"gamma": None, "alpha": None}
    return Settings(**{**values, **given})


def _expectation(recipe: Recipe, data: "Data") -> str:
    """Say what a recipe did on MNIST, and how long it will take here."""
    low, high = recipe.interval
    s = recipe.settings

    def work(labels: float, pool: int) -> float:
        return labels * s.members * s.epochs + pool * s.students * s.self_training_epochs

    here = work((1 - s.validation_split) * len(data.images), len(data.pool))
    minutes = recipe.minutes * here / work(400, 9_500)
    return (
        f"On MNIST, with 400 labels, this recipe was right on {recipe.accuracy:.2f} % "
        f"[{low:.2f}, {high:.2f}] of the held-out images (mean of seeds 0 to 4, 95 % interval; "
        f"`mnist-keras run representation`). Here it takes about {max(1, round(minutes))} "
        "processor minutes."
    )


def train_model(
    settings: Settings, seed: int, data: "Data", start: "TrainedModel | None" = None
) -> Any:
    """Train, showing progress, and return the `TrainedModel`, or `None` if it diverged.

    Args:
        settings: How.
        seed: Of the training.
        data: The images of the seed.
        start: An encoder to begin with.
    """
    import numpy as np

    from mnist_keras.inference.model_card import card_of
    from mnist_keras.inference.model_file import TrainedModel, check_size
    from mnist_keras.models.prediction import predict
    from mnist_keras.training.engine import Trainer
    from mnist_keras.training.networks import get_weights
    from mnist_keras.training.run import Run

    shape, class_names = data.images.images.shape[1:], data.images.class_names
    check_size(settings, shape, len(class_names))
    epochs = settings.all_epochs
    run = Run(settings=settings, seed=seed, scored_at=(epochs,))
    trainer = Trainer()
    if start and start.card.input.form.shape != shape:
        sizes = ("×".join(map(str, s)) for s in (start.card.input.form.shape, shape))
        raise click.UsageError("--from: the encoder takes {}, the images are {}".format(*sizes))
    weights = get_weights(start.model) if start else None
    with progress([run]) as advance:
        record = trainer.train(run, data, on_epoch=advance(run), start=weights)
    model = trainer.networks.of(settings, shape, len(class_names))
    seen, _ = data.split(settings, seed)
    # What the last step does is in no epoch's loss.
    if record.diverged or not np.isfinite(predict(model, seen.images)).all():
        click.echo(f"diverged at epoch {record.diverged or epochs}; nothing is written", err=True)
        return None
    return TrainedModel(model, card_of(record, seen, _origin(start) if start else ""))


def _origin(encoder: "TrainedModel") -> str:
    """Say what an encoder was trained on."""
    card = encoder.card
    s = card.settings
    return f"{s.pretraining}, {s.pretraining_epochs} epochs of {card.data_name} without labels"


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return what a card says of the model, a line for each number."""
    lines = [f"training loss {metrics['training_loss']:.4f}"]
    for name, title in (("test", "test"), ("heldout", "held-out")):
        if found := metrics.get(name):
            low, high = (100 * bound for bound in found["interval"])
            lines.append(
                f"{title} accuracy {100 * found['accuracy']:.2f} % [{low:.1f}, {high:.1f}], "
                f"n = {found['n']:,}"
            )
    return lines
