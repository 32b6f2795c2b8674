"""Image files for a trained model, and what it makes of each, or why that cannot be used."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mnist_keras._foundations.files import escaped
from mnist_keras.datasets import user_images as user_data
from mnist_keras.datasets.choices import MAX_FILES, OnBad
from mnist_keras.datasets.image_folder.decoding import BadImageError, decode, read_file, say_nothing
from mnist_keras.datasets.image_folder.findings import KINDS
from mnist_keras.datasets.image_folder.reading import Progress
from mnist_keras.datasets.image_folder.walk import walk_flat
from mnist_keras.datasets.images import DataError, LabeledImages
from mnist_keras.inference.model_card import Card
from mnist_keras.inference.model_input import Fit, Invert
from mnist_keras.inference.trained_model import TrainedModel
from mnist_keras.models.prediction import call_size, predict, softmax


def labeled_images(
    path: Path,
    card: Card,
    *,
    on_bad: OnBad = "refuse",
    max_files: int = MAX_FILES,
    progress: Progress | None = None,
) -> LabeledImages:
    """Return labeled images as a model takes them: the held-out ones, where there are such.

    Args:
        path: Whatever `user_data.read` takes. Images of another size are resized as in training.
        card: The model's. Classes are known by their names; some of them are enough.
        on_bad, max_files, progress: As for `user_data.read` and `Audit.require`.

    Raises:
        DataError: If the images are refused, or of other classes or another size than the model's.
    """
    form = card.input.form
    audited = user_data.read(path, form=form, per_class=1, max_files=max_files, progress=progress)
    audited = audited.require(on_bad)
    images = audited.heldout if len(audited.heldout) else audited.images
    name = escaped(str(path))
    if images.images.shape[1:] != form.shape:
        raise DataError(f"{name}: {_size(images.images.shape[1:])}; the model takes "
                        f"{_size(form.shape)}")  # fmt: skip
    if unknown := [n for n in images.class_names if n not in card.class_names]:
        raise DataError(
            f"{name}: class {unknown[0]!r} is not the model's. Known: {', '.join(card.class_names)}"
        )
    index = np.array([card.class_names.index(n) for n in images.class_names], np.int64)
    held_out = f"{images.name}, held-out images" if len(audited.heldout) else images.name
    return replace(images, name=held_out, labels=index[images.labels], class_names=card.class_names)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


@dataclass(frozen=True)
class Classified:
    """One image and what a model makes of it.

    Attributes:
        name: The file's, or whatever the image is called.
        probabilities: One a class, `float64`; `None` if it cannot be used.
        reason: Why it cannot be used; else empty.
    """

    name: str
    probabilities: np.ndarray | None
    reason: str = ""


@dataclass(frozen=True)
class ImageSource:
    """An image that is yet to be read: its name, and the function that returns its bytes."""

    name: str
    read: Callable[[], bytes]


def image_files(path: Path, max_files: int = MAX_FILES) -> list[ImageSource]:
    """Return a file, or all image files below a folder in natural order.

    Raises:
        DataError: If it is a folder without images, or without an end.
    """
    if not os.path.isdir(path):
        return [_file(path)]
    found = walk_flat(path, max_files)
    for finding in found.findings:
        if finding.severity == "fatal":
            raise DataError(f"{escaped(str(path))}: {finding}")
    return [_file(path / file.path) for file in found.files]


def _file(path: Path) -> ImageSource:
    return ImageSource(str(path), lambda: read_file(path))


def classify(
    trained: TrainedModel,
    sources: Sequence[ImageSource],
    invert: Invert = "auto",
    fit: Fit = "auto",
) -> Iterator[Classified]:
    """Yield what a model makes of each image, in their order, a few hundred at a time.

    Args:
        trained: The model.
        sources: The images. They are read as training images are, with the same refusals.
        invert, fit: As for `ModelInput.bring`.
    """
    if not sources:
        return
    size = call_size(len(sources))
    for start in range(0, len(sources), size):
        some = sources[start : start + size]
        images, reasons = [], []
        for source in some:
            try:
                image = decode(source.read(), trained.card.input.form.color_mode, say_nothing)
                images.append(trained.card.input.bring(image, invert, fit))
                reasons.append("")
            except BadImageError as error:
                reasons.append(str(error) or KINDS[error.kind].title)
        # Calls of one shape, as in `predict`: bad images and the end leave no gap.
        filled = images + images[-1:] * (size - len(images))
        logits = predict(trained.model, np.stack(filled)) if images else np.empty((0, 0))
        of_images = iter(softmax(logits))
        for source, reason in zip(some, reasons, strict=True):
            probabilities = None if reason else next(of_images)
            if probabilities is not None and not np.isfinite(probabilities).all():
                probabilities, reason = None, "the model's probabilities are not finite numbers"
            yield Classified(source.name, probabilities, reason)
