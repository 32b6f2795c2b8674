"""Keras's directory loader, the same on every backend."""

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np

from mnist_keras.datasets.batches import Batches, as_format
from mnist_keras.datasets.choices import Aspect, Cache, ColorMode, Interpolation, OnBad
from mnist_keras.datasets.image_folder.audit import Audit, audit
from mnist_keras.datasets.image_folder.findings import Finding, ImageFolderError
from mnist_keras.datasets.image_folder.reading import ImageForm
from mnist_keras.datasets.image_folder.walk import FLAT, Folder, walk, walk_as_keras, walk_flat
from mnist_keras.datasets.images import LabeledImages, channels_first
from mnist_keras.datasets.splits import split_in_order, split_indices
from mnist_keras.datasets.user_images import HELDOUT, has_heldout

LabelMode = Literal["int", "categorical", "binary"]


def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Literal["inferred"] | Sequence[int] | None = "inferred",
    label_mode: LabelMode | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: ColorMode = "rgb",
    batch_size: int | None = 32,
    image_size: int | tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: Literal["training", "validation", "both"] | None = None,
    interpolation: Interpolation = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: Literal["channels_last", "channels_first"] | None = None,
    format: Literal["tf", "grain"] | None = "tf",
    verbose: bool = True,
    *,
    stratify: bool = True,
    on_bad: OnBad | Literal["keep"] = "refuse",
    cache: Cache | None = None,
) -> Any:
    """`keras.utils.image_dataset_from_directory`, the same on every backend.

    It takes Keras's arguments, and differs in three ways:

    ===================================================================  ================
    here                                                                 as Keras
    ===================================================================  ================
    bad and ambiguous files are refused at once, hidden ones left out    `on_bad="keep"`
    the split is stratified, by content alone; duplicates stay together  `stratify=False`
    Grain also reshuffles in each epoch; validation is never shuffled    `shuffle=False`
    ===================================================================  ================

    As Keras, the classes, files, sides, labels and images are those of its `format="tf"`, bit for
    bit on 8-bit PNG and BMP in the channels of `color_mode`, resized by `"nearest"` or
    `"bilinear"`. Other interpolations agree within 0.002 of 255 levels; Pillow decodes JPEG.

    Args:
        directory: Folder with one folder of images for each class.
        labels: `"inferred"` from the folders; one integer for each file, in the order of their
            paths; or `None`. The last two ignore the folders.
        label_mode: `"int"` (`int32`, shape `(batch,)`), `"categorical"` (`float32`, one-hot),
            `"binary"` (`float32`, shape `(batch, 1)`), or `None` for images alone.
        class_names: The class folders to read, in the order of the labels. By default all, in
            alphanumeric order: `"10"` before `"9"`.
        color_mode: `"grayscale"`, `"rgb"` or `"rgba"`.
        batch_size: Images per batch. `None` gives single images.
        image_size: Height and width in pixels; images of another size are resized.
        shuffle: Whether to shuffle the files, and the training batches in each epoch.
        seed: Integer >= 0 for the split and the order. Drawn from NumPy by default.
        validation_split: Share of the images for validation, with `subset`.
        subset: `"training"`, `"validation"`, or `"both"` for a list of the two.
        interpolation: `"bilinear"`, `"nearest"`, `"bicubic"`, `"area"`, `"lanczos3"`,
            `"lanczos5"`, `"gaussian"` or `"mitchellcubic"`, none of them antialiased.
        follow_links: Whether to read folders in class folders that are links.
        crop_to_aspect_ratio, pad_to_aspect_ratio: Whether to resize without distortion: the largest
            part in the middle, or all of it between black margins.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras's configuration.
        format: `"tf"` for a `tf.data.Dataset`; `"grain"` for a `grain.IterDataset`; `None` for
            `Batches`, a `keras.utils.PyDataset` that needs neither package.
        verbose: Whether to print the number of files, as Keras does.
        stratify: Whether each class is split by itself. With `False`, the split is Keras's.
        on_bad: `"refuse"` raises if a file cannot be used; `"skip"` leaves such files out; `"keep"`
            takes what Keras takes, and refuses what cannot be decoded. The `audit` names them.
        cache: As for `audit`.

    Returns:
        A dataset of `float32` images in 0…255 of shape `(batch, height, width, channels)` and
        their labels, with `class_names`, `file_paths` and the `audit` of the directory. `Batches`
        also has all images as `x`, an array if they are in memory, and all labels as `y`.

    Raises:
        ImageFolderError: If the layout is wrong or files cannot be used; it lists all of them.
        ValueError: If an argument is out of range.
        ImportError: If the format needs a package that is not installed.
    """
    interpolation = interpolation.lower()  # type: ignore[assignment]
    data_format = data_format or keras.config.image_data_format()
    for said, value, choices in (
        ("`label_mode` argument must be", label_mode, (*get_args(LabelMode), None)),
        ("`color_mode` must be", color_mode, get_args(ColorMode)),
        ("Argument `interpolation` should be", interpolation, get_args(Interpolation)),
        ("`data_format` must be", data_format, ("channels_last", "channels_first")),
        ("`format` should be", format, ("tf", "grain", None)),
        ("`on_bad` must be", on_bad, (*get_args(OnBad), "keep")),
        ("`cache` must be", cache, (*get_args(Cache), None)),
    ):
        if value not in choices:
            raise ValueError(f"{said} one of {choices}. Received: {value!r}")
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        expected = "Invalid `image_size` value. Expected two positive integers."
        raise ValueError(f"{expected} Received: image_size={image_size}")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("Only one of `crop_to_aspect_ratio`, `pad_to_aspect_ratio` can be `True`.")
    _check_labels(labels, label_mode, class_names)
    _check_split(validation_split, subset, shuffle, seed)
    if format and not find_spec(package := "tensorflow" if format == "tf" else "grain"):
        without = "`format=None` gives the same batches without it."
        raise ImportError(f"`format={format!r}` needs {package}, which is not installed. {without}")
    if seed is None:
        seed = int(np.random.randint(10**6)) if shuffle else 0
    if label_mode is None:
        labels = None

    inferred, keep = isinstance(labels, str), on_bad == "keep"
    aspect: Aspect = "crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "stretch"
    folder = _walk(Path(directory), inferred, class_names, follow_links, keep)
    form = ImageForm(color_mode, size, interpolation, aspect, keep)
    audited = audit(Path(directory), folder, form=form, cache=cache).require(on_bad)
    images = audited.images if inferred else _given(labels, folder, audited)
    names = None if labels is None else images.class_names
    classes = "" if names is None else f" belonging to {len(names)} classes"
    tell = verbose and keras.config.is_interactive_logging_enabled()
    if tell:
        print(f"Found {len(images)} files{classes}.")  # noqa: T201 (as Keras does)

    y = None if names is None else _encode(images.labels, names, label_mode)
    order = np.arange(len(images))
    if shuffle:  # as Keras orders the files
        np.random.RandomState(seed).shuffle(order)
    parts: dict[str, np.ndarray] = {"all": order}
    if validation_split and subset:
        if stratify:
            sides = split_indices(images, validation_split, seed)
        else:
            sides = split_in_order(order, validation_split)
        named = zip(("training", "validation"), sides, strict=True)
        parts = {n: order[np.isin(order, side)] for n, side in named if subset in (n, "both")}
    datasets, skip = [], len(os.path.join(audited.root, ""))
    for part, indices in parts.items():
        chosen = images.take(indices)
        if tell and part != "all":
            print(f"Using {len(indices)} files for {part}.")  # noqa: T201
        batches = Batches(
            chosen.images if data_format == "channels_last" else channels_first(chosen.images),
            None if y is None else y[indices],
            batch_size,
            shuffle=shuffle and part != "validation",
            seed=seed,
            class_names=names,
            file_paths=[os.path.join(directory, path[skip:]) for path in chosen.file_paths],
        )
        datasets.append(as_format(batches, format))
        datasets[-1].audit = audited
    return datasets if len(datasets) == 2 else datasets[0]


