"""What a model computes of images before it decides: features, a map of them, and a score."""

import keras
import numpy as np

from mnist_keras.datasets.images import Images
from mnist_keras.models.prediction import predict

_PERPLEXITY = 30.0
_LEAST_IMAGES = 10


def features(model: keras.Model, images: Images) -> np.ndarray:
    """Return the inputs of the last layer.

    Args:
        model: Functional model whose last layer takes one vector for each image.
        images: Shape `(n, height, width, channels)`, with values in 0…255.

    Returns:
        `float32` array of shape `(n, size)`.
    """
    return predict(keras.Model(model.input, model.layers[-1].input), images)


def tsne(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a t-SNE map, on which neighbors stay neighbors, started from two components.

    Args:
        vectors: Shape `(n, size)`, `n` at least 10.
        seed: Integer >= 0.

    Returns:
        `float32` array of shape `(n, 2)`. Only neighborhoods have a meaning. Sizes of groups and
        distances between them have none.

    Reference:
        [van der Maaten and Hinton, 2008](https://jmlr.org/papers/v9/vandermaaten08a.html)
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(vectors) < _LEAST_IMAGES:
        raise ValueError(f"t-SNE needs {_LEAST_IMAGES} images. Received: {len(vectors)}")
    if not np.isfinite(vectors).all():
        raise ValueError("t-SNE needs vectors of finite numbers")
    if not np.ptp(vectors, axis=0).any():  # equal vectors have no components, only NaN
        return np.zeros((len(vectors), 2), np.float32)
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
