"""How a model decides: maps of the places in an image that speak for a class.

Everything is written once, in `keras.ops` and NumPy. Only `_gradient` asks which backend runs.
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import keras
import numpy as np
from keras import ops

from mnist_keras._foundations.typing import Tensor
from mnist_keras.datasets.images import Images
from mnist_keras.explanations.explained_model import (
    AXES,
    Change,
    ExplainedModel,
    ExplanationError,
    parts,
)

# Relative difference up to which two inputs of a max pooling count as equal.
_EQUAL = 1e-5
# Gradients are taken this much larger: means over many positions would be 0 in float16.
_SCALE = 2.0**8
# Log-odds from which on a probability is 1 but for its last digits.
_SURE = 30.0
_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


def convolutions(model: keras.Model) -> list[str]:
    """Return the names of the model's convolutions, at any depth, in their order."""
    return list(_convolutions(model))


def _convolutions(model: keras.Model) -> dict[str, keras.Layer]:
    """Return the convolutions by name, or by path where several have one name."""
    paths = {part: path for part, path in parts(model).items() if isinstance(part, _CONVOLUTIONS)}
    names = [part.name for part in paths]
    return {p.name if names.count(p.name) == 1 else path: p for p, path in paths.items()}


def grad_cam(
    model: keras.Model,
    images: Images,
    classes: np.ndarray | None = None,
    layer: str | None = None,
) -> np.ndarray:
    """Return where a convolution saw evidence for a class: `relu(Σₖ αₖ Aₖ)`.

    `Aₖ` is the k-th channel of the layer's output, and `αₖ` the mean over positions of the
    gradient of the class's logit with respect to it. The map is enlarged to the image's size by
    bilinear interpolation and divided by its maximum; a map without positive values is 0.

    Args:
        model: Keras model that gives one vector of logits for each image. If it ends in a softmax
            or sigmoid, its logits are what that takes. A single logit speaks for class 1 and
            against class 0.
        images: Exactly as to `model.predict`, in the range that the model takes: shape
            `(n, height, width, channels)`, or channels first if its layers are.
        classes: Integers of shape `(n,)`. Defaults to the predicted classes.
        layer: Name of a convolution, or `"model/name"` if models inside this one have several of
            that name. Defaults to the last one that has more than one position.

    Returns:
        `float32` array of shape `(n, height, width)`, in 0…1.

    Raises:
        ExplanationError: If the model has no such convolution or class, calls the convolution more
            than once, takes several inputs, gives something else, or hides its logits.

    Reference:
        [Selvaraju et al., 2017](https://arxiv.org/abs/1610.02391)
    """
    return _cam(model, images, classes, layer, average=True)


def hires_cam(
    model: keras.Model,
    images: Images,
    classes: np.ndarray | None = None,
    layer: str | None = None,
) -> np.ndarray:
    """Return where a convolution's output adds to a class: `relu(Σₖ ∂z/∂Aₖ · Aₖ)`.

    Unlike in `grad_cam`, each position keeps its own gradient. Before dense layers, a channel
    may speak for a class in one place and against it in another, which the mean cannot show.

    Args:
        model, images, classes, layer: As for `grad_cam`; images exactly as to `model.predict`.

    Returns:
        `float32` array of shape `(n, height, width)`, in 0…1.

    Raises:
        ExplanationError: As `grad_cam` does.

    Reference:
        [Draelos and Carin, 2020](https://arxiv.org/abs/2011.08891)
    """
    return _cam(model, images, classes, layer, average=False)


def _cam(
    model: keras.Model, images: Images, classes: np.ndarray | None, layer: str | None, average: bool
) -> np.ndarray:
    explained = ExplainedModel(model, images)
    conv = _convolution(explained, layer)
    pools = [part for part in parts(model) if isinstance(part, keras.layers.MaxPooling2D)]
    pooling: list[Change] = [(p, "call", partial(_max_pool, p, p.call)) for p in pools]
    # A single logit speaks for class 1 and against class 0.
    masks = np.eye(explained.size) if explained.size > 1 else np.array([[-1.0], [1.0]])
    masks = _SCALE * masks[explained.classes(classes)]
    size = tuple(explained.images.shape[axis] for axis in explained.axes[:2])
    maps = [np.empty((0, *size), np.float32)]
    for chunk in explained.chunks(len(masks)):
        features, slopes = _slopes(explained, conv, pooling, explained.images[chunk], masks[chunk])
        weights = slopes.mean((1, 2), keepdims=True) if average else slopes
        cam = np.maximum((weights * features).sum(-1, keepdims=True), 0)
        cam = ops.image.resize(cam, size, "bilinear", data_format="channels_last")
        maps.append(ops.convert_to_numpy(cam)[..., 0])
    return _scaled(np.concatenate(maps))