def _check_labels(labels: Any, label_mode: str | None, class_names: Sequence[str] | None) -> None:
    given = labels is not None and not isinstance(labels, str)
    if np.ndim(labels) != given or (isinstance(labels, str) and labels != "inferred"):
        expected = '`labels` argument should be "inferred", None or one integer for each file.'
        raise ValueError(f"{expected} Received: labels={labels!r}")
    if class_names is not None and (not isinstance(labels, str) or label_mode is None):
        only = 'You can only pass `class_names` if `labels="inferred"`, with a `label_mode`.'
        raise ValueError(f"{only} Received: class_names={class_names}")


def _check_split(
    validation_split: float | None, subset: str | None, shuffle: bool, seed: int | None
) -> None:
    if validation_split and not 0 < validation_split < 1:
        received = f"received: {validation_split}"
        raise ValueError(f"`validation_split` must be between 0 and 1, {received}")
    if subset not in ("training", "validation", "both", None):
        expected = '`subset` must be either "training", "validation" or "both"'
        raise ValueError(f"{expected}, received: {subset!r}")
    if bool(validation_split) != bool(subset):
        raise ValueError("Where `subset` is set, `validation_split` must be set, and the reverse.")
    if validation_split and shuffle and seed is None:
        raise ValueError("To split shuffled images apart, you must provide a `seed`.")


