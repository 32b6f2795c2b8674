"""Where digits come from: MNIST and Fashion-MNIST (IDX files or Keras), or scikit-learn."""

import contextlib
import os
import socket
import sys
from pathlib import Path

import numpy as np

from mnist_keras._foundations import backends
from mnist_keras._foundations.files import FileError, whole
from mnist_keras.datasets import idx as idx_files
from mnist_keras.datasets.choices import SOURCES
from mnist_keras.datasets.images import DataError, LabeledImages, png
from mnist_keras.datasets.splits import draw

_DIGITS = tuple("0123456789")
_DOWNLOAD_TIMEOUT = 30.0  # seconds to wait for each answer


def load(source: str, idx: Path | None = None, channels: int = 1) -> LabeledImages:
    """Return all images of a source, of shape `(n, 28, 28, channels)`.

    `idx` is a folder with the published IDX files of MNIST or Fashion-MNIST. By default, MNIST is
    read from the folder that the environment variable `MNIST_KERAS_IDX` names. Without one, Keras
    downloads the images or takes them from its cache. Three channels have equal levels.
    """
    if source not in SOURCES:
        raise DataError(f"unknown source {source!r}. Choose one of {', '.join(SOURCES)}")
    if source == "mnist" and idx is None:
        idx = _idx_from_environment()
    name = SOURCES[source]
    if source == "digits":
        if idx is not None:
            raise DataError("the source 'digits' is embedded and reads no IDX files")
        images, labels = _sklearn_digits()
    elif idx is not None:
        part_names, images, labels = _idx_folder(idx)
        name += f" {part_names}"
    else:
        images, labels = _keras_download(source)
    images = np.repeat(images[..., np.newaxis], channels, axis=-1)
    return LabeledImages.of(name, images, labels, _DIGITS)


def origin(source: str) -> str:
    """Return where `load` would take a source from, without reading or downloading it."""
    if source == "digits":
        return "embedded in scikit-learn"
    if source == "mnist" and (folder := _idx_from_environment()):
        return f"{folder}, which MNIST_KERAS_IDX names"
    name = {"mnist": "mnist.npz", "fashion_mnist": "fashion-mnist"}[source]
    cached = backends.keras_home() / "datasets" / name
    return str(cached) if cached.exists() else f"a download by Keras to {cached}"


def _idx_folder(folder: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the names of the parts that are in a folder, their images and their labels."""
    parts = idx_files.read_folder(folder)
    for images, labels in parts.values():
        if images.shape[1:] != (28, 28):
            raise DataError(f"{folder}: expected n×28×28 images. Received: {images.shape}")
        if len(labels) and labels.max() > 9:
            raise DataError(f"{folder}: label {labels.max()} is not a digit")
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))
    return " + ".join(parts), images, labels


def _keras_download(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Take images and labels from Keras: from its cache, or by a download that it checks."""
    import keras

    module = getattr(keras.datasets, source)
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)  # Keras sets no limit
        # Keras prints its progress bar on stdout, which belongs to results.
        with contextlib.redirect_stdout(sys.stderr):
            (x_train, y_train), (x_test, y_test) = module.load_data()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise DataError(
            f"keras.datasets.{source}: {reason}. With --idx it is read from its IDX files; "
            "--source digits needs no download"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    images, labels = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    if images.shape != (70_000, 28, 28) or labels.shape != (70_000,):
        raise DataError(
            f"keras.datasets.{source}: expected 70,000 images of 28×28. "
            f"Received: images of shape {images.shape}, labels of shape {labels.shape}"
        )
    return images, labels


def _sklearn_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 1,797 scans of 8×8 pixels, each in a 20×20 box as in MNIST."""
    from PIL import Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.zeros((len(scans.images), 28, 28), np.uint8)
    levels = np.rint(scans.images * (255 / 16)).astype(np.uint8)  # from 0…16
    for image, scan in zip(images, levels, strict=True):
        gray = Image.fromarray(scan)
        image[4:24, 4:24] = np.asarray(gray.resize((20, 20), Image.Resampling.BILINEAR))
    return images, scans.target


def default(idx: Path | None, channels: int) -> tuple[LabeledImages, str | None]:
    """Return MNIST if it is available, otherwise the embedded digits and the reason why.

    A folder that is named, by `idx` or the environment, must hold MNIST.
    """
    try:
        return load("mnist", idx, channels), None
    except DataError as error:
        if idx or _idx_from_environment():
            raise
        return load("digits", None, channels), str(error)


def _idx_from_environment() -> Path | None:
    return Path(folder) if (folder := os.environ.get("MNIST_KERAS_IDX")) else None


def write_folders(
    images: LabeledImages, directory: Path, per_class: int, seed: int
) -> tuple[Path, Path]:
    """Write class-per-folder PNGs: `train-50/0…9`, drawn with `seed`, and `heldout/0…9`.

    Each of the two folders appears only when it is complete. One that exists is not touched.
    """
    folders = directory / f"train-{per_class}", directory / "heldout"
    for folder in folders:
        if folder.exists():
            raise DataError(f"{folder}: exists already; nothing was written")
    try:
        for folder, part in zip(folders, draw(images, per_class, seed), strict=True):
            with whole(folder) as unfinished:
                _write_pngs(part, unfinished)
    except FileError as error:
        raise DataError(str(error)) from error
    return folders


def _write_pngs(images: LabeledImages, folder: Path) -> None:
    for class_name in images.class_names:
        (folder / class_name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images.images[:], images.labels, strict=True)):
        (folder / images.class_names[label] / f"{number:05d}.png").write_bytes(png(image))
