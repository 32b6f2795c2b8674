"""`mnist-keras train`: one model, of any settings that an experiment can name, into a file."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli.images import check_data_options, data_options, seed_images
from mnist_keras.cli.options import NamedPath, backend_option, use_backend
from mnist_keras.cli.progress import progress
from mnist_keras.settings import ACTIVATIONS, LOSSES, NETWORKS, OPTIMIZERS, Settings

if TYPE_CHECKING:
    from mnist_keras.training import Data

_REPORT = Settings()
_SETTINGS = (
    click.option("--model", type=click.Choice(list(NETWORKS)), default="cnn", show_default=True),
    click.option(
        "--activation",
        type=click.Choice(ACTIVATIONS),
        help="Of the hidden layers. Default: sigmoid for basic_net, relu for cnn.",
    ),
    click.option("--loss", type=click.Choice(LOSSES), default=_REPORT.loss, show_default=True),
    click.option("--gamma", type=float, help="Of the focal loss. Default: 2."),
    click.option("--alpha", type=float, help="Of the focal loss. Default: 1."),
    click.option(
        "--optimizer", type=click.Choice(OPTIMIZERS), default=_REPORT.optimizer, show_default=True
    ),
    click.option("--learning-rate", type=float, default=_REPORT.learning_rate, show_default=True),
    click.option("--epochs", type=int, default=_REPORT.epochs, show_default=True),
    click.option("--batch-size", type=int, default=_REPORT.batch_size, show_default=True),
    click.option(
        "--validation-split",
        type=float,
        default=_REPORT.validation_split,
        show_default=True,
        help="Share of the images that is tested on instead.",
    ),
    click.option(
        "--stratify/--no-stratify",
        default=True,
        show_default=True,
        help="Whether the test set takes that share of each class.",
    ),
)


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.command()
@click.option(
    "-o",
    "--output",
    type=NamedPath(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.keras",
    help="The model, with its card.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@_settings_options
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Draws, splits, initialises and shuffles.",
)
@data_options
@backend_option
def train(
    output: Path,
    overwrite: bool,
    model: str,
    activation: str | None,
    loss: str,
    gamma: float | None,
    alpha: float | None,
    optimizer: str,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    validation_split: float,
    stratify: bool,
    seed: int,
    backend: str | None,
    **data: Any,
) -> None:
    """Train one model and write it into FILE.keras.

    Without settings it is the report's CNN with its focal loss, for ten epochs. It is trained as
    `run` trains it, to the same bits. The file holds the weights and a card: class names, the
    images it takes, settings, hash of the data, accuracies with intervals, and versions. It is
    read on every backend.
    """
    check_data_options(**data)
    settings = Settings(
        model=model,
        activation=activation,
        loss=loss,
        gamma=gamma,
        alpha=alpha,
        optimizer=optimizer,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        validation_split=validation_split,
        stratify=stratify,
    )
    _check_output(output, overwrite)
    use_backend(backend)
    images = seed_images(**data)
    for warning in (*images.warnings, *filter(None, [images.note])):
        click.echo(warning, err=True)
    trained = train_model(settings, seed, images.of(seed))
    if trained is None:
        sys.exit(6)

    from mnist_keras.model_files import save_model

    save_model(output, trained)
    click.echo(f"{output}: {settings.model}, seed {seed}, trained on {images.name}")
    for line in metric_lines(trained.card.metrics):
        click.echo(line)


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse a file that could not be written, before anything is trained."""
    if output.suffix != ".keras":
        raise click.UsageError(f"--output: the name has to end in .keras. Received: {output}")
    if not output.parent.is_dir():
        raise click.UsageError(f"--output: no such folder: {output.parent}")
    from mnist_keras.records import check_writable

    check_writable(output)
    if output.exists() and not overwrite:
        raise click.UsageError(f"{output} is there already; --overwrite replaces it")


def train_model(settings: Settings, seed: int, data: "Data") -> Any:
    """Train, showing progress, and return the `TrainedModel`, or `None` if it diverged."""
    import numpy as np

    from mnist_keras.cards import card_of
    from mnist_keras.model_files import TrainedModel, check_size
    from mnist_keras.prediction import predict
    from mnist_keras.runs import Run
    from mnist_keras.training import Trainer

    shape, class_names = data.images.images.shape[1:], data.images.class_names
    check_size(settings, shape, len(class_names))
    epochs = settings.all_epochs
    run = Run(settings=settings, seed=seed, scored_at=(epochs,))
    trainer = Trainer()
    with progress([run]) as advance:
        record = trainer.train(run, data, on_epoch=advance(run))
    model = trainer.networks.of(settings, shape, len(class_names))
    seen, _ = data.split(settings, seed)
    # What the last step does is in no epoch's loss.
    if record.diverged or not np.isfinite(predict(model, seen.images)).all():
        click.echo(f"diverged at epoch {record.diverged or epochs}; nothing is written", err=True)
        return None
    return TrainedModel(model, card_of(record, seen))


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
