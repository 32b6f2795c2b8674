"""Keras's directory loader, the same on every backend."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mnist_keras.datasets.batches import Batches, as_format
from mnist_keras.datasets.choices import Cache, ColorMode, Interpolation, OnBad
from mnist_keras.datasets.image_folder.audit import Audit, audit
from mnist_keras.datasets.image_folder.reading import ImageForm
from mnist_keras.datasets.image_folder.walk import Folder, walk, walk_flat
from mnist_keras.datasets.images import LabeledImages
from mnist_keras.datasets.splits import split_indices
from mnist_keras.datasets.user_images import HELDOUT, has_heldout

LabelMode = Literal["int", "categorical", "binary"]
Subset = Literal["training", "validation", "both"]


def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Literal["inferred"] | Sequence[int] | None = "inferred",
    label_mode: LabelMode | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: ColorMode = "rgb",
    batch_size: int = 100,
    image_size: tuple[int, int] = (28, 28),
    shuffle: bool = True,
    seed: int = 0,
    validation_split: float | None = 0.2,
    subset: Subset = "both",
    interpolation: Interpolation = "bilinear",
    format: Literal["tf", "grain"] | None = None,
    stratify: bool = True,
    on_bad: OnBad = "refuse",
    cache: Cache | None = None,
) -> Any:
    """`keras.utils.image_dataset_from_directory`, the same on every backend.

    It differs from Keras's in these ways. The split is stratified and depends on the content of
    the files alone. Duplicates stay on one side. Training batches are reshuffled in each epoch from
    `(seed, epoch)`. Classes are in natural order (`9` before `10`). A `heldout/` with class folders
    of its own is left out. Every file is audited before the first batch, so that one error names
    everything that is wrong.

    Args:
        directory: Folder with one folder of images for each class.
        labels: `"inferred"` from the folders; a sequence of one integer for each file, in the
            order of their paths; or `None`. The last two ignore the folders.
        label_mode: `"int"` (`int32`, shape `(batch,)`), `"categorical"` (`float32`, one-hot),
            `"binary"` (`float32`, shape `(batch, 1)`), or `None` for images alone.
        class_names: The class folders to read, in the order of the labels.
        color_mode: `"grayscale"`, `"rgb"` or `"rgba"`.
        batch_size: Images per batch.
        image_size: Height and width in pixels; images of another size are resized.
        shuffle: Whether to reshuffle the training batches in each epoch.
        seed: Integer >= 0 for the split and the order.
        validation_split: Share of the images for validation; `None` does not split.
        subset: `"training"`, `"validation"` or `"both"`. Ignored without a split.
        interpolation: `"bilinear"` or `"nearest"`.
        format: `None` for `Batches`, a `keras.utils.PyDataset` that needs no other package. `"tf"`
            returns the same batches as a `tf.data.Dataset`, `"grain"` as a `grain.IterDataset`.
        stratify: Whether each class is split by itself.
        on_bad: `"refuse"` raises if a file cannot be used; `"skip"` leaves such files out. The
            `audit` of the datasets names them.
        cache: As for `audit`.

    Returns:
        A dataset of `float32` images in 0…255 of shape `(batch, height, width, channels)` and
        their labels, with `class_names`, `file_paths` and the `audit` of the directory. For
        `subset="both"`, a list of two: training and validation. `Batches` also has all images as
        `x`, an array if they are in memory, and all labels as `y`.

    Raises:
        ImageFolderError: If the layout is wrong or files cannot be used; it lists all of them.
        ValueError: If an argument is out of range.
    """
    for name, value, choices in (
        ("label_mode", label_mode, (*get_args(LabelMode), None)),
        ("color_mode", color_mode, get_args(ColorMode)),
        ("interpolation", interpolation, get_args(Interpolation)),
        ("subset", subset, get_args(Subset)),
        ("format", format, (None, "tf", "grain")),
        ("on_bad", on_bad, get_args(OnBad)),
        ("cache", cache, (*get_args(Cache), None)),
    ):
        if value not in choices:
            raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}")
    height, width = image_size
    if min(height, width) < 1:
        raise ValueError(f"`image_size` must be positive. Received: image_size={image_size}")
    directory, form = Path(directory), ImageForm(color_mode, (height, width), interpolation)
    inferred = isinstance(labels, str) and labels == "inferred"
    if inferred:
        leave_out = [HELDOUT] if class_names is None and has_heldout(directory) else []
        folder = walk(directory, class_names=class_names, leave_out=leave_out)
    else:
        folder = walk_flat(directory)
        label_mode = None if labels is None else label_mode
    audited = audit(directory, folder, form=form, cache=cache).require(on_bad)
    images = audited.images if inferred else _given(labels, folder, audited)

    parts = {"all": np.arange(len(images))}
    if validation_split:
        training, validation = split_indices(images, validation_split, seed, stratify)
        parts = {"training": training, "validation": validation}
        if subset != "both":
            parts = {subset: parts[subset]}
    y = _encode(images, label_mode)
    datasets = []
    for part, indices in parts.items():
        chosen = images.take(indices)
        batches = Batches(
            chosen.images,
            None if y is None else y[indices],
            batch_size,
            shuffle=shuffle and part != "validation",
            seed=seed,
            class_names=images.class_names,
            file_paths=chosen.file_paths,
        )
        datasets.append(as_format(batches, format))
        datasets[-1].audit = audited
    return datasets if len(datasets) == 2 else datasets[0]


def _given(labels: str | Sequence[int] | None, folder: Folder, audited: Audit) -> LabeledImages:
    """Return the images with the labels that were given for all files, or with none."""
    count = len(folder.files)
    y = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    if y.shape != (count,) or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError(
            f"`labels` must be one integer >= 0 for each of the {count} files in {audited.root}. "
            f"Received: labels of shape {y.shape} and type {y.dtype}"
        )
    used = set(audited.images.file_paths)
    kept = [str(audited.root / file.path) in used for file in folder.files]
    names = tuple(map(str, range(y.max() + 1)))
    return replace(audited.images, labels=y[kept].astype(np.int64), class_names=names)


def _encode(images: LabeledImages, label_mode: LabelMode | None) -> np.ndarray | None:
    """Return the labels in Keras's encoding."""
    if label_mode == "int":
        return images.labels.astype("int32")
    if label_mode == "categorical":
        return np.asarray(np.eye(len(images.class_names), dtype="float32")[images.labels])
    if label_mode == "binary":
        if len(images.class_names) != 2:
            received = f"Received: class_names={list(images.class_names)}"
            raise ValueError(f'`label_mode="binary"` needs exactly 2 classes. {received}')
        return images.labels.astype("float32")[:, np.newaxis]
    return None
