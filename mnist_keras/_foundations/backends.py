"""Choose and check the Keras backend, before anything imports Keras."""

import ctypes
import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mnist_keras._foundations.files import reason

# In the order in which the first installed one is taken.
TRAINABLE = ("jax", "tensorflow", "torch")
# Backends of Keras that only predict.
PREDICT_ONLY = ("numpy", "openvino")


class BackendError(RuntimeError):
    """The backend asked for is missing, broken, unknown or cannot train."""


@dataclass(frozen=True)
class Backend:
    """A backend and where its name comes from."""

    name: str  # one of `TRAINABLE`
    chosen_by: str  # "--backend", "KERAS_BACKEND" or "first installed"

    @property
    def version(self) -> str:
        """Version of the installed backend."""
        return str(sys.modules[self.name].__version__)


def installed() -> list[str]:
    """Return the trainable backends that are installed, without importing them."""
    return [name for name in TRAINABLE if importlib.util.find_spec(name)]


def choose(option: str | None = None) -> Backend:
    """Return the backend that the option, `KERAS_BACKEND` or, last, the machine names."""
    if option is not None:
        backend = Backend(option, "--backend")
    elif environment := os.environ.get("KERAS_BACKEND"):
        backend = Backend(environment, "KERAS_BACKEND")
    elif available := installed():
        backend = Backend(available[0], "first installed")
    else:
        raise BackendError(
            'no backend is installed. Install one: pip install "mnist-keras[jax]" '
            "(or [tensorflow], or [torch])"
        )

    name = backend.name
    choices = f"Choose one of {', '.join(TRAINABLE)}"
    if name in PREDICT_ONLY:
        raise BackendError(f"{backend.chosen_by}: {name!r} cannot train. {choices}")
    if name not in TRAINABLE:
        near = difflib.get_close_matches(name.lower(), TRAINABLE, 1, 0.5)
        hint = f"Did you mean {near[0]!r}?" if near else choices
        raise BackendError(f"{backend.chosen_by}: unknown backend {name!r}. {hint}")
    if not importlib.util.find_spec(name):
        others = f" (installed: {', '.join(installed())})" if installed() else ""
        raise BackendError(
            f"{backend.chosen_by}: {name!r} is not installed{others}. "
            f'Install it: pip install "mnist-keras[{name}]"'
        )
    return backend


def use(backend: Backend) -> None:
    """Import Keras on `backend`, with the settings of all numbers in this project.

    After this call, `keras.json` and Keras's environment variables (another float type, epsilon
    or data format, a limit of epochs) change no number.
    """
    name = backend.name
    running = sys.modules["keras"].backend.backend() if "keras" in sys.modules else name
    if running != name:
        raise BackendError(
            f"Keras already runs on {running!r} in this process; {name!r} needs a new one"
        )
    before = os.environ.get("KERAS_BACKEND")
    # TensorFlow may import Keras, which reads this only once.
    os.environ["KERAS_BACKEND"] = name
    # TensorFlow reads its log level while it is imported: errors only.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        importlib.import_module(name)
    except Exception as error:
        del os.environ["KERAS_BACKEND"]
        if before is not None:
            os.environ["KERAS_BACKEND"] = before
        raise BackendError(f"{name!r} is installed but does not import: {reason(error)}") from error
    if name == "torch":
        _reuse_large_blocks()

    try:
        import keras
    except Exception as error:
        raise BackendError(f"Keras does not import (or its keras.json): {reason(error)}") from error

    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def _reuse_large_blocks() -> None:
    """Tell glibc to keep freed blocks of up to 1 GiB instead of returning them to the system.

    Eager PyTorch allocates every intermediate result anew. The original's CNN has a kernel of
    75 MB, and glibc maps each block beyond 32 MB anew, so that a step of the optimizer mostly
    waits for page faults. Measured on two cores, an epoch takes 0.84 s instead of 1.45 s.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # from malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(m_mmap_threshold, 2**30)
        mallopt(m_trim_threshold, 2**31 - 1)


def keras_home() -> Path:
    """Return the folder of Keras's settings and downloads, without importing Keras."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def versions() -> dict[str, str]:
    """Return the versions that decide a run's numbers: of this package, Keras, NumPy, backend."""
    import keras

    name = keras.backend.backend()
    packages = ("mnist-keras", "keras", "numpy")
    found = {package: importlib.metadata.version(package) for package in packages}
    return found | {"backend": name, name: str(sys.modules[name].__version__)}
