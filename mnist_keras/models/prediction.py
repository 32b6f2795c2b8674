"""Images through a model, a bounded number at a time."""

import keras
import numpy as np

from mnist_keras.datasets.images import Images

# Images classified at once, at most: enough that reading the CNN's 88 MB of weights costs little.
BATCH = 500


def predict(model: keras.Model, images: Images) -> np.ndarray:
    """Return what a model makes of images: of this package's models, logits.

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
        chosen = np.minimum(np.arange(start, start + size), len(images) - 1)
        x = images[chosen].astype("float32") / 255
        outputs.append(model.predict_on_batch(x))
    return np.concatenate(outputs)[: len(images)]


def call_size(count: int) -> int:
    """Return how many images to classify at once, so that a compiled backend compiles once.

    As few calls as bounded memory allows, all of one size, for at least one image.
    """
    calls = -(-count // BATCH)
    return -(-count // calls)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of the classes: `float64` of the shape of the logits."""
    with np.errstate(invalid="ignore"):  # logits that are not finite give NaN
        highest = logits.max(-1, keepdims=True, initial=-1e30)
        exponentials = np.exp(logits.astype(np.float64) - highest)
        return exponentials / exponentials.sum(-1, keepdims=True)
