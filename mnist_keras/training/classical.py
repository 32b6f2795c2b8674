"""Classification without a network, as a baseline: nearest neighbor and support vector machines.

Everything here is NumPy, SciPy and scikit-learn: no backend.
"""

from typing import Any

import numpy as np

from mnist_keras.datasets.augmentation import WARPS, warp
from mnist_keras.datasets.images import Images, LabeledImages
from mnist_keras.training.settings import Settings

# The histograms have this many directions, and this many cells along each axis.
_DIRECTIONS = 9
_CELLS = 5
# Cross-validation on the training images chooses an SVM's parameters from these. A gamma of 1
# stands for one over the summed variance of the features.
_PENALTIES, _GAMMAS = (1.0, 10.0, 100.0), (0.3, 1.0, 3.0)
_FOLDS = 5
# Images whose votes are held at a time: 56 kB each.
_CHUNK = 500


def deskew(images: np.ndarray) -> np.ndarray:
    """Return images sheared upright, with their center of mass in the middle.

    Second moments give the slant of a digit. Rows are moved until the covariance of the ink's two
    coordinates is 0.

    Args:
        images: Shape `(n, height, width)`, dark background.

    Returns:
        `float64` array of that shape. An empty image stays empty.

    Reference:
        [LeCun et al., 1998](https://doi.org/10.1109/5.726791), deslanted images.
    """
    from scipy.ndimage import affine_transform

    height, width = images.shape[1:]
    y, x = np.mgrid[:height, :width]
    upright = np.zeros(images.shape)
    for image, target in zip(images.astype(np.float64), upright, strict=True):
        if not (mass := image.sum()):
            continue
        middle_y, middle_x = (image * y).sum() / mass, (image * x).sum() / mass
        variance = (image * (y - middle_y) ** 2).sum()
        slant = (image * (y - middle_y) * (x - middle_x)).sum() / variance if variance else 0.0
        matrix = np.array([[1, 0], [slant, 1]])
        center = np.array([(height - 1) / 2, (width - 1) / 2])
        offset = np.array([middle_y, middle_x]) - matrix @ center
        affine_transform(image, matrix, offset, output=target, order=1)
    return upright


def histograms_of_gradients(images: np.ndarray) -> np.ndarray:
    """Return histograms of oriented gradients: the directions of edges in each part of an image.

    Each pixel's gradient votes with its length for the two nearest of nine directions (without
    sign) and, by its distance, for the four nearest of 5×5 cells. Blocks of 2×2 cells are
    normalized, clipped at 0.2 and normalized again.

    Args:
        images: Shape `(n, height, width)`.

    Returns:
        `float64` array of shape `(n, 576)`.

    Reference:
        [Dalal & Triggs, 2005](https://doi.org/10.1109/CVPR.2005.177)
    """
    n, height, width = images.shape
    down, right = np.gradient(images.astype(np.float64), axis=(1, 2))
    length = np.hypot(down, right)
    angle = np.arctan2(down, right) % np.pi * (_DIRECTIONS / np.pi)
    lower = np.floor(angle).astype(int)
    share = angle - lower
    votes = np.zeros((n, height, width, _DIRECTIONS))
    for direction, weight in ((lower, 1 - share), (lower + 1, share)):
        index = (direction % _DIRECTIONS)[..., None]
        voted = np.take_along_axis(votes, index, -1) + (length * weight)[..., None]
        np.put_along_axis(votes, index, voted, -1)
    cells = np.einsum("nyxd,yi,xj->nijd", votes, _nearness(height), _nearness(width), optimize=True)
    blocks = np.lib.stride_tricks.sliding_window_view(cells, (2, 2), axis=(1, 2))
    blocks = blocks.transpose(0, 1, 2, 4, 5, 3).reshape(n, (_CELLS - 1) ** 2, -1)
    return _unit(np.minimum(_unit(blocks), 0.2)).reshape(n, -1)


def _nearness(size: int) -> np.ndarray:
    """Return how much each pixel of an axis belongs to each cell, shape `(size, cells)`."""
    place = (np.arange(size) + 0.5) * _CELLS / size - 0.5
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(_CELLS))))


def _unit(blocks: np.ndarray) -> np.ndarray:
    # The constant is small beside a full edge, and keeps faint noise from being amplified.
    return np.asarray(blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-3))


def classify(settings: Settings, training: LabeledImages, images: Images, seed: int) -> np.ndarray:
    """Return the classes that a model without a network gives to images.

    Args:
        settings: The model, and the copies that an SVM is trained on as well.
        training: The images to learn from.
        images: Shape `(n, height, width, channels)`, with values in 0…255.
        seed: Decides the folds and the copies.

    Returns:
        `int64` array of shape `(n,)`.
    """
    from sklearn.neighbors import KNeighborsClassifier

    labels = training.labels
    seen = training.images[:].astype(np.float32) / 255
    x = _features(settings.model, seen)
    unknown = _features(settings.model, images[:].astype(np.float32) / 255)
    if settings.model == "nearest_neighbor":
        return np.asarray(KNeighborsClassifier(1).fit(x, labels).predict(unknown))
    machine = _chosen_machine(x, labels, seed)
    for copy in range(settings.copies):
        view = warp(seen, np.arange(len(seen)), copy, seed, WARPS[settings.augmentation])
        x = np.concatenate([x, _features(settings.model, view)])
    labels = np.tile(labels, 1 + settings.copies)
    return np.asarray(machine.fit(x, labels).predict(unknown))


def _features(model: str, images: np.ndarray) -> np.ndarray:
    if model == "hog_svm":
        parts = np.split(images.mean(axis=-1), range(_CHUNK, len(images), _CHUNK))
        return np.concatenate([histograms_of_gradients(deskew(part)) for part in parts])
    return images.reshape(len(images), -1)


def _chosen_machine(x: np.ndarray, labels: np.ndarray, seed: int) -> Any:
    """Return an SVM with radial basis functions, its parameters chosen on the training images."""
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.svm import SVC

    scale = 1 / x.var(axis=0).sum()
    grid = {"C": _PENALTIES, "gamma": [scale * gamma for gamma in _GAMMAS]}
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    return GridSearchCV(SVC(), grid, cv=folds).fit(x, labels).best_estimator_
