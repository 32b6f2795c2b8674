"""Choosing the backend, before anything imports Keras."""

import json
import os
import re
import subprocess
import sys

import keras
import pytest

from mnist_keras._foundations import backends

RUNNING = keras.backend.backend()


@pytest.fixture
def machine(monkeypatch):
    """A machine on which the given backends are installed."""
    monkeypatch.delenv("KERAS_BACKEND")

    def install(*names):
        monkeypatch.setattr("importlib.util.find_spec", dict.fromkeys(names, "found").get)

    return install


def test_option_before_environment_before_first_installed(machine, monkeypatch):
    """--backend beats KERAS_BACKEND, which beats the first of jax, tensorflow, torch."""
    machine("tensorflow", "torch")
    assert backends.choose() == backends.Backend("tensorflow", "first installed")
    monkeypatch.setenv("KERAS_BACKEND", "")
    assert backends.choose().name == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backends.choose() == backends.Backend("torch", "KERAS_BACKEND")
    assert backends.choose("tensorflow") == backends.Backend("tensorflow", "--backend")


@pytest.mark.parametrize(
    ("installed", "name", "message"),
    [
        (["jax"], "numpy", "--backend: 'numpy' cannot train"),
        (["jax"], "openvino", "--backend: 'openvino' cannot train"),
        (["jax"], "JAX", "unknown backend 'JAX'. Did you mean 'jax'?"),
        (["jax"], "tensorfow", "unknown backend 'tensorfow'. Did you mean 'tensorflow'?"),
        (["jax"], "mxnet", "unknown backend 'mxnet'. Choose one of jax, tensorflow, torch"),
        (["jax"], "", "unknown backend ''"),
        (["jax"], "torch", "'torch' is not installed (installed: jax). Install it: pip install"),
        ([], None, 'pip install "mnist-keras[jax]"'),
    ],
)
def test_unusable_names(machine, installed, name, message):
    """A name that is unknown, cannot train or is not installed is refused with what to do."""
    machine(*installed)
    with pytest.raises(backends.BackendError, match=re.escape(message)):
        backends.choose(name)


def test_other_backend_than_the_running_one():
    """A process in which Keras runs on one backend refuses another."""
    other = next(name for name in backends.TRAINABLE if name != RUNNING)
    with pytest.raises(backends.BackendError, match=f"already runs on '{RUNNING}'"):
        backends.use(backends.Backend(other, "--backend"))


WHICH = """
import sys
from mnist_keras._foundations import backends
backends.use(backends.choose(sys.argv[1]))
import keras
print(keras.backend.backend())
"""


@pytest.mark.several_backends
@pytest.mark.parametrize("name", backends.installed())
def test_keras_runs_on_what_the_option_names(name, python):
    """TensorFlow imports Keras, which would take what `KERAS_BACKEND` named until then."""
    other = next(backend for backend in backends.TRAINABLE if backend != name)
    assert python("-c", WHICH, name, environment={"KERAS_BACKEND": other}).strip() == name


def test_broken_backend_is_one_line_and_exit_4(tmp_path):
    """A backend that does not import is named with its reason, without a traceback."""
    (tmp_path / f"{RUNNING}.py").write_text("raise ImportError('libfoo.so: no such file')")
    arguments = ("-m", "mnist_keras", "run", "--source", "digits", "--output", tmp_path)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env)
    assert result.returncode == 4
    expected = f"Error: '{RUNNING}' is installed but does not import: libfoo.so: no such file"
    assert result.stderr.strip() == expected


@pytest.mark.slow
def test_keras_json_and_caps_change_no_number(tmp_path, write_experiment, invoke, python):
    """Another data format, float type, epsilon or a cap on epochs leaves every number alone."""
    experiment = write_experiment(tmp_path, {"name": "Basic Net"})
    settings = {"floatx": "float16", "epsilon": 0.1, "backend": "numpy"}
    settings["image_data_format"] = "channels_first"
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    caps = {"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
    run = ("run", experiment, "--source", "digits", "--seeds", 1, "--output")
    odd = caps | {"KERAS_HOME": str(tmp_path)}
    invoke(*run, tmp_path / "plain")
    python("-m", "mnist_keras", *run, tmp_path / "odd", environment=odd)
    tables = [json.loads((tmp_path / d / "tables.json").read_text()) for d in ("plain", "odd")]
    (plain_arm,), (odd_arm,) = (table["experiments"][0]["arms"] for table in tables)
    assert len(odd_arm["loss"][0]) == 2
    assert odd_arm["loss"] == plain_arm["loss"]
    assert odd_arm["heldout"] == plain_arm["heldout"]
