"""Representations learned without labels: two views of an image should have similar features."""

from typing import Any

import keras
import numpy as np
from keras import layers

from mnist_keras.datasets.augmentation import ELASTIC, Warp, warp
from mnist_keras.datasets.batches import WarpedBatches
from mnist_keras.datasets.images import Images
from mnist_keras.losses.two_views import NTXent, VICReg
from mnist_keras.models.encoders import encoder
from mnist_keras.models.siamese import SiameseModel as SiameseModel
from mnist_keras.optimizers import Adam
from mnist_keras.portable import HeUniform
from mnist_keras.training.fit import fit
from mnist_keras.training.networks import EPSILON, NOT_DECAYED, one_cycle
from mnist_keras.training.record import History, OnEpoch

# Chosen by cross-validation on training images: see docs/representation.md.
_TEMPERATURE = 0.5
_RATE, _DECAY = 5e-3, 1e-4


class PairedViews(WarpedBatches):
    """Batches of two views of each image, `(n, 2, height, width, channels)`, without labels.

    The loss compares the images of a batch. Images at the end of an epoch that do not fill a batch
    are left out.

    Args:
        x: Array of images with values in 0…255, or `LazyImages`, shape
            `(n, height, width, channels)`.
        strength: How far a view may be from its image.
        batch_size: Number of images in a batch. With fewer images, one batch holds all.
        **kwargs: As for `WarpedBatches`.
    """

    def __init__(self, x: Images, strength: Warp, batch_size: int = 256, **kwargs: Any):
        super().__init__(x, None, strength, batch_size=min(batch_size, len(x)), **kwargs)

    def __len__(self) -> int:
        return len(self.x) // self.batch_size

    def images_at(self, chosen: np.ndarray) -> np.ndarray:
        """Return two views of each of the images at these indices of `x`."""
        images, ids = self.x[chosen].astype("float32") / 255, self.ids[chosen]
        views = [
            warp(images, ids, 2 * self.epoch + view, self.seed, self.strength) for view in (0, 1)
        ]
        return np.stack(views, axis=1)


def pretrain(
    images: Images,
    method: str = "vicreg",
    epochs: int = 40,
    *,
    activation: str | None = "relu",
    width: int = 16,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> tuple[keras.Model, History]:
    """Train an encoder on images without labels.

    Args:
        images: Shape `(n, height, width, channels)`, with values in 0…255; at least two.
        method: `"simclr"` or `"vicreg"`.
        epochs: Number of passes over the images, each with two new views of every image.
        activation, width: As for `encoders.encoder`.
        seed: Integer >= 0 for initial weights, order and views, which are equal on every backend.
        on_epoch: Called with the epoch (from 1) and its loss.

    Returns:
        The encoder and its epochs.
    """
    objective, size, hidden_layers = {
        "simclr": (NTXent(_TEMPERATURE), 128, 1),
        "vicreg": (VICReg(), 256, 2),
    }[method]
    network = encoder(images.shape[1:], activation, width, seed)
    head = projector(network.output_shape[-1], size, hidden_layers, seed)
    model = SiameseModel(network, head, objective)
    optimizer = Adam(_RATE, epsilon=EPSILON, weight_decay=_DECAY)
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    model.compile(optimizer)
    batches = PairedViews(images, ELASTIC, seed=seed)

    def rate(epoch: int) -> float:
        return one_cycle(_RATE, epoch, epochs)

    return network, fit(model, batches, rate, ends=(epochs,), on_epoch=on_epoch)


def projector(features: int, size: int, hidden_layers: int, seed: int) -> keras.Model:
    """Return a model from features to projections: dense layers of `size` units.

    All but the last one are normalized and activated.
    """
    inputs = keras.Input((features,), name="features")
    x = inputs
    for number in range(1, hidden_layers + 2):
        name = f"projection{number}"
        initial = HeUniform(seed, path=f"{name}/kernel")
        x = layers.Dense(size, use_bias=False, name=name, kernel_initializer=initial)(x)
        if number <= hidden_layers:
            x = layers.BatchNormalization(axis=-1, momentum=0.9, name=f"{name}_norm")(x)
            x = layers.Activation("relu", name=f"{name}_activation")(x)
    return keras.Model(inputs, x, name="projector")


def linear_probe(
    features: np.ndarray, labels: np.ndarray, regularization: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear layer on features by logistic regression, and return its kernel and bias.

    The fit scales features to mean 0 and deviation 1. The returned layer takes unscaled features.

    Args:
        features: Shape `(n, size)`.
        labels: Integers from 0, shape `(n,)`, each class at least once.
        regularization: Inverse of the penalty, scikit-learn's `C`.

    Returns:
        `float32` arrays of shapes `(size, classes)` and `(classes,)`.
    """
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    # A constant feature says nothing, and has no deviation to divide by.
    scale = np.where(deviation > 0, 1 / np.maximum(deviation, 1e-12), 0.0)
    found = LogisticRegression(C=regularization, max_iter=1000)
    found.fit((features - mean) * scale, labels)
    weights, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # one logit stands for two
        weights, bias = np.concatenate([-weights, weights]) / 2, np.array([-1, 1]) * bias / 2
    kernel = (weights * scale).T
    return kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32)
