"""Images through a model, a limited number at a time, and the probabilities of classes."""

import keras
import numpy as np

from mnist_keras._foundations import stopping
from mnist_keras.datasets.images import Images

# Most images in one call: enough that reading the CNN's 88 MB of weights costs little.
BATCH = 500


def predict(model: keras.Model, images: Images) -> np.ndarray:
    """Return the outputs of a model, which are logits for the models of this package.

    Args:
        model: Model from images with values in 0…1 to one vector each.
        images: Shape `(n, height, width, channels)`, with values in 0…255.

    Returns:
        `float32` array of shape `(n, size)`.
    """
    if not len(images):
        return np.empty((0, model.output_shape[-1]), np.float32)
    size = call_size(len(images))  # the last call repeats an image or two
    outputs = []
    for start in range(0, len(images), size):
        stopping.check()
        chosen = np.minimum(np.arange(start, start + size), len(images) - 1)
        x = images[chosen].astype("float32") / 255
        outputs.append(model.predict_on_batch(x))
    return np.concatenate(outputs)[: len(images)]


def call_size(count: int) -> int:
    """Return the size of a few equal calls, so that a compiled backend compiles once."""
    calls = -(-count // BATCH)
    return -(-count // calls)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of the classes: `float64`, in the shape of the logits."""
    with np.errstate(invalid="ignore"):  # logits that are not finite give NaN
        highest = logits.max(-1, keepdims=True, initial=-1e30)
        exponentials = np.exp(logits.astype(np.float64) - highest)
        return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithms of `softmax`, also of probabilities that round to 0."""
    logits = logits.astype(np.float64)
    highest = logits.max(-1, keepdims=True, initial=-np.inf)
    total = highest + np.log(np.exp(logits - highest).sum(-1, keepdims=True))
    return np.asarray(logits - total)


def of_classes(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return of each row of `values` the entry of its class: shape `(n,)`."""
    return np.take_along_axis(values, classes[:, np.newaxis], axis=1)[:, 0]
