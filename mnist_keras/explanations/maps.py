"""How a model decides: maps of the places in an image that speak for a class.

Everything is written once, in `keras.ops` and NumPy. Only `_gradient` asks which backend runs.
"""

from collections.abc import Callable
from itertools import pairwise, product

import keras
import numpy as np
from keras import ops

from mnist_keras._foundations.typing import Tensor
from mnist_keras.datasets.images import Images
from mnist_keras.models.prediction import BATCH, log_softmax, of_classes, predict

# Relative difference up to which two inputs of a max pooling count as equal.
_EQUAL = 1e-5


class ExplanationError(ValueError):
    """A model, layer or class that cannot be explained in the way asked for."""


def convolutions(model: keras.Model) -> list[str]:
    """Return the names of the model's convolutions in their order."""
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


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
        model: Functional model of logits whose layers form a chain after `layer`.
        images: Shape `(n, height, width, channels)`, with values in 0…255.
        classes: Integers of shape `(n,)`. Defaults to the predicted classes.
        layer: Name of a convolution. Defaults to the last one.

    Returns:
        `float32` array of shape `(n, height, width)`, in 0…1.

    Raises:
        ExplanationError: If the model has no such convolution or class, or branches after it.

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
        model, images, classes, layer: As for `grad_cam`.

    Returns:
        `float32` array of shape `(n, height, width)`, in 0…1.

    Raises:
        ExplanationError: As `grad_cam` does.

    Reference:
        [Draelos and Carin, 2020](https://arxiv.org/abs/2011.08891)
    """
    return _cam(model, images, classes, layer, average=False)


def _cam(
    model: keras.Model,
    images: Images,
    classes: np.ndarray | None,
    layer: str | None,
    average: bool,
) -> np.ndarray:
    known = convolutions(model)
    if not known:
        raise ExplanationError(f"{model.name} has no convolution; occlusion maps need none")
    layer = layer or known[-1]
    if layer not in known:
        raise ExplanationError(f"no convolution {layer!r}. Known: {', '.join(known)}")
    classes = explained_classes(model, images, classes)
    front = keras.Model(model.input, model.get_layer(layer).output)
    position = model.layers.index(model.get_layer(layer))
    for before, after in pairwise(model.layers[position:]):
        if after.input is not before.output:
            raise ExplanationError(f"{model.name} is not a chain of layers after {layer}")
    size = model.input_shape[1:3]
    maps = []
    for start in range(0, len(images), BATCH):
        chunk = slice(start, start + BATCH)
        x = ops.convert_to_tensor(images[chunk].astype("float32") / 255)
        features = front(x, training=False)
        mask = ops.one_hot(classes[chunk], model.output_shape[-1])

        def score(x: Tensor, mask: Tensor = mask) -> Tensor:
            for after in model.layers[position + 1 :]:
                is_pool = isinstance(after, keras.layers.MaxPooling2D)
                x = _max_pool(after, x) if is_pool else after(x, training=False)
            # Summed over images, since the logit of each depends on its own features alone.
            return ops.sum(x * mask)

        slopes = _gradient(score, features)
        weights = ops.mean(slopes, axis=(1, 2), keepdims=True) if average else slopes
        cam = ops.relu(ops.sum(weights * features, axis=-1, keepdims=True))
        cam = ops.image.resize(cam, size, "bilinear", data_format="channels_last")
        maps.append(ops.convert_to_numpy(cam)[..., 0])
    return _scaled(np.concatenate(maps)) if maps else np.empty((0, *size), np.float32)


def _max_pool(layer: keras.layers.MaxPooling2D, x: Tensor) -> Tensor:
    """Return a max pooling whose gradient is shared equally by all inputs that are the largest.

    On an even background all inputs are. Rounding then decides which one a backend chooses.
    """
    largest = layer(x)
    high, wide = layer.pool_size
    if layer.strides != layer.pool_size or layer.padding != "valid":
        return largest
    _, rows, columns, channels = largest.shape
    windows = x[:, : rows * high, : columns * wide]
    windows = ops.reshape(windows, (-1, rows, high, columns, wide, channels))
    least = largest - _EQUAL * (1 + ops.abs(largest))
    ties = ops.cast(windows >= ops.reshape(least, (-1, rows, 1, columns, 1, channels)), x.dtype)
    shares = ops.stop_gradient(ties / ops.sum(ties, axis=(2, 4), keepdims=True))
    return ops.sum(shares * windows, axis=(2, 4))


def _gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient of a scalar function at a tensor, for which Keras has no function."""
    match keras.backend.backend():
        case "jax":
            import jax

            return jax.grad(function)(x)
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return tape.gradient(y, x)
        case "torch":
            import torch

            x = x.detach().requires_grad_()
            return torch.autograd.grad(function(x), x)[0]
        case other:
            raise ExplanationError(f"no gradients on the backend {other!r}")


def occlusion(
    model: keras.Model,
    images: Images,
    classes: np.ndarray | None = None,
    patch: int = 6,
    stride: int = 3,
    background: int = 0,
) -> np.ndarray:
    """Return where covering an image with a patch lowers the probability of a class.

    A pixel's value is the mean fall of the class's log-probability over the patches that cover
    it, or 0 if that is negative. Each map is divided by its maximum. It needs no gradient.

    Args:
        model: Any model of logits.
        images, classes: As for `grad_cam`.
        patch: Side of the patch in pixels.
        stride: Pixels from one patch to the next, at most `patch`.
        background: Level of the patch.

    Returns:
        `float32` array of shape `(n, height, width)`, in 0…1.

    Raises:
        ExplanationError: If there is no such class, or the patch does not fit the image.

    Reference:
        [Zeiler and Fergus, 2014](https://arxiv.org/abs/1311.2901), section 4.2.
    """
    height, width = images.shape[1:3]
    if not 1 <= stride <= patch <= min(height, width):
        said = f"a patch of {patch} pixels, {stride} apart, on images of {height}×{width}"
        raise ExplanationError(said)
    classes = explained_classes(model, images, classes)
    # From half outside to half outside, so that the border is covered as often as the middle.
    ends = (max(side - patch // 2, side - patch + stride) for side in (height, width))
    corners = list(product(*(range(-(patch // 2), end, stride) for end in ends)))
    maps = np.zeros((len(images), height, width), np.float32)
    before = of_classes(log_softmax(predict(model, images)), classes)
    for row, (image, label) in enumerate(zip(images[:], classes, strict=True)):
        covered = np.repeat(image[np.newaxis], len(corners), axis=0)
        patches = np.zeros((len(corners), height, width), np.float32)
        for number, (y, x) in enumerate(corners):
            where = slice(max(0, y), y + patch), slice(max(0, x), x + patch)
            covered[number][where] = background
            patches[number][where] = 1
        falls = before[row] - log_softmax(predict(model, covered))[:, label]
        maps[row] = np.tensordot(falls, patches, 1) / patches.sum(0)
    return _scaled(np.maximum(maps, 0))


def explained_classes(model: keras.Model, images: Images, classes: np.ndarray | None) -> np.ndarray:
    """Return the classes asked for, one for each image, or else the predicted ones."""
    if classes is None:
        return np.asarray(predict(model, images).argmax(-1))
    classes = np.asarray(classes)
    count = model.output_shape[-1]
    if classes.shape != (len(images),) or ((classes < 0) | (classes >= count)).any():
        raise ExplanationError(
            f"expected one class in 0…{count - 1} for each of {len(images)} images. "
            f"Received: {classes}"
        )
    return classes


def _scaled(maps: np.ndarray) -> np.ndarray:
    highest = maps.max((1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)