def _walk(
    directory: Path, inferred: bool, names: Sequence[str] | None, follow_links: bool, keep: bool
) -> Folder:
    """Return the image files of the classes of these names, of all classes, or of none."""
    is_there = directory.is_dir()
    if inferred and is_there and (keep or names is not None):
        folders = (path for path in directory.iterdir() if os.path.isdir(path))
        there = sorted(path.name for path in folders if path.name[0] != ".")
        names = there if names is None else names
        if not set(names) <= set(there):
            expected = f"The `class_names` passed did not match the folders {there}."
            raise ValueError(f"{expected} Received: class_names={names}")
    if keep:
        folder = walk_as_keras(directory, FLAT if names is None else names, follow_links)
    elif inferred:
        leave_out = [HELDOUT] if names is None and has_heldout(directory) else []
        folder = walk(directory, "", names, leave_out, follow_links=follow_links, class_order=str)
    else:
        folder = walk_flat(directory, follow_links=follow_links)
    if not folder.files and (is_there or keep):
        none = Finding("no_images", ".", f"No images found in directory {directory}")
        why = (finding for finding in folder.findings if finding.severity.refuses)
        raise ImageFolderError(directory, [none, *why])
    return folder


def _given(labels: Any, folder: Folder, audited: Audit) -> LabeledImages:
    """Return the images with the labels that were given for all files, or with none."""
    if labels is None:
        return audited.images
    y, count = np.asarray(labels), len(folder.files)
    if len(y) != count:
        expected = "Expected the lengths of `labels` to match the number of files"
        raise ValueError(f"{expected} in {audited.root}, {count}. Received: {len(y)} labels")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"`labels` argument should be integers. Received: labels of {y.dtype}")
    used = set(audited.images.file_paths)
    kept = [str(audited.root / file.path) in used for file in folder.files]
    names = tuple(map(str, np.unique(y).tolist()))
    return replace(audited.images, labels=y[kept].astype(np.int64), class_names=names)


def _encode(labels: np.ndarray, names: Sequence[str], label_mode: LabelMode | None) -> np.ndarray:
    """Return the labels in Keras's encoding."""
    if label_mode == "int":
        return labels.astype("int32")
    if label_mode == "categorical":
        return np.asarray(labels[:, np.newaxis] == np.arange(len(names)), "float32")
    if len(names) != 2:
        received = f"Received: class_names={list(names)}"
        raise ValueError(f'With `label_mode="binary"`, there must be exactly 2 classes. {received}')
    return labels.astype("float32")[:, np.newaxis]
