"""A model that is explained: its logits, whatever its head, and runs with some parts replaced.

A part is a layer or an operation at any depth. It is replaced while the model itself runs, so what
comes after it is the model's own computation, and a map is never one of another function.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from scipy.special import logsumexp

from mnist_keras._foundations.typing import Tensor
from mnist_keras.models.prediction import BATCH, of_classes

# What Keras calls the functions, layers and operations that turn logits into probabilities.
_HEADS = {f"{log}{name}": name for log in ("", "log", "log_") for name in ("softmax", "sigmoid")}
# Layers of Keras that hold a function of somebody else's.
_HOLDERS = (
    keras.layers.Lambda,
    keras.layers.JaxLayer,
    keras.layers.TFSMLayer,
    keras.layers.TorchModuleWrapper,
)
# How far the sum of 16-bit probabilities may be from 1.
_ROUNDING = 1e-2
# Most numbers in one call, so that large images need no more memory than small ones.
_MOST_VALUES = 2**21
# Axes of height, width and channels.
AXES = {"channels_last": (1, 2, 3), "channels_first": (2, 3, 1)}
# Parts are replaced in the model itself, so threads take turns.
_LOCK = threading.RLock()

# A part, the name of an attribute, and its value while the model runs.
Change = tuple[Any, str, Any]


class ExplanationError(ValueError):
    """A model, layer or class that cannot be explained in the way asked for."""


class Call(NamedTuple):
    """A part of a model that was called, the first tensor that it took, and what it gave."""

    part: Any
    taken: Tensor
    gave: Tensor


class ExplainedModel:
    """A Keras model that gives one vector of logits for each image, and images that it takes.

    `calls` are those of all parts on one image, in the order in which they ended; `axes` are the
    images' height, width and channels; `to_logits` changes probabilities, if there are any, into
    logits. A single output is the log-odds of class 1 against class 0.
    """

    def __init__(self, model: keras.Model, images: Any):
        if len(getattr(model, "inputs", None) or [None]) != 1:
            raise ExplanationError(f"{model.name} takes several inputs; maps explain a single one")
        self.model, self.images = model, _batch(images)
        one = self.images[:1] if len(self.images) else np.zeros((1, *self.images.shape[1:]))
        if not model.built:
            self.run(one)
        output, self.calls = self.watch(one, parts(model))
        shape = keras.tree.map_structure(lambda x: tuple(x.shape), output)
        if not (isinstance(shape, tuple) and len(shape) == 2 and shape[0] == 1):
            said = "maps explain models that give one vector for each image. For one image"
            raise ExplanationError(f"{said}, {model.name} gives {shape}")
        self.size = int(shape[1])
        self.num_classes = max(2, self.size)
        self.axes = self._image_axes()
        # The first part that gave the output has made it; later ones passed it on.
        last = next((call.part for call in self.calls if call.gave is output), None)
        self._head = _HEADS.get(_end(last))
        shared = sum(call.part is last for call in self.calls) > 1
        if self._head and (shared or (self._head == "softmax" and self.size == 1)):
            raise self._hidden_logits()
        linear = ("activation", keras.activations.linear)
        change = linear if hasattr(last, "activation") else ("call", _first_tensor)
        self.to_logits: list[Change] = [(last, *change)] if self._head else []
        # Probabilities may come out where the end is not seen, or after more operations.
        others = [c for c in self.calls if _end(c.part) in _HEADS and c.part is not last]
        self._doubtful = not _end(last) or any(prod(c.gave.shape[1:]) == self.size for c in others)

    def run(self, images: np.ndarray, changes: Sequence[Change] = ()) -> Any:
        """Return what the model gives with changed parts. No state of the model is updated."""
        with _LOCK, ExitStack() as after, keras.StatelessScope():
            for part, name, value in changes:
                own: dict[str, Any] = part.__dict__
                after.callback(own.__setitem__ if name in own else own.pop, name, own.get(name))
                own[name] = value
            try:
                return self.model(ops.convert_to_tensor(images), training=False)
            except Exception as error:
                said = f"{self.model.name} does not run on images of shape {images.shape[1:]}"
                raise ExplanationError(f"{said}: {error}") from error

    def watch(
        self, images: np.ndarray, watched: Iterable[Any], changes: Sequence[Change] = ()
    ) -> tuple[Any, list[Call]]:
        """Return what the model gives, and the calls of the watched parts as they end."""
        calls: list[Call] = []

        def recording(part: Any, call: Callable[..., Any]) -> Callable[..., Any]:
            def recorded(*args: Any, **kwargs: Any) -> Any:
                calls.append(Call(part, _first_tensor(*args, **kwargs), call(*args, **kwargs)))
                return calls[-1].gave

            return recorded

        recorders = [(part, "call", recording(part, part.call)) for part in watched]
        return self.run(images, [*changes, *recorders]), calls

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return `float32` logits of images, of shape `(n, num_classes)`."""
        logits = [np.empty((0, self.num_classes), np.float32)]
        for chunk in self.chunks(len(images)):
            logits.append(self.checked(self.run(images[chunk], self.to_logits)))
        return np.concatenate(logits)

    def checked(self, output: Tensor) -> np.ndarray:
        """Return outputs as logits, if they are finite and not probabilities."""
        logits: np.ndarray = ops.convert_to_numpy(output).astype(np.float32)
        if not np.isfinite(logits).all():
            raise ExplanationError(f"{self.model.name} gives numbers that are not finite")
        sums_to_1 = self.size > 1 and (np.abs(logits.sum(-1) - 1) < _ROUNDING).all()
        if (logits >= 0).all() and (sums_to_1 or (self._doubtful and (logits <= 1).all())):
            raise self._hidden_logits()
        return logits * np.array([-1, 1], np.float32) if self.size == 1 else logits

    def log_odds(self, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return `log(p / (1 - p))` for the probability `p` of each image's class, shape `(n,)`."""
        logits = self.logits(images).astype(np.float64)
        odds = of_classes(logits, classes)
        if self._head != "sigmoid" and self.size > 1:  # against all other classes
            np.put_along_axis(logits, classes[:, np.newaxis], -np.inf, axis=1)
            odds -= logsumexp(logits, axis=1)
        return odds

    def classes(self, classes: Any) -> np.ndarray:
        """Return the classes asked for, one for each image, or else the predicted ones."""
        if classes is None:
            return np.asarray(self.logits(self.images).argmax(-1))
        found: np.ndarray = ops.convert_to_numpy(classes)
        count = len(self.images)
        whole = found.dtype.kind in "iub" and found.shape == (count,)
        if not whole or ((found < 0) | (found >= self.num_classes)).any():
            said = f"one class in 0…{self.num_classes - 1} for each of {count} images"
            raise ExplanationError(f"expected {said}. Received: {classes}")
        return found.astype(np.int64)

    def chunks(self, count: int) -> Iterator[slice]:
        """Yield the parts of this many images that go through the model together."""
        size = min(BATCH, max(1, _MOST_VALUES // max(1, prod(self.images.shape[1:]))))
        return (slice(start, start + size) for start in range(0, count, size))

    def painted(self, images: np.ndarray, where: np.ndarray, level: float) -> np.ndarray:
        """Return images with one level at the pixels of masks of shape `(n, height, width)`."""
        fits = np.array(level).astype(images.dtype) == level
        dtype = images.dtype if fits else np.float32
        pixels = np.expand_dims(where, self.axes[2])
        return np.where(pixels, np.asarray(level, dtype), images.astype(dtype, copy=False))

    def _image_axes(self) -> tuple[int, int, int]:
        shape = self.images.shape
        for call in self.calls:
            own = AXES.get(getattr(call.part, "data_format", ""))
            if own and len(call.taken.shape) == 4:
                # Axes may have been moved before this layer; height and width show it.
                size = [call.taken.shape[axis] for axis in own[:2]]
                fitting = [axes for axes in AXES.values() if [shape[a] for a in axes[:2]] == size]
                if not fitting and shape[own[2]] != min(shape[1:]):
                    said = f"tell height, width and channels of images of shape {shape[1:]}"
                    raise ExplanationError(f"the layers of {self.model.name} do not {said}")
                return fitting[0] if len(fitting) == 1 else own
        return AXES[keras.config.image_data_format()]

    def _hidden_logits(self) -> ExplanationError:
        said = "gives probabilities, and its logits are not seen"
        how = "Give a model that ends before the softmax or sigmoid"
        return ExplanationError(f"{self.model.name} {said}. {how}")


def parts(model: keras.Layer) -> dict[Any, str]:
    """Return the layers and operations inside a layer, at any depth, with their paths."""
    paths: dict[Any, str] = {}

    def visit(layer: keras.Layer, path: str) -> None:
        operations = layer.operations if isinstance(layer, keras.Function) else []
        for part in [*operations, *layer._flatten_layers(include_self=False, recursive=False)]:
            if part not in paths:
                paths[part] = path + part.name
                if isinstance(part, keras.Layer):
                    visit(part, f"{paths[part]}/")

    visit(model, "")
    return paths


def _batch(images: Any) -> np.ndarray:
    try:
        several = isinstance(images, list | tuple)
        images = np.stack([*map(ops.convert_to_numpy, images)]) if several else images
        array = np.asarray(ops.convert_to_numpy(images))
    except Exception as error:
        raise ExplanationError(f"the images are not one array: {error}") from error
    if array.ndim != 4:
        raise ExplanationError(
            "expected images of shape (n, height, width, channels); a single one is given as "
            f"image[np.newaxis]. Received: {array.shape}"
        )
    return array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16


def _end(part: Any) -> str:
    """Return the name of the function that a part of Keras ends in, or "" where it is not seen."""
    recurrent = isinstance(part, keras.layers.RNN)  # does more after its activation
    function = (not recurrent and getattr(part, "activation", None)) or type(part)
    modules = [str(getattr(thing, "__module__", "")) for thing in (part, function)]
    seen = all(m.startswith("keras.") for m in modules) and not isinstance(part, _HOLDERS)
    return getattr(function, "__name__", "").lower() if seen else ""


def _first_tensor(*args: Any, **kwargs: Any) -> Tensor:
    return next((x for x in keras.tree.flatten((args, kwargs)) if hasattr(x, "shape")), None)
