"""A user's own images: class folders, training and test folders, IDX files or an .npz file."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mnist_keras._foundations.files import escaped, reason, shown_name
from mnist_keras.datasets import idx
from mnist_keras.datasets.choices import MAX_FILES, Cache
from mnist_keras.datasets.image_folder import oddities
from mnist_keras.datasets.image_folder.audit import Audit, audit
from mnist_keras.datasets.image_folder.decoding import CHANNELS, LEAST_SIDE, BadImageError
from mnist_keras.datasets.image_folder.findings import Finding, Severity
from mnist_keras.datasets.image_folder.reading import AS_THE_ORIGINAL, ImageForm, Progress
from mnist_keras.datasets.image_folder.walk import (
    ASIDE,
    NO_FILES,
    TRAINING,
    Folder,
    is_hidden,
    walk,
    walk_flat,
)
from mnist_keras.datasets.images import DataError, LabeledImages

# Beside the class folders, the folder of images that are not trained on.
HELDOUT = "heldout"
# The keys of Keras's own .npz files.
_KEYS = ("x_train", "y_train", "x_test", "y_test")


def read(
    path: Path,
    *,
    form: ImageForm = AS_THE_ORIGINAL,
    per_class: int | None = None,
    cache: Cache | None = None,
    max_files: int = MAX_FILES,
    progress: Progress | None = None,
) -> Audit:
    """Read and audit a user's images, whatever their layout. `Audit.require` then refuses.

    Args:
        path: A folder of class folders, with or without a `heldout/` beside them; a folder with
            `train/` and `test/`, or other words for them, each with the same class folders;
            a folder of IDX files; or an `.npz` file with Keras's keys: `x_train`, `y_train` and
            optionally `x_test`, `y_test`.
        form, per_class, cache, progress: As for `audit`. Arrays keep their size.
        max_files: As for `walk`.
    """
    try:
        if path.suffix.lower() == ".npz" and os.path.isfile(path):
            return _audit_arrays(path, _read_npz(path), form, per_class)
        if idx.lies_in(path):
            parts = [(f"{part}/images", *arrays) for part, arrays in idx.read_folder(path).items()]
            return _audit_arrays(path, parts, form, per_class)
    except DataError as error:
        return _unusable(path, Finding("bad_arrays", ".", str(error).removeprefix(f"{path}: ")))

    trains, heldout = _sides(path)
    if len(trains) > 1:
        several = f"more than one folder to train on: {escaped(', '.join(trains))}"
        return _unusable(path, Finding("ambiguous", ".", several))
    (training,) = trains
    leave_out = (HELDOUT,) if heldout and not training else ()
    own = walk(path, training, leave_out=leave_out, max_files=max_files)
    name = shown_name(path)
    if training:
        name += f"/{escaped(training)}"
        aside = [n for n in _folders_in(path) if n not in (training, heldout)]
        own = replace(own, findings=(*own.findings, *(Finding("left_aside", n) for n in aside)))
    others = _heldout(path, heldout, own, max_files) if heldout else NO_FILES
    return audit(
        path, own, others, name=name, form=form, per_class=per_class, cache=cache, progress=progress
    )


def read_unlabeled(path: Path, *, max_files: int = MAX_FILES, **options: Any) -> Audit:
    """Read and audit all image files below a folder as one class; the options are `audit`'s."""
    return audit(path, walk_flat(path, max_files), **options)


def _sides(path: Path) -> tuple[list[str], str]:
    """Return the folders that may be trained on (or "" for `path`) and that held out (or "")."""
    folders = _folders_in(path)
    # Classes that are called train and test hold images, not folders.
    deep = {name for name in folders if _folders_in(path / name)}
    trains = [name for name in folders if TRAINING.fullmatch(name)]
    aside = [name for name in folders if ASIDE.fullmatch(name)]
    # Of several, heldout before test, evaluation, validation and dev.
    aside.sort(key=lambda name: (name not in deep, "htevd".index(name[0].lower())))
    if trains and aside and deep & {*trains, *aside} - {HELDOUT}:
        return trains, aside[0]
    trains = [name for name in trains if "-" in name and name in deep]
    return trains or [""], HELDOUT if HELDOUT in deep else ""


def has_heldout(path: Path) -> bool:
    """Return whether a folder has held-out images beside its class folders."""
    return bool(_folders_in(path / HELDOUT))


def _folders_in(path: Path) -> list[str]:
    """Return the names of the visible folders in a folder; none if it cannot be read."""
    with suppress(OSError):  # the walk says so
        names = os.listdir(path)
        return sorted(n for n in names if not is_hidden(n) and os.path.isdir(path / n))
    return []


