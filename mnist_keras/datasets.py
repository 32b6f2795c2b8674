"""Seeded, stratified splits, and Keras's directory loader the same on every backend."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mnist_keras.batches import Batches, as_format
from mnist_keras.image_folder import (
    ColorMode,
    ImageFolderError,
    Interpolation,
    find_files,
    read_image_folder,
    read_images,
)
from mnist_keras.images import LabeledImages, label
from mnist_keras.seeds import generator

LabelMode = Literal["int", "categorical", "binary"]


def split_indices(
    images: LabeledImages, validation_split: float, seed: int, stratify: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Split images by their contents: renaming or reordering files changes nothing.

    Args:
        images: What to split.
        validation_split: Share of the images for validation, between 0 and 1.
        seed: Integer >= 0.
        stratify: Whether each class gives that share of its own images, as the report says
            (40/10 of 50), or the share is drawn from all of them, as the report's code does.

    Returns:
        Indices for training and for validation, each in ascending order.

    Raises:
        ValueError: If the share is not between 0 and 1, or leaves a side empty.
    """
    if not 0 < validation_split < 1:
        raise ValueError(
            "`validation_split` must be between 0 and 1. "
            f"Received: validation_split={validation_split}"
        )
    order = generator(seed, "split").permutation(images.canonical_order)
    groups = [order]
    if stratify:
        groups = [order[images.labels[order] == c] for c in np.unique(images.labels)]
    sizes = [round(len(group) * validation_split) for group in groups]
    validation = np.concatenate([g[:size] for g, size in zip(groups, sizes, strict=True)])
    training = np.concatenate([g[size:] for g, size in zip(groups, sizes, strict=True)])
    if not len(training) or not len(validation):
        raise ValueError(
            f"`validation_split={validation_split}` of {len(images)} images leaves "
            f"{len(training)} for training and {len(validation)} for validation"
        )
    return np.sort(training), np.sort(validation)


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
    subset: Literal["training", "validation", "both"] = "both",
    interpolation: Interpolation = "bilinear",
    format: Literal["tf", "grain"] | None = None,
    stratify: bool = True,
) -> Any:
    """`keras.utils.image_dataset_from_directory`, the same on every backend.

    Differs from Keras's in this: the split is stratified and decided by the contents of
    the files, training batches are reshuffled each epoch from `(seed, epoch)`, classes are in
    natural order (`9` before `10`), and every file is read before the first batch, so that a
    damaged one is named at once.

    Args:
        directory: Folder with one folder of images for each class.
        labels: `"inferred"` from the folders; a sequence of one integer for each file in
            the order of their paths; or `None`. The last two ignore the folders.
        label_mode: `"int"` (`int32`, shape `(batch,)`), `"categorical"` (`float32` one-hot),
            `"binary"` (`float32`, shape `(batch, 1)`), or `None` for images alone.
        class_names: The class folders to read, in the order of the labels.
        color_mode: `"grayscale"`, `"rgb"` or `"rgba"`.
        batch_size: Images a batch.
        image_size: Height and width; images of another size are resized.
        shuffle: Whether to reshuffle the training batches each epoch.
        seed: Integer >= 0 for the split and the order.
        validation_split: Share of the images for validation; `None` does not split.
        subset: `"training"`, `"validation"` or `"both"`. Ignored without a split.
        interpolation: `"bilinear"` or `"nearest"`.
        format: `None` for `Batches`, a `keras.utils.PyDataset` that needs no other package;
            `"tf"` for the same batches as a `tf.data.Dataset`; `"grain"` as a
            `grain.IterDataset`.
        stratify: Whether each class is split by itself.

    Returns:
        A dataset of `float32` images in 0…255 of shape `(batch, height, width, channels)`
        and their labels, with `class_names` and `file_paths`; for `subset="both"` a list
        of two, training and validation. `Batches` has all of them as arrays: `x` and `y`.

    Raises:
        ImageFolderError: If the layout is wrong or a file is damaged; it lists them all.
        ValueError: If an argument is out of range.
    """
    _check_choice("label_mode", label_mode, ("int", "categorical", "binary", None))
    _check_choice("color_mode", color_mode, ("grayscale", "rgb", "rgba"))
    _check_choice("interpolation", interpolation, ("bilinear", "nearest"))
    _check_choice("subset", subset, ("training", "validation", "both"))
    _check_choice("format", format, (None, "tf", "grain"))
    if labels == "inferred":
        images = read_image_folder(directory, color_mode, image_size, interpolation, class_names)
    else:
        images = _read_flat(Path(directory), labels, color_mode, image_size, interpolation)
        label_mode = None if labels is None else label_mode

    parts = {"all": np.arange(len(images))}
    if validation_split:
        training, validation = split_indices(images, validation_split, seed, stratify)
        parts = {"training": training, "validation": validation}
        if subset != "both":
            parts = {subset: parts[subset]}
    y = _encode(images, label_mode)
    datasets = [
        as_format(
            Batches(
                images.images[indices],
                None if y is None else y[indices],
                batch_size,
                shuffle=shuffle and part != "validation",
                seed=seed,
                class_names=images.class_names,
                file_paths=[images.file_paths[i] for i in indices],
            ),
            format,
        )
        for part, indices in parts.items()
    ]
    return datasets if len(datasets) == 2 else datasets[0]


def _check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {tuple(choices)}. Received: {name}={value!r}")


def _read_flat(
    directory: Path,
    labels: Sequence[int] | None,
    color_mode: ColorMode,
    image_size: tuple[int, int],
    interpolation: Interpolation,
) -> LabeledImages:
    """Read all files below `directory`, in the order of their paths, with the labels given."""
    paths = list(find_files(directory))
    if not paths:
        raise ImageFolderError(directory, [(".", "no images")])
    y = np.zeros(len(paths), np.int64) if labels is None else np.asarray(labels)
    if y.shape != (len(paths),) or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError(
            f"`labels` must be one integer >= 0 for each of the {len(paths)} files in "
            f"{directory}. Received: labels of shape {y.shape} and type {y.dtype}"
        )
    images, problems = read_images(directory, paths, color_mode, image_size, interpolation)
    if problems:
        raise ImageFolderError(directory, problems)
    names = [str(number) for number in range(y.max() + 1)]
    return label(directory.name, images, y, names, [str(path) for path in paths])


def _encode(images: LabeledImages, label_mode: LabelMode | None) -> np.ndarray | None:
    """Return the labels in Keras's encodings."""
    if label_mode == "int":
        return images.labels.astype("int32")
    if label_mode == "categorical":
        return np.eye(len(images.class_names), dtype="float32")[images.labels]
    if label_mode == "binary":
        if len(images.class_names) != 2:
            raise ValueError(
                '`label_mode="binary"` needs exactly 2 classes. '
                f"Received: class_names={list(images.class_names)}"
            )
        return images.labels.astype("float32")[:, np.newaxis]
    return None
