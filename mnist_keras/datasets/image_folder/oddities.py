"""What images show together: duplicates, near duplicates, odd images, classes that differ."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mnist_keras._foundations.files import escaped
from mnist_keras.datasets.image_folder.decoding import GRAY_LEVELS
from mnist_keras.datasets.image_folder.findings import Finding
from mnist_keras.datasets.images import LabeledImages

# Two images are almost the same up to this root mean square difference in levels: that of a JPEG
# copy at quality 75. The two most similar of MNIST's 10,000 test images are 8.9 levels apart.
_NEAR_LEVELS = 8.0
# Distance of the features of such a copy, divided by the square root of the number of pixels.
_NEAR_FEATURES = 2.2
_FREQUENCIES = 4
_NEIGHBORS = 4
_CHUNK = 256  # images at a time
# Contrast of images that are all black, all white, or values of 0…1 saved as bytes.
_CONTRAST_LEVELS = 4
# Correlation of neighboring pixels in noise; pictures have more than 0.5.
_NOISE_CORRELATION = 0.1
_DARK, _BRIGHT = 64, 192
# Fewer images do not show what is usual in their class.
_LEAST_IMAGES = 10
# The largest class may have this many times the images of the smallest one.
_MOST_IMBALANCE = 5


class Looks(NamedTuple):
    """Numbers that describe images: arrays with one entry per image."""

    brightness: np.ndarray  # mean level
    contrast: np.ndarray  # highest minus lowest level
    color: np.ndarray  # largest difference between the channels of one pixel
    border: np.ndarray  # mean level of the outermost pixels
    order: np.ndarray  # correlation of pixels with their right neighbors; NaN without contrast
    features: np.ndarray  # amplitudes of the lowest frequencies, which a shift hardly changes


def joined(parts: Iterable[Looks]) -> Looks:
    """Return the looks of one or more parts, in this order."""
    return Looks(*map(np.concatenate, zip(*parts, strict=True)))


def look(images: np.ndarray) -> Looks:
    """Return the looks of one or more images of shape `(n, height, width, channels)`."""
    return joined(_look(images[i : i + _CHUNK]) for i in range(0, len(images), _CHUNK))


def _look(images: np.ndarray) -> Looks:
    channels = images[..., :3]
    if _is_gray(images):  # as most digits are; this takes a tenth of the time
        gray, color = channels[..., 0].astype(np.float32), np.zeros(len(images))
    else:
        gray = channels.mean(-1, dtype=np.float32)
        color = np.ptp(channels, axis=-1).reshape(len(images), -1).max(1)
    flat = gray.reshape(len(gray), -1)
    border = np.concatenate([gray[:, 0], gray[:, -1], gray[:, :, 0], gray[:, :, -1]], axis=1)
    deviation = gray - flat.mean(1)[:, np.newaxis, np.newaxis]
    with np.errstate(invalid="ignore", divide="ignore"):
        order = (deviation[:, :, 1:] * deviation[:, :, :-1]).mean((1, 2)) / deviation.var((1, 2))
    spectrum = np.abs(np.fft.rfft2(gray, norm="ortho")).astype(np.float32)
    k = _FREQUENCIES
    low = np.concatenate([spectrum[:, :k, :k], spectrum[:, 1 - k :, :k]], axis=1)
    return Looks(
        brightness=flat.mean(1),
        contrast=np.ptp(flat, axis=1),
        color=color,
        border=border.mean(1),
        order=order,
        features=low.reshape(len(low), -1),
    )


def _is_gray(images: np.ndarray) -> bool:
    return bool((images[..., :3] == images[..., :1]).all())


def findings(
    images: LabeledImages, heldout: np.ndarray, looks: Looks, encodings: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Yield what is remarkable about single usable images, pairs of images and classes.

    `heldout` says of each image whether it is held out from training, and `encodings` has, by
    trait (type, size in the file), its value for each image.
    """
    yield from _odd_images(images.file_paths, looks)
    yield from _duplicates(images, heldout)
    yield from _near_duplicates(images, looks)
    yield from _class_habits(images, looks, encodings)


def counts(
    class_names: Sequence[str], labels: np.ndarray, per_class: int | None
) -> Iterator[Finding]:
    """Yield classes with fewer images than `per_class`; without it, classes of unequal sizes."""
    found = np.bincount(labels, minlength=len(class_names))
    if per_class is None and found.max() > found.min():
        low, high = int(found.argmin()), int(found.argmax())
        kind = "imbalanced" if found[high] > _MOST_IMBALANCE * found[low] else "uneven"
        fewest = f"{found[low]:,} images of class '{escaped(class_names[low])}'"
        most = f"{found[high]:,} of class '{escaped(class_names[high])}'"
        yield Finding(kind, ".", f"{fewest}, {most}")
    for name, count in zip(class_names, found, strict=True):
        if per_class is not None and count < per_class:
            yield Finding("too_few", name, f"{count} images, {per_class} are needed")


