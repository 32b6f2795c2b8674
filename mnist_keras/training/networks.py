"""The model of an arm: built from its settings, compiled, and set to a seed's first step."""

import gc
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from mnist_keras.losses.focal import FocalLoss, focal_loss
from mnist_keras.models import encoders, original
from mnist_keras.optimizers import Adam, RAdam
from mnist_keras.training.record import Weights
from mnist_keras.training.settings import Settings

# One-cycle: the share of the epochs in which the learning rate rises.
_WARM_UP = 0.1
# Of Adam and RAdam: the paper's and PyTorch's, which the original took.
EPSILON = 1e-8
# Weights that weight decay leaves alone: decaying them would not regularize the model.
NOT_DECAYED = ("bias", "gamma", "beta")


class Networks:
    """Compiled models, one at a time: arms that differ only in other settings share one."""

    def __init__(self) -> None:
        self._key: object = None
        self._model: keras.Model = None

    def of(self, settings: Settings, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
        """Return `compiled_model`: the last one, if only its weights differ."""
        s = settings
        built = s.model, s.width, s.activation, input_shape, num_classes
        key = *built, s.loss, s.gamma, s.alpha, s.optimizer, s.weight_decay, _are_soft(s)
        if key != self._key:
            self._model = None
            keras.utils.clear_session()
            self._model = compiled_model(settings, input_shape, num_classes)
            self._key = key
        return self._model


def build_model(
    settings: Settings, input_shape: tuple[int, ...], num_classes: int, seed: int
) -> keras.Model:
    """Return the model of an arm with a seed's initial weights, not compiled.

    Without classes it is the encoder of `small_cnn`.
    """
    if settings.model == "small_cnn":
        own = settings.activation, settings.width or 0, seed
        if not num_classes:
            return encoders.encoder(input_shape, *own)
        return encoders.small_cnn(input_shape, num_classes, *own)
    build = {"basic_net": original.basic_net, "cnn": original.cnn}[settings.model]
    return build(input_shape, num_classes, settings.activation, seed)


def count_parameters(settings: Settings, input_shape: tuple[int, ...], num_classes: int) -> int:
    """Return the number of parameters of `build_model`, without building it."""
    if settings.model == "small_cnn":
        return encoders.count_parameters(input_shape, num_classes, settings.width or 0)
    return original.count_parameters(settings.model, input_shape, num_classes)


def compiled_model(
    settings: Settings, input_shape: tuple[int, ...], num_classes: int
) -> keras.Model:
    """Return the model of an arm, compiled for what `targets` returns.

    It has some initial weights; `restart` sets those of a run.
    """
    soft = _are_soft(settings)

    def mean(function: Callable[..., Any], name: str, **options: Any) -> Any:
        # Runs are compared on hard labels, whatever their targets are.
        hard = _with_hard_labels(function) if soft else function
        return keras.metrics.MeanMetricWrapper(hard, name, **options)

    metrics = [
        mean(keras.metrics.sparse_categorical_accuracy, "accuracy"),
        mean(keras.losses.sparse_categorical_crossentropy, "crossentropy", from_logits=True),
        mean(focal_loss, "focal", from_logits=True),
    ]
    if settings.loss == "focal":
        loss: Any = FocalLoss(settings.gamma or 0.0, settings.alpha or 0.0, from_logits=True)
    elif soft:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    kind = {"adam": Adam, "radam": RAdam, "sgd": keras.optimizers.SGD}[settings.optimizer]
    epsilon = {} if settings.optimizer == "sgd" else {"epsilon": EPSILON}
    optimizer = kind(settings.learning_rate, weight_decay=settings.weight_decay or None, **epsilon)
    model = build_model(settings, input_shape, num_classes, seed=0)
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    model.compile(optimizer, loss, metrics=metrics)
    model.optimizer.build(model.trainable_variables)
    return model


def _with_hard_labels(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of integer labels take soft labels: the largest share names the class."""

    def of_soft_labels(y_true: Any, y_pred: Any, **options: Any) -> Any:
        return function(keras.ops.argmax(y_true, axis=-1), y_pred, **options)

    return of_soft_labels


def targets(settings: Settings, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the targets of an arm: `int32` labels or, if soft, `float32` shares `(n, classes)`."""
    if not _are_soft(settings):
        return labels.astype("int32")
    one_hot = np.eye(num_classes, dtype=np.float32)[labels]
    return smoothed(one_hot, settings.label_smoothing)


def smoothed(shares: np.ndarray, smoothing: float) -> np.ndarray:
    """Return shares of which a part is spread evenly over all classes."""
    return np.asarray((1 - smoothing) * shares + smoothing / shares.shape[-1], np.float32)


def _are_soft(settings: Settings) -> bool:
    return settings.label_smoothing > 0 or settings.self_training != "none"


def restart(
    model: keras.Model, settings: Settings, seed: int, weights: Weights | None = None
) -> None:
    """Set a compiled model back to its first step: its weights, its dropout, its optimizer.

    If `weights` are given, they replace the initial ones of the same path.
    """
    new = build_model(settings, model.input_shape[1:], model.output_shape[-1], seed)
    for old, fresh in zip(model.variables, new.variables, strict=True):
        old.assign(fresh)
    # A model is a ring of references: left to itself, its 88 MB would outlive this function.
    del new, old, fresh
    gc.collect()
    set_weights(model, weights or {})
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    model.optimizer.learning_rate = settings.learning_rate


def get_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights of a model by path, including the averages of batch normalization."""
    return {w.path: np.array(keras.ops.convert_to_numpy(w)) for w in model.weights}


def set_weights(model: keras.Model, weights: Weights) -> None:
    """Set the weights of a model whose path is given."""
    for variable in model.weights:
        if variable.path in weights:
            variable.assign(weights[variable.path])


def one_cycle(highest: float, epoch: int, epochs: int) -> float:
    """Return a learning rate that rises linearly, then falls along a cosine to nearly 0.

    It changes between epochs and is computed here, so that no backend rounds it in its own way.

    Reference:
        [Smith & Topin, 2017](https://arxiv.org/abs/1708.07120)
    """
    rise = max(1.0, _WARM_UP * epochs)
    if epoch + 1 <= rise:
        return highest * (epoch + 1) / rise
    return highest * (1 + math.cos(math.pi * (epoch + 1 - rise) / (epochs + 1 - rise))) / 2
