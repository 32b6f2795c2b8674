"""PyTorch's weights in our models, and back."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops


def load_torch_state(model: keras.Model, state_dict: Mapping[str, Any]) -> None:
    """Fill a model with the weights of the original's network of the same shape.

    Kernels are transposed. The rows of the first dense layer are put in the order in which
    channels-last images are flattened. PyTorch need not be installed.

    Args:
        model: `basic_net` or `cnn`, of any input shape and number of classes.
        state_dict: Arrays or PyTorch tensors by names such as `"fc1.weight"`, as the original's
            `state_dict()` returns them.

    Raises:
        ValueError: If a name is missing or unknown, or a shape is not the model's. The model then
            keeps its weights.

    Example:

    >>> model = basic_net(seed=1)
    >>> load_torch_state(model, torch_state(basic_net(seed=2)))
    """
    wanted = torch_state(model)
    if set(wanted) != set(state_dict):
        missing = ", ".join(sorted(set(wanted) - set(state_dict))) or "none"
        unknown = ", ".join(sorted(map(str, set(state_dict) - set(wanted)))) or "none"
        raise ValueError(
            f"`state_dict` is not that of {model.name}. Missing: {missing}; unknown: {unknown}"
        )
    arrays = {name: _array(name, value) for name, value in state_dict.items()}
    wrong = [
        f"{name} has shape {arrays[name].shape} instead of {array.shape}"
        for name, array in wanted.items()
        if arrays[name].shape != array.shape
    ]
    if wrong:
        raise ValueError(f"`state_dict` does not fit {model.name}: {'; '.join(wrong)}")
    for layer in _weighted(model):
        weight, bias = arrays[f"{layer.name}.weight"], arrays[f"{layer.name}.bias"]
        kernel = np.moveaxis(weight, (0, 1), (-1, -2))
        if (image := _flattened_image(model, layer)) is not None:
            height, width, channels = image
            kernel = kernel.reshape(channels, height, width, -1)
            kernel = kernel.transpose(1, 2, 0, 3).reshape(math.prod(image), -1)
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)


def torch_state(model: keras.Model) -> dict[str, np.ndarray]:
    """Return a model's weights with the names and in the layout of the original's network.

    Args:
        model: `basic_net` or `cnn`, of any input shape and number of classes.

    Returns:
        Arrays by name. The original's `load_state_dict` takes
        `{k: torch.tensor(v) for k, v in torch_state(model).items()}`.
    """
    state = {}
    for layer in _weighted(model):
        kernel = ops.convert_to_numpy(layer.kernel)
        if (image := _flattened_image(model, layer)) is not None:
            kernel = kernel.reshape(*image, -1).transpose(2, 0, 1, 3)
            kernel = kernel.reshape(math.prod(image), -1)
        weight = np.moveaxis(kernel, (-1, -2), (0, 1))
        state[f"{layer.name}.weight"] = np.ascontiguousarray(weight)
        state[f"{layer.name}.bias"] = np.array(ops.convert_to_numpy(layer.bias))
    return state


def _weighted(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if layer.weights]


def _flattened_image(model: keras.Model, layer: keras.Layer) -> tuple[int, ...] | None:
    """Return the shape of the image whose flattened pixels are the layer's inputs, or `None`."""
    source = model.layers[model.layers.index(layer) - 1]
    return source.input.shape[1:] if isinstance(source, layers.Flatten) else None


def _array(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, perhaps on a GPU or with a gradient
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`state_dict` has no array at {name!r}: {error}") from error
    if array.dtype.kind != "f":
        raise ValueError(f"`state_dict` must hold floats. Received: {name} of {array.dtype}")
    return array
