"""The package: what importing it costs, and its public names."""

import subprocess
import sys

import keras
import pytest

import mnist_keras


def python(code, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, **kwargs
    ).stdout.strip()


def test_import_costs_nothing():
    """Importing the package imports no Keras, backend or NumPy and changes no global state."""
    code = """
import logging, os, sys, warnings
before = dict(os.environ), list(warnings.filters), logging.root.level, list(logging.root.handlers)
import mnist_keras
heavy = {"keras", "jax", "tensorflow", "torch", "numpy", "sklearn", "matplotlib", "PIL", "click"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert before == (
    dict(os.environ), list(warnings.filters), logging.root.level, list(logging.root.handlers)
)
"""
    assert python(code) == ""


def test_help_imports_no_keras():
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
    assert python(code).endswith("[]")


def test_public_names_resolve():
    """Every public name can be imported, and an unknown one is an AttributeError."""
    for name in mnist_keras.__all__:
        assert getattr(mnist_keras, name) is not None
    assert set(mnist_keras.__all__) <= set(dir(mnist_keras))
    with pytest.raises(AttributeError, match="attribute FocalLos"):
        _ = mnist_keras.FocalLos


@pytest.mark.parametrize("first", ["keras, mnist_keras", "mnist_keras, keras"])
def test_saved_model_loads_in_a_process_that_only_imports_the_package(first, tmp_path):
    """A saved model finds our classes in whichever order the two packages are imported."""
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), mnist_keras.SpatialDropout2D(0.5), keras.layers.Flatten()]
    )
    model.compile(mnist_keras.RAdam(), mnist_keras.FocalLoss(from_logits=True))
    model.save(tmp_path / "model.keras")

    code = f"""
import {first}
model = keras.models.load_model({str(tmp_path / "model.keras")!r})
print(type(model.loss).__name__, type(model.optimizer).__name__, type(model.layers[0]).__name__)
"""
    assert python(code).splitlines()[-1] == "FocalLoss RAdam SpatialDropout2D"
