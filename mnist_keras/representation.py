"""Representations learned without labels: two views of an image are to have like features."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from mnist_keras.augmentation import ELASTIC, Warp, warp
from mnist_keras.encoders import encoder
from mnist_keras.fitting import digest, fit
from mnist_keras.history import History, OnEpoch
from mnist_keras.images import Images
from mnist_keras.networks import NOT_DECAYED, get_weights, one_cycle
from mnist_keras.optimizers import Adam
from mnist_keras.portable import HeUniform
from mnist_keras.warped_batches import WarpedBatches

# Chosen by cross-validation on training images: see docs/representation.md.
_TEMPERATURE = 0.5
_RATE, _DECAY = 5e-3, 1e-4


@keras.saving.register_keras_serializable(package="mnist_keras")
class NTXent(keras.losses.Loss):
    """SimCLR's loss: to tell the other view of an image from all views of the other images.

        ℓ(a, b) = −log( exp(a·b / τ) / Σ exp(a·z / τ) ),   z over all 2n views but a itself

    of projections scaled to length 1; the mean of ℓ(a, b) and ℓ(b, a).

    Args:
        temperature: τ, above 0. Defaults to `0.5`.
        **kwargs: `reduction`, `name` and `dtype` of `keras.losses.Loss`.

    Call arguments:
        y_true: Projections of one view of each image, shape `(n, size)`.
        y_pred: Projections of the other view, in the same order. The loss is symmetric.

    Example:

    >>> a = ops.eye(4)
    >>> float(NTXent(temperature=0.1)(a, a)) < float(NTXent(temperature=0.1)(a, a[::-1]))
    True

    Reference:
        [Chen et al., 2020](https://arxiv.org/abs/2002.05709)
    """

    def __init__(self, temperature=0.5, name="nt_xent", **kwargs):
        if not temperature > 0:
            raise ValueError(f"`temperature` must be above 0. Received: temperature={temperature}")
        super().__init__(name=name, **kwargs)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        """Return the loss of each image, shape `(n,)`."""
        n = ops.shape(y_pred)[0]
        views = ops.normalize(ops.concatenate([y_true, y_pred]), axis=-1)
        similar = ops.matmul(views, ops.transpose(views)) / self.temperature
        # A view is not to be told from itself.
        others = similar - 1e9 * ops.eye(2 * n, dtype=similar.dtype)
        of_pairs = ops.sum(views[:n] * views[n:], axis=-1) / self.temperature
        normalisers = ops.logsumexp(others, axis=-1)
        return (normalisers[:n] + normalisers[n:]) / 2 - of_pairs

    def get_config(self):
        """Return the arguments that make an equal loss."""
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable(package="mnist_keras")
class VICReg(keras.losses.Loss):
    """Variance, invariance and covariance: like views, and features that do not collapse.

        λ · mean (a − b)²  +  μ · mean relu(1 − √(Var + ε))  +  ν · Σ_{i≠j} Cov_ij² / size

    The invariance is averaged over features; the variance term over features and both views, the
    covariance term is that of both views together.

    Args:
        invariance: λ. Defaults to the paper's `25.0`.
        variance: μ. Defaults to `25.0`.
        covariance: ν. Defaults to `1.0`.
        **kwargs: `reduction`, `name` and `dtype` of `keras.losses.Loss`.

    Call arguments:
        y_true: Projections of one view of each image, shape `(n, size)`; at least two.
        y_pred: Projections of the other view, in the same order. The loss is symmetric.

    Reference:
        [Bardes et al., 2022](https://arxiv.org/abs/2105.04906)
    """

    def __init__(self, invariance=25.0, variance=25.0, covariance=1.0, name="vicreg", **kwargs):
        super().__init__(name=name, **kwargs)
        self.invariance = invariance
        self.variance = variance
        self.covariance = covariance

    def call(self, y_true, y_pred):
        """Return the loss of each image, shape `(n,)`; but for the invariance they are equal."""
        unlike = ops.mean(ops.square(y_true - y_pred), axis=-1)
        collapsed, alike = 0.0, 0.0
        for view in (y_true, y_pred):
            count = ops.cast(ops.shape(view)[0], view.dtype) - 1
            centred = view - ops.mean(view, axis=0)
            covariance = ops.matmul(ops.transpose(centred), centred) / count
            variance = ops.diagonal(covariance)
            collapsed += ops.mean(ops.relu(1 - ops.sqrt(variance + 1e-4))) / 2
            off_diagonal = ops.sum(ops.square(covariance)) - ops.sum(ops.square(variance))
            alike += off_diagonal / view.shape[-1]
        return self.invariance * unlike + self.variance * collapsed + self.covariance * alike

    def get_config(self):
        """Return the arguments that make an equal loss."""
        own = {name: getattr(self, name) for name in ("invariance", "variance", "covariance")}
        return {**super().get_config(), **own}


class SiameseModel(keras.Model):
    """An encoder that learns from pairs of views through a projector and a loss.

    `compile` takes an optimizer alone; `fit` takes batches of shape
    `(n, 2, height, width, channels)`, e.g. `PairedViews`. One definition trains on every backend:
    only `compute_loss` is overridden.

    Args:
        encoder: Model from images to features.
        projector: Model from features to projections; only training needs it.
        objective: Loss of two batches of projections, e.g. `NTXent` or `VICReg`.
    """

    def __init__(self, encoder, projector, objective, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.projector = projector
        self.objective = objective

    def call(self, pairs, training=False):
        """Return the projections of pairs of views, shape `(n, 2, size)`."""
        images = ops.reshape(pairs, (-1, *pairs.shape[2:]))
        features = self.encoder(images, training=training)
        projections = self.projector(features, training=training)
        return ops.reshape(projections, (-1, 2, projections.shape[-1]))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the objective of both views' projections."""
        return self.objective(y_pred[:, 0], y_pred[:, 1])


class PairedViews(WarpedBatches):
    """Batches of two views of each image, `(n, 2, height, width, channels)`, without labels.

    The last images of an epoch's order are left out where they do not fill a batch: the loss
    compares the images of a batch.

    Args:
        x: Array of images with values in 0…255, or `LazyImages`, shape
            `(n, height, width, channels)`.
        strength: How far a view may be from its image.
        batch_size: Images a batch; all of them, if there are fewer.
        **kwargs: As `WarpedBatches`.
    """

    def __init__(self, x: Images, strength: Warp, batch_size: int = 256, **kwargs: Any):
        super().__init__(x, None, strength, batch_size=min(batch_size, len(x)), **kwargs)

    def __len__(self) -> int:
        return len(self.x) // self.batch_size

    def _batch(self, index: int) -> np.ndarray:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
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
    width: int | None = 16,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> tuple[keras.Model, History]:
    """Train an encoder on images without labels.

    Args:
        images: Shape `(n, height, width, channels)`, with values in 0…255; at least two.
        method: `"simclr"` or `"vicreg"`.
        epochs: How often each image is seen, in two views each time.
        activation, width: As for `encoders.encoder`.
        seed: Integer >= 0 for initial weights, order and views, equal on every backend.
        on_epoch: Called with the epoch (from 1) and its loss.

    Returns:
        The encoder, and what each epoch gave.
    """
    objective, size, hidden_layers = {
        "simclr": (NTXent(_TEMPERATURE), 128, 1),
        "vicreg": (VICReg(), 256, 2),
    }[method]
    network = encoder(images.shape[1:], activation, width, seed)
    head = projector(network.output_shape[-1], size, hidden_layers, seed)
    model = SiameseModel(network, head, objective)
    optimizer = Adam(_RATE, weight_decay=_DECAY)
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    model.compile(optimizer)
    initial = digest(*get_weights(network).values(), *get_weights(head).values())
    batches = PairedViews(images, ELASTIC, seed=seed)
    history = fit(
        model,
        batches,
        lambda epoch: one_cycle(_RATE, epoch, epochs),
        ends=(epochs,),
        on_epoch=on_epoch,
    )
    history.initial = initial
    return network, history


def projector(features: int, size: int, hidden_layers: int, seed: int) -> keras.Model:
    """Return a network from features to projections: dense layers, normalised but for the last.

    Args:
        features: Length of the input.
        size: Units of each layer, and length of the output.
        hidden_layers: Layers before the last one.
        seed: Integer >= 0 for the initial weights, which are equal on every backend.
    """
    inputs = keras.Input((features,), name="features")
    x = inputs
    for number in range(1, hidden_layers + 2):
        name = f"projection{number}"
        initial = HeUniform(f"{name}/kernel", seed)
        x = layers.Dense(size, use_bias=False, name=name, kernel_initializer=initial)(x)
        if number <= hidden_layers:
            x = layers.BatchNormalization(axis=-1, momentum=0.9, name=f"{name}_norm")(x)
            x = layers.Activation("relu", name=f"{name}_activation")(x)
    return keras.Model(inputs, x, name="projector")


def linear_probe(
    features: np.ndarray, labels: np.ndarray, regularization: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of the logistic regression on features: what a linear layer can read.

    Features are scaled to mean 0 and deviation 1 for the fit; the returned layer takes them as
    they are.

    Args:
        features: Shape `(n, size)`.
        labels: Integers from 0, shape `(n,)`, each class at least once.
        regularization: Inverse of the penalty, scikit-learn's `C`.

    Returns:
        `float32` arrays of shapes `(size, classes)` and `(classes,)`.
    """
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    # A feature that is always the same says nothing, and has no deviation to divide by.
    scale = np.where(deviation > 0, 1 / np.maximum(deviation, 1e-12), 0.0)
    found = LogisticRegression(C=regularization, max_iter=1000)
    found.fit((features - mean) * scale, labels)
    weights, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # one logit stands for two
        weights, bias = np.concatenate([-weights, weights]) / 2, np.array([-1, 1]) * bias / 2
    kernel = (weights * scale).T
    return kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32)