def _slopes(
    explained: ExplainedModel, conv: keras.Layer, pooling: list[Change], x: np.ndarray, mask: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return a convolution's output, and the slopes of the masked logits, both channels last."""
    output, ((_, _, gave),) = explained.watch(x, [conv], explained.to_logits)
    explained.checked(output)
    features = ops.convert_to_numpy(gave).astype(np.float32)

    def score(features: Tensor) -> Tensor:
        given = (conv, "call", lambda *_, **__: ops.cast(features, gave.dtype))
        logits = ops.cast(explained.run(x, [*explained.to_logits, *pooling, given]), "float32")
        # Summed over images, since the logit of each depends on its own features alone.
        return ops.sum(logits * ops.convert_to_tensor(mask, "float32"))

    slopes = _gradient(score, features)
    if not np.isfinite(slopes).all():
        raise ExplanationError(f"the gradient at {conv.name} is not finite")
    axes = (0, *AXES[conv.data_format])
    return features.transpose(axes), slopes.transpose(axes)


def _convolution(explained: ExplainedModel, layer: str | None) -> keras.Layer:
    """Return the convolution of that name, or else the last one, if it is called just once."""
    known, name = _convolutions(explained.model), explained.model.name
    calls = [call for call in explained.calls if isinstance(call.part, _CONVOLUTIONS)]
    if layer and layer not in known:
        raise ExplanationError(f"no convolution {layer!r}. Known: {', '.join(known)}")
    if not calls:
        raise ExplanationError(f"{name} has no 2D convolution; occlusion maps need none")
    # One in a head, of a single position, has nowhere to point to.
    spread = [c for c in calls if max(c.gave.shape[a] for a in AXES[c.part.data_format][:2]) > 1]
    conv = known[layer] if layer else (spread or calls)[-1].part
    shapes = [call.gave.shape for call in calls if call.part is conv]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][0] != 1:
        raise ExplanationError(f"{name} does not call {conv.name} exactly once for each image")
    return conv


def _max_pool(
    layer: keras.layers.MaxPooling2D, call: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Return a max pooling whose gradient is shared equally by all inputs that are the largest.

    On an even background all inputs are. Rounding then decides which one a backend chooses.
    """
    largest = call(x)
    high, wide = layer.pool_size
    even = layer.strides == layer.pool_size and layer.padding == "valid"
    if not even or layer.data_format == "channels_first":
        return largest
    _, rows, columns, channels = largest.shape
    windows = x[:, : rows * high, : columns * wide]
    windows = ops.reshape(windows, (-1, rows, high, columns, wide, channels))
    least = largest - _EQUAL * (1 + ops.abs(largest))
    ties = ops.cast(windows >= ops.reshape(least, (-1, rows, 1, columns, 1, channels)), x.dtype)
    shares = ops.stop_gradient(ties / ops.sum(ties, axis=(2, 4), keepdims=True))
    return ops.sum(shares * windows, axis=(2, 4))


def _gradient(function: Callable[[Tensor], Tensor], at: np.ndarray) -> np.ndarray:
    """Return the gradient of a scalar function, for which Keras has no function of its own."""
    match keras.backend.backend():
        case "jax":
            import jax

            slopes = jax.grad(function)(at)
        case "tensorflow":
            import tensorflow as tf

            x = tf.convert_to_tensor(at)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                y = function(x)
            slopes = tape.gradient(y, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        case "torch":
            import torch

            with torch.inference_mode(False), torch.enable_grad():
                x = ops.convert_to_tensor(at).requires_grad_()
                y = function(x) + 0 * x.sum()  # which needs x, also where the model does not
                (slopes,) = torch.autograd.grad(y, x)
        case other:
            raise ExplanationError(f"no gradients on the backend {other!r}")
    return np.asarray(ops.convert_to_numpy(slopes))


def occlusion(
    model: keras.Model,
    images: Images,
    classes: np.ndarray | None = None,
    patch: int = 6,
    stride: int = 3,
    background: float = 0,
) -> np.ndarray:
    """Return where covering an image with a patch lowers the probability of a class.

    A pixel's value is the mean fall of the class's log-probability over the patches that cover
    it, or 0 if that is negative. Each map is divided by its maximum. It needs no gradient.

    Args:
        model, images, classes: As for `grad_cam`; images exactly as to `model.predict`. The model
            needs no convolution.
        patch: Side of the patch in pixels.
        stride: Pixels from one patch to the next, at most `patch`.
        background: Level of the patch, in the range of the images.

    Returns:
        `float32` array of shape `(n, height, width)`, in 0…1.

    Raises:
        ExplanationError: As `grad_cam` does, or if the patch does not fit the image.

    Reference:
        [Zeiler and Fergus, 2014](https://arxiv.org/abs/1311.2901), section 4.2.
    """
    explained = ExplainedModel(model, images)
    height, width = (explained.images.shape[axis] for axis in explained.axes[:2])
    if not 1 <= stride <= patch <= min(height, width):
        said = f"a patch of {patch} pixels, {stride} apart, on images of {height}×{width}"
        raise ExplanationError(said)
    classes = explained.classes(classes)
    # From half outside to half outside, so that the border is covered as often as the middle.
    ends = (max(side - patch // 2, side - patch + stride) for side in (height, width))
    corners = product(*(range(-(patch // 2), end, stride) for end in ends))
    windows = [np.s_[max(0, y) : y + patch, max(0, x) : x + patch] for y, x in corners]
    maps, times = np.zeros((len(explained.images), height, width)), np.zeros((height, width))
    for window in windows:
        times[window] += 1
    before = explained.log_odds(explained.images, classes)
    for row, label in enumerate(classes):
        odds: list[float] = []
        for chunk in explained.chunks(len(windows)):
            patches = np.zeros((len(windows[chunk]), height, width), bool)
            for one, window in zip(patches, windows[chunk], strict=True):
                one[window] = True
            covered = explained.painted(explained.images[row : row + 1], patches, background)
            odds.extend(explained.log_odds(covered, np.full(len(patches), label)))
        # log p = -log(1 + exp(-odds)) is -exp(-odds) where p is almost 1. A factor does not change
        # the map there, and keeps the falls of a saturated model from being rounded to 0.
        factor = max(0, min(odds) - _SURE)
        falls = np.logaddexp(0, factor - np.array(odds)) - np.logaddexp(0, factor - before[row])
        for window, fall in zip(windows, falls, strict=True):
            maps[row][window] += fall
    return _scaled(np.maximum(maps / times, 0).astype(np.float32))


def _scaled(maps: np.ndarray) -> np.ndarray:
    highest = maps.max((1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)
