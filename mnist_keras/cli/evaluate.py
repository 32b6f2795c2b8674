"""`mnist-keras evaluate`: what a trained model's answers are worth on labeled images."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from mnist_keras.datasets.images import LabeledImages
    from mnist_keras.inference.evaluation import Evaluation


@click.command()
@model_argument
@directory_argument
@click.option(
    "--format",
    "format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
)
@click.option(
    "-o",
    "--output",
    type=NamedPath(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write evaluation.json, and reliability and confusion as PNG and SVG.",
)
@click.option("--unseen", is_flag=True, help="Leave out images that the model was trained on.")
@on_bad_option
@max_files_option
@backend_option
def evaluate(
    model: Path,
    directory: Path,
    format: str,
    output: Path | None,
    unseen: bool,
    on_bad: Any,
    max_files: int,
    backend: str | None,
) -> None:
    """Score a model on labeled images, with intervals, by class, and for calibration.

    DIR is whatever `run --data` takes, of the model's classes; of one with held-out images these
    are taken. Images that the model was trained on are counted: they say nothing about new ones.
    """
    use_backend(backend)
    from mnist_keras.inference import evaluation
    from mnist_keras.inference.classification import labeled_images
    from mnist_keras.inference.model_file import load_model
    from mnist_keras.models.prediction import predict, softmax

    trained = load_model(model)
    with reading() as progress:
        images = labeled_images(
            directory, trained.card, on_bad=on_bad, max_files=max_files, progress=progress
        )
    images, seen = _split_seen(images, trained.card.trained_on, unseen)
    probabilities = softmax(predict(trained.model, images.images))
    found = evaluation.evaluate(probabilities, images.labels, images.class_names)
    document = {
        "model": str(model),
        "data": images.name,
        "data_fingerprint": images.fingerprint,
        "trained_on": seen,
        **_as_json(found),
    }
    if output:
        _write(output, document, found, images)
    if format == "json":
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(f"{model} on {images.name}, n = {found.n:,}")
        for line in _lines(found):
            click.echo(line)


def _split_seen(
    images: "LabeledImages", trained_on: Any, unseen: bool
) -> "tuple[LabeledImages, int]":
    """Return the images to score, and how many of them the model was trained on; say so."""
    import numpy as np

    from mnist_keras.datasets.images import DataError

    known = np.isin(images.fingerprints, trained_on)
    if unseen:
        images, known = images.take(np.flatnonzero(~known)), known[~known]
        if not len(images):
            raise DataError(f"{images.name}: the model was trained on all of these images")
    elif known.any():
        click.echo(
            f"The model was trained on {known.sum():,} of these {len(images):,} images: the "
            "numbers flatter it. --unseen leaves them out.",
            err=True,
        )
    return images, int(known.sum())


def _lines(found: "Evaluation") -> Iterator[str]:
    from mnist_keras._foundations.texts import markdown_table

    low, high = found.accuracy_interval
    rows = [
        ["accuracy, %", f"{100 * found.accuracy:.2f}", f"[{100 * low:.2f}, {100 * high:.2f}]"],
        _scored("negative log-likelihood", found.negative_log_likelihood,
                found.negative_log_likelihood_interval),
        _scored("Brier score", found.brier, found.brier_interval),
        ["expected calibration error, %", f"{100 * found.calibration_error:.2f}", ""],
        ["confidence less accuracy, points", f"{100 * found.overconfidence:+.2f}", ""],
    ]  # fmt: skip
    yield ""
    yield from markdown_table([["", "measured", "95 % interval"], *rows])
    yield ""
    header = ["class", "images", "precision, %", "recall, %"]
    yield from markdown_table(
        [header]
        + [
            [
                score.name,
                f"{score.n:,}",
                _percent(score.precision, score.precision_interval),
                _percent(score.recall, score.recall_interval),
            ]
            for score in found.classes
        ]
    )
    names = [score.name for score in found.classes]
    yield "\nConfusion: images of each class, by line, given each class, by column."
    yield ""
    yield from markdown_table(
        [["", *names]]
        + [[n, *map(str, line)] for n, line in zip(names, found.confusion.tolist(), strict=True)]
    )
    yield "\nReliability: how often images of a confidence are right."
    yield ""
    yield from markdown_table(
        [["confidence", "images", "mean confidence", "accuracy"]]
        + [
            [f"{b.low:.2f} to {b.high:.2f}", f"{b.n:,}", f"{b.confidence:.3f}", f"{b.accuracy:.3f}"]
            for b in found.bins
            if b.n
        ]
    )


def _scored(name: str, value: float, bounds: tuple[float, float] | None) -> list[str]:
    return [name, f"{value:.4f}", f"[{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""]


def _percent(share: float, bounds: tuple[float, float] | None) -> str:
    from mnist_keras._foundations.texts import percent

    if bounds is None:
        return "–"
    return percent(share, bounds)


def _as_json(found: "Evaluation") -> dict[str, Any]:
    """Return plain values; what is not a number is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return None if value != value else value  # only NaN differs from itself

    return plain({**asdict(found), "confusion": found.confusion.tolist()})


def _write(
    folder: Path, document: dict[str, Any], found: "Evaluation", images: "LabeledImages"
) -> None:
    from mnist_keras._foundations.files import write
    from mnist_keras._foundations.pictures import Picture, plain_names, write_picture
    from mnist_keras.inference import figures as model_figures

    make_folder(folder)
    with plain_names():
        title = f"{document['model']} on {images.name}"
        for name, figure in (
            ("reliability", model_figures.reliability_figure(found, title)),
            ("confusion", model_figures.confusion_figure(found, images.class_names, title)),
        ):
            write_picture(folder, Picture(name, title, figure))
    write(folder / "evaluation.json", (json.dumps(document, indent=1) + "\n").encode())
