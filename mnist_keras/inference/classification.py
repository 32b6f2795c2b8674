"""Images for a trained model, and what it makes of each, or why an image cannot be used."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from mnist_keras._foundations.files import escaped, shown_names
from mnist_keras._foundations.hashing import fingerprint_of_bytes
from mnist_keras.datasets import user_images
from mnist_keras.datasets.choices import MAX_FILES, OnBad
from mnist_keras.datasets.image_folder.decoding import (
    BadImageError,
    Remark,
    decode,
    read_file,
    say_nothing,
)
from mnist_keras.datasets.image_folder.findings import KINDS, Finding, Severity
from mnist_keras.datasets.image_folder.reading import ImageForm, Progress
from mnist_keras.datasets.image_folder.walk import USELESS, walk_flat
from mnist_keras.datasets.images import DataError, LabeledImages, image_fingerprint
from mnist_keras.inference.model_card import Card
from mnist_keras.inference.model_input import Fit, Invert, ModelInput
from mnist_keras.inference.trained_model import TrainedModel
from mnist_keras.models.prediction import call_size, predict, softmax


@dataclass(frozen=True)
class ModelForm(ImageForm):
    """The form that `predict`, `evaluate` and `explain` bring every image to, in one way."""

    input: ModelInput = field(kw_only=True)
    invert: Invert = "auto"
    fit: Fit = "auto"
    trained_on: frozenset[bytes] = field(default=frozenset(), repr=False)
    known: str = ""  # hash of `trained_on`, by which audits are remembered

    @classmethod
    def of(cls, card: Card, invert: Invert, fit: Fit) -> "ModelForm":
        """Return the form of a model; `invert` and `fit` are those of `ModelInput.bring`."""
        form, seen = card.input.form, card.trained_on
        return cls(
            *(form.color_mode, form.image_size, form.interpolation),
            input=card.input,
            invert=invert,
            fit=fit,
            trained_on=frozenset(seen.tolist()),
            known=fingerprint_of_bytes([seen.tobytes()]),
        )

    def bring(self, image: np.ndarray, remark: Remark = say_nothing) -> np.ndarray:
        """Return an image as the model takes it; an empty page is refused.

        An image that the model was trained on is brought as it was in training.
        """
        may_be_known = image.shape[:2] == self.image_size or self.input.resized
        if may_be_known and (self.invert, self.fit) == ("auto", "auto"):
            as_trained = self.resized(image)
            if image_fingerprint(as_trained).encode() in self.trained_on:
                return as_trained
        image = self.input.bring(image, self.invert, self.fit, remark)
        if not self.input.shows_something(image):
            raise BadImageError("blank")
        return image


def labeled_images(
    path: Path,
    card: Card,
    *,
    invert: Invert = "auto",
    fit: Fit = "auto",
    on_bad: OnBad = "refuse",
    max_files: int = MAX_FILES,
    progress: Progress | None = None,
) -> LabeledImages:
    """Return labeled images as a model takes them: only the held-out ones, if there are any.

    The arguments are those of `ModelInput.bring`, `user_images.read` and `Audit.require`. Classes
    are matched by name; not all of them have to be there.
    """
    form = ModelForm.of(card, invert, fit)
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
        shown = ", ".join(shown_names(known))
        said = f"the model does not know class {unknown[0]!r}. Known: {shown}"
        raise DataError(f"{name}: {said}")
    index = np.array([known.index(n) for n in images.class_names], np.int64)
    return replace(images, labels=index[images.labels], class_names=known)


@dataclass(frozen=True)
class Classified:
    """One image and what a model makes of it, or why it cannot be used."""

    name: str
    probabilities: np.ndarray | None  # of each class, in float64
    reason: str = ""
    remarks: tuple[str, ...] = ()  # what does not prevent its use


@dataclass(frozen=True)
class ImageSource:
    """An image that is still to be read: its name, and the function that returns its bytes."""

    name: str
    read: Callable[[], bytes]


def image_files(path: Path, max_files: int = MAX_FILES) -> list[ImageSource]:
    """Return a file, or all files below a folder but hidden and system files, in one order.

    Reading those that are not images raises a `BadImageError`, as for any that cannot be used.
    """
    if not os.path.isdir(path):
        return [ImageSource(str(path), partial(read_file, path))]
    found = walk_flat(path, max_files)
    left_out = [f for f in found.findings if f.kind not in ("hidden", "link", *USELESS)]
    for finding in found.findings:
        if finding.severity == "fatal" and not (finding.kind == "no_images" and left_out):
            raise DataError(f"{escaped(str(path))}: {finding}")
    sources = [(file.path, partial(read_file, path / file.path)) for file in found.files]
    sources += [(finding.path, partial(_refuse, finding)) for finding in left_out]
    sources.sort(key=lambda source: os.path.split(source[0]))
    return [ImageSource(str(path / name), read) for name, read in sources]


def _refuse(finding: Finding) -> bytes:
    raise BadImageError(finding.kind, finding.reason)


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
    form = ModelForm.of(trained.card, invert, fit)
    if not sources:
        return
    size = call_size(len(sources))
    for start in range(0, len(sources), size):
        some = sources[start : start + size]
        images, reasons, remarks = [], [], []
        for source in some:
            said: list[str] = []
            try:
                image = decode(source.read(), form.color_mode, partial(_note, said))
                images.append(form.bring(image, partial(_note, said)))
                reasons.append("")
            except BadImageError as error:
                reasons.append(str(error) or KINDS[error.kind].title)
            remarks.append(tuple(said))
        # All calls have one shape, as in `predict`: bad images and the last call are filled up.
        filled = images + images[-1:] * (size - len(images))
        logits = predict(trained.model, np.stack(filled)) if images else np.empty((0, 0))
        of_images = iter(softmax(logits))
        for source, reason, noted in zip(some, reasons, remarks, strict=True):
            probabilities = None if reason else next(of_images)
            if probabilities is not None and not np.isfinite(probabilities).all():
                probabilities, reason = None, "the model's probabilities are not finite numbers"
            yield Classified(source.name, probabilities, reason, noted)


def _note(said: list[str], kind: str, reason: str = "") -> None:
    """Note a warning; the size of an image matters to training alone."""
    if KINDS[kind].severity == Severity.WARNING and kind != "large":
        said.append(reason or KINDS[kind].title)
