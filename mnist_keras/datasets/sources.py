"""Where digits come from: MNIST, Fashion-MNIST (Keras or IDX files), scikit-learn."""

import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mnist_keras.datasets import idx as idx_files
from mnist_keras.datasets.images import DataError, LabeledImages, label
from mnist_keras.datasets.splits import draw

SOURCES = ("mnist", "fashion_mnist", "digits")
_DIGITS = tuple("0123456789")
_DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer


def load(source: str, idx: Path | None = None, channels: int = 1) -> LabeledImages:
    """Return all images of a source.

    Args:
        source: `"mnist"`, `"fashion_mnist"` or `"digits"`.
        idx: Folder with the original IDX files of MNIST or Fashion-MNIST. `None` takes, for
            MNIST, the folder that the environment variable `MNIST_KERAS_IDX` names; without one,
            Keras's download, or its copy in Keras's cache.
        channels: 1 for gray images, 3 for the same value in three channels.

    Returns:
        `LabeledImages` of shape `(n, 28, 28, channels)`.

    Raises:
        DataError: If the files are missing or damaged, or the download fails.
    """
    if source not in SOURCES:
        raise DataError(f"unknown source {source!r}. Choose one of {', '.join(SOURCES)}")
    if source == "mnist" and idx is None:
        idx = _idx_from_environment()
    if source == "digits":
        if idx is not None:
            raise DataError("the source 'digits' is embedded and reads no IDX files")
        name, images, labels = _sklearn_digits()
    elif idx is not None:
        name, images, labels = _idx_folder(source, idx)
    else:
        name, images, labels = _keras_download(source)
    images = np.repeat(images[..., np.newaxis], channels, axis=-1)
    return label(name, images, labels, _DIGITS)


def _idx_folder(source: str, folder: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """Read the train and t10k parts that lie in `folder`, train first."""
    parts = idx_files.read_folder(folder)
    for images, labels in parts.values():
        if images.shape[1:] != (28, 28):
            raise DataError(f"{folder}: expected n×28×28 images. Received: {images.shape}")
        if len(labels) and labels.max() > 9:
            raise DataError(f"{folder}: label {labels.max()} is not a digit")
    title = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}[source]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))
    return f"{title} {' + '.join(parts)}", images, labels


def _keras_download(source: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Take MNIST or Fashion-MNIST from Keras: its cache, or a download that it checks."""
    import keras

    module = getattr(keras.datasets, source)
    try:
        # Keras prints its progress bar on stdout, which belongs to results.
        with contextlib.redirect_stdout(sys.stderr), _socket_timeout(_DOWNLOAD_TIMEOUT):
            (x_train, y_train), (x_test, y_test) = module.load_data()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise DataError(f"keras.datasets.{source}: {reason}") from error
    images, labels = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    if images.shape != (70_000, 28, 28) or labels.shape != (70_000,):
        raise DataError(
            f"keras.datasets.{source}: expected 70,000 images of 28×28. "
            f"Received: images of shape {images.shape}, labels of shape {labels.shape}"
        )
    return {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}[source], images, labels


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound every wait for the network, which Keras leaves unbounded."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _sklearn_digits() -> tuple[str, np.ndarray, np.ndarray]:
    """Return scikit-learn's 1,797 scans, enlarged from 8×8 with values 0…16 to MNIST's format.

    As in MNIST, the digit fills a 20×20 box in the middle of 28×28 pixels.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.zeros((len(scans.images), 28, 28), np.uint8)
    for image, scan in zip(images, scans.images, strict=True):
        gray = Image.fromarray(np.rint(scan * (255 / 16)).astype(np.uint8))
        image[4:24, 4:24] = np.asarray(gray.resize((20, 20), Image.Resampling.BILINEAR))
    return "digits (scikit-learn)", images, scans.target


def default(idx: Path | None, channels: int) -> tuple[LabeledImages, str | None]:
    """Return MNIST where it can be had, otherwise the embedded digits and the reason why.

    Args:
        idx, channels: As for `load`. A folder that is named must hold MNIST.
    """
    try:
        return load("mnist", idx, channels), None
    except DataError as error:
        if idx or _idx_from_environment():
            raise
        return load("digits", None, channels), str(error)


def _idx_from_environment() -> Path | None:
    folder = os.environ.get("MNIST_KERAS_IDX")
    return Path(folder) if folder else None


def write_folders(
    images: LabeledImages, directory: Path, per_class: int, seed: int
) -> tuple[Path, Path]:
    """Write class-per-folder PNGs: `train-50/0…9`, drawn with `seed`, and `heldout/0…9`.

    Returns:
        The two folders, which appear only when they are whole.

    Raises:
        DataError: If one of them exists, or `directory` cannot be written.
    """
    parts = dict(zip((f"train-{per_class}", "heldout"), draw(images, per_class, seed), strict=True))
    for folder in parts:
        if (directory / folder).exists():
            raise DataError(f"{directory / folder}: exists already; nothing was written")
    unfinished = directory / f".unfinished-{os.getpid()}"
    try:
        for folder, part in parts.items():
            _write_pngs(part, unfinished)
            unfinished.rename(directory / folder)
    except OSError as error:
        raise DataError(f"{directory}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    train, heldout = (directory / folder for folder in parts)
    return train, heldout


def _write_pngs(images: LabeledImages, folder: Path) -> None:
    from PIL import Image

    for class_name in images.class_names:
        (folder / class_name).mkdir(parents=True)
    for number, (image, index) in enumerate(zip(images.images[:], images.labels, strict=True)):
        path = folder / images.class_names[index] / f"{number:05d}.png"
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(path)
