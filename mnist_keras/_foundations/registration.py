"""Make our classes known to Keras, whichever of the two packages is imported first.

Keras loads a saved model only if the modules of its custom classes were imported. The package
does not import Keras. It waits until Keras is imported, and then imports these modules.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

# Each module of the package that registers classes with Keras.
MODULES = (
    *("losses.focal", "losses.two_views", "models.siamese", "optimizers"),
    *("portable.dropout", "portable.initializers"),
)


def with_keras() -> None:
    """Import the modules that register classes, now or as soon as Keras is imported."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterKeras())


def _register() -> None:
    for name in MODULES:
        importlib.import_module(f"mnist_keras.{name}")


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Waits until Keras has been imported, and registers our classes then.

    Until then it stays: others, such as TensorFlow, only ask where Keras is.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "keras":
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in finders)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