def _heldout(path: Path, base: str, training: Folder, max_files: int) -> Folder:
    """Walk the held-out class folders, which must be those that are trained on."""
    extra = [
        Finding("other_classes", f"{base}/{name}", "no such class to train on")
        for name in _folders_in(path / base)
        if name not in training.class_names
    ]
    found = walk(path, base, training.class_names, max_files=max_files)
    kinds = {"no_classes": "other_classes"}
    others = (replace(f, kind=kinds.get(f.kind, f.kind)) for f in found.findings)
    return replace(found, findings=(*extra, *others))


def _read_npz(path: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return the name, images and labels of each part of an .npz file with Keras's keys."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in _KEYS if key in archive.files}
            found = ", ".join(archive.files) or "none"
    except Exception as error:  # on damaged files, NumPy and zipfile raise almost anything
        raise DataError(f"cannot be read: {reason(error)}") from error
    if not {"x_train", "y_train"} <= set(arrays) or len(arrays) % 2:
        raise DataError(f"expected the arrays {', '.join(_KEYS)}; found {found}")
    return [(x, arrays[x], arrays[y]) for x, y in (_KEYS[:2], _KEYS[2:]) if x in arrays]


def _audit_arrays(
    path: Path,
    parts: Sequence[tuple[str, np.ndarray, np.ndarray]],
    form: ImageForm,
    per_class: int | None,
) -> Audit:
    """Audit arrays of 8-bit images of one size: the first part is trained on, not the second."""
    checked = [(name, *_images_and_labels(name, x, y, form)) for name, x, y in parts]
    if len({images.shape[1:] for _, images, _ in checked}) > 1:
        raise DataError("training and test images have different sizes")
    found: list[Finding] = []
    checked = [(name, _brought(name, x, form, found), y) for name, x, y in checked]
    count = 1 + max(int(labels.max()) for _, _, labels in checked)
    if missing := sorted(set(range(count)) - set(checked[0][2].tolist())):
        expected = f"expected each label of 0…{count - 1}"
        raise DataError(f"class {missing[0]} has no image to train on; {expected}")
    names = tuple(map(str, range(count)))
    training, *rest = (
        LabeledImages.of(shown_name(path), x, y, names, [f"{name}[{i}]" for i in range(len(y))])
        for name, x, y in checked
    )
    heldout = rest[0] if rest else training.take([])
    both = training.extended(heldout)
    aside = np.arange(len(both)) >= len(training)
    found += oddities.findings(both, aside, oddities.look(both.images[:]), {})
    refused = {finding.path for finding in found if finding.severity == Severity.REFUSED}
    if count < 2:
        found.append(Finding("single_class", ".", "all labels are 0"))
    training, heldout = (
        part.take([i for i, name in enumerate(part.file_paths) if name not in refused])
        for part in (training, heldout)
    )
    found += oddities.counts(names, training.labels, per_class)
    return Audit(path, training, heldout, tuple(found), len(both))


def _images_and_labels(
    name: str, images: np.ndarray, labels: np.ndarray, form: ImageForm
) -> tuple[np.ndarray, np.ndarray]:
    """Return images with the channels of the form, and labels of one dimension."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.dtype != np.uint8:
        raise DataError(
            f"{name}: expected 8-bit images, n×height×width, or ×1 or ×3. "
            f"Received: {images.dtype} of shape {images.shape}"
        )
    if min(images.shape[1:3]) < LEAST_SIDE:
        least = f"at least {LEAST_SIDE} pixels per side"
        raise DataError(f"{name}: expected {least}. Received: {images.shape}")
    labels = labels[:, 0] if labels.shape == (len(images), 1) else labels
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != (len(images),) or not whole or not len(labels) or labels.min() < 0:
        raise DataError(
            f"{name}: expected one label >= 0 for each of the {len(images)} images. "
            f"Received: {labels.dtype} of shape {labels.shape}"
        )
    if int(labels.max()) >= len(labels):
        raise DataError(f"{name}: label {labels.max()} of {len(labels)} images: a class is empty")
    channels = CHANNELS[form.color_mode]
    if images.shape[-1] == 1:
        images = np.repeat(images, channels, axis=-1)
    if images.shape[-1] != channels:
        raise DataError(f"{name}: expected {channels} channels. Received: {images.shape}")
    return images, labels.astype(np.int64)


def _brought(name: str, images: np.ndarray, form: ImageForm, found: list[Finding]) -> np.ndarray:
    """Return images of the form's size in this form; those of another size are left alone."""
    if images.shape[1:] != form.shape:
        return images
    brought = []
    for number, image in enumerate(images):
        try:
            brought.append(form.bring(image))
        except BadImageError as error:
            found.append(Finding(error.kind, f"{name}[{number}]", str(error)))
            brought.append(image)
    return np.stack(brought)


def _unusable(path: Path, finding: Finding) -> Audit:
    empty = LabeledImages.of(shown_name(path), np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0), ())
    return Audit(path, empty, empty, (finding,), 0)
