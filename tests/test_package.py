"""The package: what importing it costs, and its public names."""

import inspect
import tomllib
from pathlib import Path

import keras
import pytest

import mnist_keras
from mnist_keras import FocalLoss
from mnist_keras._foundations import registration
from mnist_keras.losses import NTXent, VICReg


@pytest.mark.several_backends
@pytest.mark.parametrize(
    ("before", "module", "allowed"),
    [("sys", "mnist_keras", "sys.stdlib_module_names"), ("keras", "mnist_keras.losses", "set()")],
)
def test_import_costs_nothing(before, module, allowed, python):
    """Importing adds no package but our lazy loader, even to Keras, and changes no global state."""
    code = f"""
import logging, os, sys, warnings
import {before}
def state():
    torch, keras = (sys.modules.get(name) for name in ("torch", "keras"))
    types = torch and torch.is_grad_enabled(), keras and keras.config.floatx()
    filters, handlers = [*warnings.filters], [*logging.root.handlers]
    return dict(os.environ), filters, logging.root.level, handlers, types
before, modules = state(), set(sys.modules)
import {module}
assert state() == before
new, old = ({{name.split(".")[0] for name in names}} for names in (sys.modules, modules))
print(sorted(new - old - {allowed}))
"""
    assert python("-c", code).strip() == "['lazy_loader', 'mnist_keras']"


def test_help_imports_no_keras(python):
    """The help is shown without Keras, NumPy or a backend."""
    code = """
import sys
from mnist_keras.cli import cli
try:
    cli(["--help"])
except SystemExit:
    pass
print(sorted({"keras", "jax", "tensorflow", "torch", "numpy"} & set(sys.modules)))
"""
    assert python("-c", code).endswith("[]\n")


def test_public_names_resolve():
    """Every public name can be imported, and an unknown one is an AttributeError."""
    for name in mnist_keras.__all__:
        assert getattr(mnist_keras, name) is not None
    assert set(mnist_keras.__all__) <= set(dir(mnist_keras))
    with pytest.raises(AttributeError, match="attribute FocalLos"):
        _ = mnist_keras.FocalLos


KERAS_NAMES = [
    (module, name)
    for module in (keras.initializers, keras.layers, keras.optimizers)
    for name in mnist_keras.__all__
    if hasattr(module, name)
]


def parameters(function):
    """Return the names, kinds and defaults of what a function takes, but for `**kwargs`."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found if p.kind != p.VAR_KEYWORD]


@pytest.mark.any_backend
@pytest.mark.parametrize(("module", "name"), KERAS_NAMES)
def test_what_bears_kerass_name_takes_kerass_arguments(module, name):
    """Order and defaults are Keras's, whose configurations load; what is ours has to be named."""
    ours, theirs = getattr(mnist_keras, name), getattr(module, name)
    for method in ("__init__", "__call__" if module is keras.initializers else "build"):
        found, right = parameters(getattr(ours, method)), parameters(getattr(theirs, method))
        assert found[: len(right)] == right
        assert {kind for _, kind, _ in found[len(right) :]} <= {inspect.Parameter.KEYWORD_ONLY}
    config = theirs(*([0.5] if module is keras.layers else [])).get_config()
    again = ours.from_config(config).get_config()
    # Keras's spatial dropout forgets that a dtype is mixed.
    assert {**again, "dtype": None} == {**again, **config, "dtype": None}


LOSSES = FocalLoss(from_logits=True), NTXent(), VICReg()


IN_ANY_ORDER = [
    "import keras, mnist_keras",
    # Others, TensorFlow among them, only ask where Keras is, some more than once.
    "import importlib.util, mnist_keras; find = importlib.util.find_spec; find('keras');"
    "find('keras'); import keras",
    "import importlib.util, mnist_keras; importlib.util.find_spec('keras.saving'); import keras",
    "import mnist_keras; from keras.src import saving; import keras",
]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("import mnist_keras, keras", marks=pytest.mark.several_backends),
        *(pytest.param(first, marks=pytest.mark.any_backend) for first in IN_ANY_ORDER),
    ],
)
def test_saved_models_load_in_a_process_that_only_imports_the_package(first, tmp_path, python):
    """Saved models find our classes in whichever order the two packages are imported."""
    for loss in LOSSES:
        layers = mnist_keras.SpatialDropout2D(0.5), keras.layers.Flatten()
        model = keras.Sequential([keras.Input((4, 4, 3)), *layers])
        model.compile(mnist_keras.RAdam(), loss)
        model.save(tmp_path / f"{type(loss).__name__}.keras")

    code = f"""
{first}
from pathlib import Path
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    model = keras.models.load_model(path)
    print(*(type(part).__name__ for part in (model.loss, model.optimizer, model.layers[0])))
"""
    expected = [f"{type(loss).__name__} RAdam SpatialDropout2D" for loss in LOSSES]
    assert python("-c", code).splitlines()[-3:] == expected


def test_every_module_with_registered_classes_is_imported_with_keras():
    """The list of modules is complete: Keras's decorator is in no other."""
    package = Path(mnist_keras.__file__).parent
    found = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if "\n@keras.saving.register_keras_serializable" in path.read_text()
    }
    assert found == set(registration.MODULES)


@pytest.mark.any_backend
def test_the_oldest_versions_are_the_bounds_of_pyproject():
    """The environment `oldest` installs the least that pyproject.toml allows, on JAX."""
    tests = Path(__file__).parent
    project = tomllib.loads((tests.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    bounds = [*project["dependencies"], *extras["jax"], *extras["demo"]]
    oldest = (tests / "oldest.txt").read_text("utf-8").splitlines()[1:]
    assert oldest == sorted(bound.replace(">=", "==") for bound in bounds)
