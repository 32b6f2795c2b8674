"""PyTorch's weights in our models, and back."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from mnist_keras import portable


def load_torch_state(model: keras.Model, state_dict: Mapping[str, Any]) -> None:
    """Fill a model with the weights of the original's network of the same shape.

    Kernels are transposed. The rows of the first dense layer are put in the order in which
    channels-last images are flattened. PyTorch need not be installed.

    Args:
        model: `basic_net` or `cnn`, of any input shape and number of classes, or another chain of
            `Dense` and channels-last `Conv2D` layers with biases, pooling, dropout, activations
            and `Flatten`.
        state_dict: Arrays or PyTorch tensors by names such as `"fc1.weight"`, as the original's
            `state_dict()` returns them.

    Raises:
        ValueError: If the model is of another kind, a name is missing or unknown, or a shape is
            not the model's. The model then keeps its weights.

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
            kernel = kernel.reshape(image[-1], *image[:-1], -1)
            kernel = np.moveaxis(kernel, 0, -2).reshape(layer.kernel.shape)
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)


def torch_state(model: keras.Model) -> dict[str, np.ndarray]:
    """Return a model's weights with the names and in the layout of the original's network.

    Args:
        model: As for `load_torch_state`.

    Returns:
        Arrays by name, in float32 if the weights are in bfloat16, which NumPy does not have. The
        original's `load_state_dict` takes
        `{k: torch.tensor(v) for k, v in torch_state(model).items()}`.

    Raises:
        ValueError: If the model is of another kind.
    """
    state = {}
    for layer in _weighted(model):
        kernel, bias = (_array(layer.name, part.value) for part in (layer.kernel, layer.bias))
        if (image := _flattened_image(model, layer)) is not None:
            kernel = np.moveaxis(kernel.reshape(*image, -1), -2, 0).reshape(kernel.shape)
        weight = np.moveaxis(kernel, (-1, -2), (0, 1))
        state[f"{layer.name}.weight"] = np.ascontiguousarray(weight)
        state[f"{layer.name}.bias"] = np.array(bias)
    return state


# These leave elements where they are, so that what was flattened before them stays in order.
_IN_PLACE = (layers.Dropout, layers.Activation, layers.ReLU, portable.Dropout)
_POOLING = (layers.MaxPooling2D, layers.AveragePooling2D)


def _weighted(model: keras.Model) -> list[keras.Layer]:
    """Return the layers with weights, or raise an error unless all stand in one known chain."""
    chain = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    x = model.inputs[0] if model.built and len(model.inputs or ()) == 1 else None
    for layer in chain:
        x = layer.output if x is not None and layer.input is x and _is_known(layer) else None
    if x is None or len(model.outputs) != 1 or x is not model.outputs[0]:
        raise ValueError(
            f"{model.name} must be a built chain of `Dense` and channels-last `Conv2D` layers "
            "with biases, pooling, dropout, activations and `Flatten`"
        )
    return [layer for layer in chain if layer.weights]


def _is_known(layer: keras.Layer) -> bool:
    if type(layer) is layers.Dense:
        return bool(layer.use_bias) and len(layer.input.shape) == 2
    if type(layer) is layers.Conv2D:
        return bool(layer.use_bias) and layer.data_format == "channels_last"
    if isinstance(layer, (*_POOLING, layers.Flatten)):
        return bool(layer.data_format == "channels_last")
    return isinstance(layer, _IN_PLACE)


def _flattened_image(model: keras.Model, layer: keras.Layer) -> tuple[int, ...] | None:
    """Return the shape of the image whose flattened pixels are the layer's inputs, or `None`."""
    before = model.layers[: model.layers.index(layer)]
    while before and isinstance(before[-1], _IN_PLACE):
        before.pop()
    is_flat = before and isinstance(before[-1], layers.Flatten)
    return before[-1].input.shape[1:] if is_flat else None


def _array(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, perhaps on a GPU or with a gradient
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`state_dict` has no array at {name!r}: {error}") from error
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind != "f":
        raise ValueError(f"`state_dict` must hold floats. Received: {name} of {array.dtype}")
    return array
