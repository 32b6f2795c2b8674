"""Images for a trained model, and what it makes of each, or why an image cannot be used."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mnist_keras._foundations.files import escaped
from mnist_keras.datasets import user_images
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
    """Return labeled images as a model takes them: only the held-out ones, if there are any.

    The arguments are those of `user_images.read` and `Audit.require`. Images of another size are
    resized as in training. Classes are matched by name; not all of them have to be there.
    """
    form = card.input.form
    audited = user_images.read(path, form=form, per_class=1, max_files=max_files, progress=progress)
    audited = audited.require(on_bad)
    images, name = audited.images, escaped(str(path))
    if len(audited.heldout):
        images = replace(audited.heldout, name=f"{audited.heldout.name}, held-out images")
    shapes = images.images.shape[1:], form.shape
    if shapes[0] != shapes[1]:
        found, takes = ("×".join(map(str, shape)) for shape in shapes)
        raise DataError(f"{name}: {found}; the model takes {takes}")
    known = card.class_names
    if unknown := [n for n in images.class_names if n not in known]:
        said = f"the model does not know class {unknown[0]!r}. Known: {', '.join(known)}"
        raise DataError(f"{name}: {said}")
    index = np.array([known.index(n) for n in images.class_names], np.int64)
    return replace(images, labels=index[images.labels], class_names=known)


@dataclass(frozen=True)
class Classified:
    """One image and what a model makes of it, or why it cannot be used."""

    name: str
    probabilities: np.ndarray | None  # of each class, in float64
    reason: str = ""


@dataclass(frozen=True)
class ImageSource:
    """An image that is still to be read: its name, and the function that returns its bytes."""

    name: str
    read: Callable[[], bytes]


def image_files(path: Path, max_files: int = MAX_FILES) -> list[ImageSource]:
    """Return a file, or all image files below a folder in natural order."""
    files = [path]
    if os.path.isdir(path):
        found = walk_flat(path, max_files)
        for finding in found.findings:
            if finding.severity == "fatal":
                raise DataError(f"{escaped(str(path))}: {finding}")
        files = [path / file.path for file in found.files]
    return [ImageSource(str(file), partial(read_file, file)) for file in files]


def classify(
    trained: TrainedModel,
    sources: Sequence[ImageSource],
    invert: Invert = "auto",
    fit: Fit = "auto",
) -> Iterator[Classified]:
    """Yield what a model makes of each image, in their order, after every few hundred images.

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
        # All calls have one shape, as in `predict`: bad images and the last call are filled up.
        filled = images + images[-1:] * (size - len(images))
        logits = predict(trained.model, np.stack(filled)) if images else np.empty((0, 0))
        of_images = iter(softmax(logits))
        for source, reason in zip(some, reasons, strict=True):
            probabilities = None if reason else next(of_images)
            if probabilities is not None and not np.isfinite(probabilities).all():
                probabilities, reason = None, "the model's probabilities are not finite numbers"
            yield Classified(source.name, probabilities, reason)
