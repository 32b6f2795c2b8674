"""What a model computes of images before it decides: features, a map of them, and a score."""

import keras
import numpy as np

from mnist_keras.datasets.images import Images
from mnist_keras.explanations.explained_model import ExplainedModel, ExplanationError

_PERPLEXITY = 30.0
_LEAST_IMAGES = 10
# Least difference of vectors: of all, and as a share of the largest number in them.
_LEAST_SPREAD, _ROUNDING = 1e-12, 1e-6


def features(model: keras.Model, images: Images) -> np.ndarray:
    """Return what the last dense layer takes, which is one vector for each image.

    Args:
        model, images: As for `grad_cam`; images exactly as to `model.predict`.

    Returns:
        `float32` array of shape `(n, size)`.

    Raises:
        ExplanationError: If the model cannot be explained, or has no such layer.
    """
    explained = ExplainedModel(model, images)
    dense = [call for call in explained.calls if isinstance(call.part, keras.layers.Dense)]
    last = [call for call in dense if call.part is dense[-1].part]
    if len(last) != 1 or len(last[0].taken.shape) != 2:
        raise ExplanationError(f"{model.name} has no last dense layer that takes a single vector")
    found = [np.empty((0, last[0].taken.shape[1]), np.float32)]
    for chunk in explained.chunks(len(explained.images)):
        _, (call,) = explained.watch(explained.images[chunk], [last[0].part])
        found.append(keras.ops.convert_to_numpy(call.taken).astype(np.float32))
    return np.concatenate(found)


def tsne(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a t-SNE map, on which neighbors stay neighbors, started from two components.

    Args:
        vectors: Shape `(n, size)`, `n` at least 10.
        seed: Integer >= 0.

    Returns:
        `float32` array of shape `(n, 2)`. Only neighborhoods have a meaning. Sizes of groups and
        distances between them have none. Equal vectors are all at 0.

    Raises:
        ExplanationError: If the vectors hardly differ, or by more than squares of numbers hold.

    Reference:
        [van der Maaten and Hinton, 2008](https://jmlr.org/papers/v9/vandermaaten08a.html)
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(vectors) < _LEAST_IMAGES:
        raise ValueError(f"t-SNE needs {_LEAST_IMAGES} images. Received: {len(vectors)}")
    if not np.isfinite(vectors).all():
        raise ValueError("t-SNE needs vectors of finite numbers")
    if not (spread := np.ptp(vectors, axis=0).max()):  # equal vectors have no components, only NaN
        return np.zeros((len(vectors), 2), np.float32)
    # Beyond, differences are those of rounding, or their squares are no numbers; it may crash.
    if not max(_LEAST_SPREAD, _ROUNDING * np.abs(vectors).max()) < spread < 1 / _LEAST_SPREAD:
        raise ExplanationError(f"t-SNE needs vectors that differ. Received: {spread:.0e} apart")
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    # One thread: several add in no fixed order, and wait for each other where cores are shared.
    with threadpool_limits(1, "openmp"):
        embedding = TSNE(perplexity=perplexity, init="pca", random_state=seed)
        return np.asarray(embedding.fit_transform(vectors))


def nearest_neighbor_score(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of vectors whose nearest other vector has the same label (1-NN).

    Args:
        vectors: Shape `(n, size)`, `n` at least 2.
        labels: Shape `(n,)`.
    """
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(vectors).kneighbors(return_distance=False)
    return float((labels[nearest[:, 0]] == labels).mean())
