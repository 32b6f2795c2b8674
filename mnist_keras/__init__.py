"""A small-data MNIST paper, reproduced and checked on JAX, TensorFlow and PyTorch with Keras 3.

Importing this package imports neither Keras nor a backend: each public name of `__init__.pyi` is
imported when it is first used, after you had the chance to choose a backend.
"""

from typing import Any

import lazy_loader

from mnist_keras._foundations import registration

_public, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.append("__version__")

registration.with_keras()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mnist-keras")
    return _public(name)


def __dir__() -> list[str]:
    return sorted(__all__)
