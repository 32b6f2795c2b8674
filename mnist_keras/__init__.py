"""A small-data MNIST report, reproduced and checked on JAX, TensorFlow and PyTorch with Keras 3.

Importing this package imports neither Keras nor a backend: the public names below are
imported when they are first used, after you had the chance to choose a backend.
"""

import importlib
from typing import Any

from mnist_keras import registration

_PUBLIC = {
    "Adam": "optimizers",
    "Batches": "batches",
    "Dropout": "portable",
    "FanInUniform": "portable",
    "FocalLoss": "losses",
    "GlorotUniform": "portable",
    "HeUniform": "portable",
    "RAdam": "optimizers",
    "SpatialDropout2D": "portable",
    "basic_net": "models",
    "class_balanced_alpha": "losses",
    "cnn": "models",
    "focal_loss": "losses",
    "grad_cam": "explanations",
    "hires_cam": "explanations",
    "image_dataset_from_directory": "datasets",
    "occlusion": "explanations",
}

__all__ = [*_PUBLIC, "__version__"]

registration.with_keras()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("mnist-keras")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
