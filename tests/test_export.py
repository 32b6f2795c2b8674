"""Exported models: every pair of format and backend that is offered, in its own runtime."""

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import mnist_keras.inference.export as runtimes
from mnist_keras._foundations.backends import BackendError
from mnist_keras._foundations.files import FileError
from mnist_keras.inference.export import FORMATS, ExportError, export_model
from mnist_keras.models.prediction import predict

BACKEND = keras.backend.backend()
HERE = [name for name, about in FORMATS.items() if BACKEND in about.backends]
# Exporters use parts of NumPy and of their frameworks that are deprecated; loading does, too.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("format", HERE)
@pytest.mark.parametrize("model", ["basic_net", pytest.param("small_cnn", marks=pytest.mark.slow)])
def test_the_runtime_gives_the_same_logits(model, format, trained, digits_data, tmp_path):
    """Loaded by its runtime, the file gives the logits of genuine images, one or many at a time."""
    for package in FORMATS[format].backends[BACKEND]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    path = tmp_path / f"model{FORMATS[format].suffix}"
    assert export_model(trained(model).model, format, path) <= 1e-5
    images = digits_data.heldout.images[:100]
    expected = predict(trained(model).model, images)
    run = FORMATS[format].run(path)
    for n in (100, 1):
        found = run(images[:n].astype("float32") / 255)
        np.testing.assert_allclose(found, expected[:n], atol=1e-5 * np.abs(expected).max())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif("onnx" not in HERE, reason="ONNX is not exported here")
def test_onnx_says_what_is_what(trained, tmp_path):
    """Input, output and the size of a batch are named, and so are the classes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    names = ["zero", "eins", '"2"', *map(str, range(3, 10))]
    export_model(trained("basic_net").model, "onnx", tmp_path / "model.onnx", names)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (takes,), (gives,) = session.get_inputs(), session.get_outputs()
    assert (takes.name, takes.shape) == ("images", ["batch", 28, 28, 3])
    assert (gives.name, gives.shape) == ("logits", ["batch", 10])
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == names


@pytest.mark.parametrize("format", [format for format in FORMATS if format not in HERE])
def test_other_backends_are_named(format, trained, tmp_path):
    """A pair that is not offered says which backend to use."""
    with pytest.raises(BackendError, match=r"--backend (torch|tensorflow)"):
        export_model(trained("basic_net").model, format, tmp_path / "model")


@pytest.mark.any_backend
def test_missing_packages_are_named(monkeypatch):
    """What is not installed is named with the line that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for format, names in (("onnx", "onnx tf2onnx onnxruntime"), ("litert", "ai-edge-litert")):
        with pytest.raises(BackendError, match=f"pip install {names}"):
            runtimes.check(format, "tensorflow")


@pytest.fixture
def copying(monkeypatch):
    """The function that makes `onnx` a format whose runtime adds an error to the logits."""

    def make(model, error):
        about = runtimes.Format(
            ".onnx",
            {BACKEND: ()},
            lambda model, path, names: path.write_bytes(b"exported"),
            lambda path: lambda x: model.predict_on_batch(x) + np.float32(error),
        )
        monkeypatch.setitem(FORMATS, "onnx", about)

    return make


@pytest.mark.parametrize("error", [0.1, float("nan")])
def test_a_runtime_that_differs_is_refused(error, copying, trained, tmp_path):
    """If the logits differ, nothing is written and what was there stays."""
    model = trained("basic_net").model
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    copying(model, error)
    with pytest.raises(ExportError, match="logits differ"):
        export_model(model, "onnx", path)
    assert path.read_bytes() == b"old"
    copying(model, 0.0)
    assert export_model(model, "onnx", path) < 1e-5
    assert path.read_bytes() == b"exported"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_only_its_own_kind_is_replaced(copying, trained, tmp_path):
    """A folder is not deleted for a file, nor any folder for a SavedModel."""
    model = trained("basic_net").model
    copying(model, 0.0)
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "photos", tmp_path / "photos" / "..", Path()):
        with pytest.raises(FileError, match="only an earlier onnx export is replaced"):
            export_model(model, "onnx", path)
    assert not runtimes.replaceable(tmp_path / "photos", "saved_model")
    assert not runtimes.replaceable(Path(), "saved_model")
    (tmp_path / "photos" / "saved_model.pb").touch()
    assert runtimes.replaceable(tmp_path / "photos", "saved_model")
    assert runtimes.replaceable(tmp_path / "new", "saved_model")


def test_a_failing_exporter_is_one_line(trained, tmp_path, monkeypatch):
    """Whatever an exporter raises, the file is named and no part of it is left."""

    def fail(model, path, names):
        path.write_bytes(b"half")
        raise RuntimeError("disk full\nand more")

    monkeypatch.setitem(FORMATS, "onnx", runtimes.Format(".onnx", {BACKEND: ()}, fail, None))
    with pytest.raises(FileError, match=r"cannot be written: disk full$"):
        export_model(trained("basic_net").model, "onnx", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_command(model_file, invoke, tmp_path):
    """The command names what it wrote, or what to use instead; nothing is overwritten unasked."""
    if not HERE:
        result = invoke("export", model_file("basic_net"), "--format", "onnx", code=4)
        assert "--backend torch or --backend tensorflow" in result.stderr
        return
    format = "torch" if BACKEND == "torch" else "saved_model"
    path = tmp_path / "exported"
    arguments = ("export", model_file("basic_net"), "--format", format, "-o", path)
    result = invoke(*arguments)
    assert result.stdout.startswith(f"{path}: logits differ by ")
    assert "28×28×3" in result.stdout
    assert "--overwrite replaces it" in invoke(*arguments, code=2).stderr
    invoke(*arguments, "--overwrite")
