"""Which images are trained on and which are not: drawn by content, or read from a file."""

import csv
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mnist_keras._foundations.files import escaped, naming
from mnist_keras._foundations.seeds import generator
from mnist_keras.datasets.images import FINGERPRINT, DataError, LabeledImages

_COLUMNS = ("seed", "side", "hash", "file")
SIDES = ("training", "test", "heldout", "unused")


def split_indices(
    images: LabeledImages, validation_split: float, seed: int, stratify: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices for training and for validation, each in ascending order.

    The content of the images decides: renaming or reordering files changes nothing. Duplicates
    stay on one side, so the validation side may get a few more than its share. With `stratify`,
    the share is drawn from each class, as the original's text says (10 of 50), otherwise from all
    images together, as its program does.

    Raises:
        ValueError: If the share is not between 0 and 1, or leaves a side empty (`DataError`).
    """
    if not 0 < validation_split < 1:
        received = f"Received: validation_split={validation_split}"
        raise ValueError(f"`validation_split` must be between 0 and 1. {received}")
    order = generator(seed, "split").permutation(images.canonical_order)
    groups = [order]
    if stratify:
        groups = [order[images.labels[order] == c] for c in np.unique(images.labels)]
    drawn = np.concatenate([group[: round(len(group) * validation_split)] for group in groups])
    training, validation = sides(images, images.fingerprints[drawn])
    if not len(training) or not len(validation):
        raise DataError(
            f"`validation_split={validation_split}` of {len(images)} images leaves "
            f"{len(training)} for training and {len(validation)} for validation"
        )
    return training, validation


def split_in_order(order: np.ndarray, validation_split: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of `order` for training and, from its end as Keras's, for validation."""
    count = int(validation_split * len(order))
    if not 0 < count < len(order):
        side = "training" if count else "validation"
        raise DataError(f"No {side} images found: `validation_split={validation_split}`")
    return order[:-count], order[-count:]


def sides(images: LabeledImages, validation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the images whose fingerprint is not in `validation`, and is in it."""
    chosen = np.isin(images.fingerprints, validation)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


@dataclass(frozen=True)
class Split:
    """The sides of all images, for one seed."""

    fingerprints: Mapping[str, np.ndarray]  # by side, those of its images, sorted

    def apply(self, images: LabeledImages) -> dict[str, LabeledImages]:
        """Return the images of each side; refuse other images than those of the split."""
        named = np.concatenate([*self.fingerprints.values()])
        unknown = np.setdiff1d(images.fingerprints, named)
        missing = np.setdiff1d(named, images.fingerprints)
        if len(unknown) or len(missing):
            raise DataError(
                f"{images.name}: the split was made of other images: {len(unknown)} images here "
                f"are not in it, {len(missing)} of its images are not here"
            )
        chosen = {side: sides(images, hashes)[1] for side, hashes in self.fingerprints.items()}
        return {side: images.take(indices) for side, indices in chosen.items()}


def split_text(seeds: Mapping[int, Mapping[str, LabeledImages]], root: Path | None) -> str:
    """Return a CSV file that says which side each image is on, for each seed.

    Its columns are `seed`, `side`, `hash` (the image's fingerprint, which alone decides when the
    file is read again) and `file`, relative to `root`.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    prefix = os.path.join(root, "") if root else ""
    for seed, images_of in seeds.items():
        for side, images in images_of.items():
            paths = images.file_paths or [""] * len(images)
            for fingerprint, path in sorted(zip(images.fingerprints.tolist(), paths, strict=True)):
                name = escaped(path.removeprefix(prefix).replace(os.sep, "/"))
                writer.writerow([seed, side, fingerprint.decode(), name])
    return file.getvalue()


def read_splits(path: Path) -> Mapping[int | None, Split]:
    """Return the splits of a file by seed; `None` is every seed, without such a column."""
    with naming(path, DataError, "cannot be read"):
        text = path.read_text("utf-8-sig", errors="surrogateescape")
    reader = csv.DictReader(io.StringIO(text), strict=True)
    found: dict[int | None, dict[str, list[str]]] = {}
    try:
        if not {"side", "hash"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: expected the columns {', '.join(_COLUMNS)}")
        for row in reader:
            seed, side, fingerprint = row.get("seed"), row["side"], row["hash"]
            whole = re.fullmatch("[0-9a-f]{32}", fingerprint or "")
            if side not in SIDES or not whole or (seed and not re.fullmatch("[0-9]+", seed)):
                expected = f"expected a seed, one of {', '.join(SIDES)} and a hash"
                raise DataError(f"{path}, line {reader.line_num}: {expected}")
            hashes_of = found.setdefault(int(seed) if seed else None, {side: [] for side in SIDES})
            hashes_of[side].append(fingerprint)
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file: {error}") from error
    if not found:
        raise DataError(f"{path}: no images")
    splits = {}
    for seed, hashes_of in found.items():
        split = Split({side: np.unique(np.array(h, FINGERPRINT)) for side, h in hashes_of.items()})
        named = np.concatenate([*split.fingerprints.values()])
        if several := len(named) - len(np.unique(named)):
            raise DataError(f"{path}: {several} images are on two sides")
        for side in ("training", "test"):
            if not len(split.fingerprints[side]):
                raise DataError(f"{path}: no image is on the side {side!r}")
        splits[seed] = split
    return splits


def draw(images: LabeledImages, per_class: int, seed: int) -> tuple[LabeledImages, LabeledImages]:
    """Return `per_class` images drawn from each class, and the held-out rest.

    Duplicates of drawn images are in neither. A class with too few images is a `DataError`.
    """
    order = generator(seed, "draw").permutation(len(images))
    drawn = np.zeros(len(images), dtype=bool)
    for index, class_name in enumerate(images.class_names):
        members = order[images.labels[order] == index]
        if len(members) < per_class:
            has = f"class {class_name!r} has {len(members)} images"
            raise DataError(f"{images.name}: {has}, fewer than the {per_class} to draw")
        drawn[members[:per_class]] = True
    duplicates = np.isin(images.fingerprints, images.fingerprints[drawn])
    return images.take(np.flatnonzero(drawn)), images.take(np.flatnonzero(~duplicates))