def _odd_images(paths: Sequence[str], looks: Looks) -> Iterator[Finding]:
    flat = looks.contrast <= _CONTRAST_LEVELS
    for i in np.flatnonzero(flat).tolist():
        level = f"all pixels within {looks.contrast[i]:.0f} levels of {looks.brightness[i]:.0f}"
        yield Finding("no_contrast", paths[i], level)
    for i in np.flatnonzero(~flat & (looks.order < _NOISE_CORRELATION)).tolist():
        yield Finding("noise", paths[i])
    colored = looks.color > GRAY_LEVELS
    if _is_usual(~colored, np.ones_like(flat)):
        for i in np.flatnonzero(colored).tolist():
            yield Finding("colored", paths[i], "colored, unlike most")
    dark, bright = ~flat & (looks.border < _DARK), ~flat & (looks.border > _BRIGHT)
    for usual, odd, word in ((dark, bright, "bright"), (bright, dark, "dark")):
        if _is_usual(usual, ~flat):
            for i in np.flatnonzero(odd).tolist():
                yield Finding("inverted", paths[i], f"{word} background, unlike most")


def _is_usual(has: np.ndarray, of: np.ndarray) -> bool:
    """Return whether enough images have a trait that those without it are odd."""
    return bool(has.sum() >= max(_LEAST_IMAGES, 0.9 * of.sum()))


def _duplicates(images: LabeledImages, heldout: np.ndarray) -> Iterator[Finding]:
    """Yield images whose pixels are equal."""
    _, groups, counts = np.unique(images.fingerprints, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[groups] > 1)
    columns = (repeated, *(trait[repeated] for trait in (groups, images.labels, heldout)))
    # The first image of each class and of each side stands for the others that are equal to it.
    of_class: defaultdict[int, dict[int, int]] = defaultdict(dict)
    of_side: dict[tuple[int, bool], int] = {}
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    for i, group, label, aside in rows:
        of_class[group].setdefault(label, i)
        of_side.setdefault((group, aside), i)

    def same(i: int) -> str:
        return f"same image as {escaped(images.file_paths[i])}"

    for i, group, label, aside in rows:
        path, first = images.file_paths[i], of_side[group, aside]
        other = next((j for c, j in of_class[group].items() if c != label), None)
        if other is not None:
            name = escaped(images.class_names[images.labels[other]])
            yield Finding("two_labels", path, f"{same(other)}, class '{name}'")
        if aside and (group, False) in of_side:
            yield Finding("leak", path, same(of_side[group, False]))
        elif i != first and other is None:
            yield Finding("duplicate", path, same(first))


def _near_duplicates(images: LabeledImages, looks: Looks) -> Iterator[Finding]:
    """Yield images that are almost equal, such as JPEG copies or copies shifted by a pixel."""
    from scipy.spatial import cKDTree

    _, distinct = np.unique(images.fingerprints, return_index=True)
    distinct = distinct[looks.contrast[distinct] > _CONTRAST_LEVELS]
    if len(distinct) < 2:
        return
    features = looks.features[distinct]
    radius = _NEAR_FEATURES * math.sqrt(math.prod(images.images.shape[1:3]))
    k = min(_NEIGHBORS, len(distinct))
    _, near = cKDTree(features).query(features, k, distance_upper_bound=radius, workers=-1)
    rows, columns = np.nonzero(near < len(distinct))
    pairs = np.sort(np.stack([rows, near[rows, columns]], axis=1), axis=1)
    pairs = distinct[np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)]
    for start in range(0, len(pairs), _CHUNK):
        some = pairs[start : start + _CHUNK]
        apart = _levels_apart(images.images[some[:, 0]], images.images[some[:, 1]])
        for (i, j), levels in zip(some.tolist(), apart, strict=True):
            if levels <= _NEAR_LEVELS:
                other, path = sorted((i, j))
                said = f"{levels:.1f} levels apart from {escaped(images.file_paths[other])}"
                yield Finding("near_duplicate", images.file_paths[path], said)


def _levels_apart(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the root mean square difference of pairs at the best of nine shifts by a pixel."""
    if _is_gray(images) and _is_gray(others):
        images, others = images[..., :1], others[..., :1]
    images, others = images.astype(np.float32), others.astype(np.float32)
    height, width = images.shape[1] - 2, images.shape[2] - 2
    middle = images[:, 1:-1, 1:-1]
    shifted = (others[:, y : y + height, x : x + width] for y in range(3) for x in range(3))
    apart = [np.sqrt(((middle - other) ** 2).mean((1, 2, 3))) for other in shifted]
    return np.asarray(np.min(apart, axis=0))


def _class_habits(
    images: LabeledImages, looks: Looks, encodings: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Yield classes that could be recognized by something other than their pictures."""
    for label, name in enumerate(images.class_names):
        own = images.labels == label
        if own.sum() < _LEAST_IMAGES or (~own).sum() < _LEAST_IMAGES:
            continue
        for trait, values in encodings.items():
            all_values = np.asarray(values)
            value, count = Counter(all_values[own].tolist()).most_common(1)[0]
            if count >= 0.9 * own.sum() and (all_values[~own] == value).mean() <= 0.1:
                said = f"{trait} {value} in this class, not in the others"
                yield Finding("class_differs", name, said)
        (low, high), (others_low, others_high) = (
            np.percentile(looks.brightness[side], (5, 95)) for side in (own, ~own)
        )
        if low > others_high or high < others_low:
            word = "brighter" if low > others_high else "darker"
            yield Finding("class_differs", name, f"{word} than the others")
