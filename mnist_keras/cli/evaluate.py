"""`mnist-keras evaluate`: what a trained model's answers are worth on labeled images."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli import options
from mnist_keras.cli.progress import reading
from mnist_keras.cli.terminal import show

if TYPE_CHECKING:
    from mnist_keras.inference.evaluation import Evaluation


@click.command(epilog=options.example("mnist-keras evaluate model.keras photos --unseen"))
@options.model
@options.directory
@options.word("--format", ("text", "json"), "text", "How the scores are printed.")
@options.output_folder(
    None, "Write evaluation.json, and reliability diagram and confusion matrix as PNG and SVG."
)
@click.option("--unseen", is_flag=True, help="Leave out images that the model was trained on.")
@options.invert
@options.fit
@options.on_bad
@options.max_files
@options.backend
def evaluate(
    model: Path,
    directory: Path,
    format: str,
    output: Path | None,
    unseen: bool,
    backend: str | None,
    **others: Any,
) -> None:
    """Score a model on labeled images, with intervals and calibration.

    DIR is whatever `run --data` takes, with the model's classes. If it has held-out images, only
    they are scored. Images that the model was trained on are counted: they say nothing about new
    ones.
    """
    if output:
        options.outside(output, "output", directory)
    options.use_backend(backend)
    from mnist_keras._foundations.files import write
    from mnist_keras._foundations.pictures import write_picture
    from mnist_keras.inference import evaluation
    from mnist_keras.inference.classification import labeled_images
    from mnist_keras.inference.figures import evaluation_pictures
    from mnist_keras.inference.model_file import load_model
    from mnist_keras.models.prediction import predict, softmax

    trained = load_model(model)
    with reading() as progress:
        images = labeled_images(directory, trained.card, progress=progress, **others)
    images, seen = evaluation.split_seen(images, trained.card.trained_on, unseen)
    if seen:
        click.echo(
            f"The model was trained on {seen:,} of these {len(images):,} images: the numbers "
            "flatter it. --unseen leaves them out.",
            err=True,
        )
    probabilities = softmax(predict(trained.model, images.images))
    found = evaluation.evaluate(probabilities, images.labels, images.class_names)
    document = {
        "model": str(model),
        "data": images.name,
        "data_fingerprint": images.fingerprint,
        "trained_on": seen,
        **evaluation.as_document(found),
    }
    text = json.dumps(document, indent=1)
    if output:
        options.make_folder(output)
        for picture in evaluation_pictures(found, f"{model} on {images.name}"):
            write_picture(output, picture)
        write(output / "evaluation.json", f"{text}\n".encode())
    if format == "json":
        click.echo(text)
    else:
        first = f"{model} on {images.name}, n = {found.n:,}"
        show("\n".join([first, *_lines(found)]) + "\n")


def _lines(found: "Evaluation") -> Iterator[str]:
    from mnist_keras._foundations.files import shown_names
    from mnist_keras._foundations.texts import markdown_table, percent

    names = shown_names(score.name for score in found.classes)

    def scored(
        name: str, value: float, bounds: tuple[float, float] | None, digits: int = 4
    ) -> list[str]:
        interval = "[{:.{d}f}, {:.{d}f}]".format(*bounds, d=digits) if bounds else ""
        return [name, f"{value:.{digits}f}", interval]

    low, high = found.accuracy_interval
    yield ""
    yield from markdown_table(
        [
            ["", "measured", "95 % interval"],
            scored("accuracy, %", 100 * found.accuracy, (100 * low, 100 * high), 2),
            scored("negative log-likelihood", found.negative_log_likelihood,
                   found.negative_log_likelihood_interval),
            scored("Brier score", found.brier, found.brier_interval),
            ["expected calibration error, %", f"{100 * found.calibration_error:.2f}", ""],
            ["confidence minus accuracy, points", f"{100 * found.overconfidence:+.2f}", ""],
        ]
    )  # fmt: skip

    def share(value: float, bounds: tuple[float, float] | None) -> str:
        return percent(value, bounds) if bounds else "–"

    yield ""
    yield from markdown_table(
        [["class", "images", "precision, %", "recall, %"]]
        + [
            [name, f"{c.n:,}", share(c.precision, c.precision_interval),
             share(c.recall, c.recall_interval)]
            for name, c in zip(names, found.classes, strict=True)
        ]
    )  # fmt: skip
    yield "\nConfusion: images of each class (row) that were given each class (column).\n"
    rows = zip(names, found.confusion.tolist(), strict=True)
    yield from markdown_table([["", *names], *([name, *map(str, row)] for name, row in rows)])
    yield "\nReliability: how often answers of a confidence are right.\n"
    yield from markdown_table(
        [["confidence", "images", "mean confidence", "accuracy"]]
        + [
            [f"{b.low:.2f} to {b.high:.2f}", f"{b.n:,}", f"{b.confidence:.3f}", f"{b.accuracy:.3f}"]
            for b in found.bins
            if b.n
        ]
    )
