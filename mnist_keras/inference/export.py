"""Trained models for other runtimes: exported, loaded there, and compared with ours."""

import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mnist_keras._foundations.backends import BackendError
from mnist_keras._foundations.files import FileError, reason, whole
from mnist_keras._foundations.seeds import generator

# Keras is imported by the functions that need it, so that the command line can ask for the names.
if TYPE_CHECKING:
    import keras

FormatName = Literal["onnx", "saved_model", "litert", "torch"]

# Difference of logits, relative to the largest one (or 1), that rounding explains.
TOLERANCE = 1e-5
_COMPARED = 64
_SAVED_MODEL = "_saved_model"  # a folder; the other formats are files


class ExportError(BackendError):
    """An exported file whose outputs differ from the model's."""


_Runtime = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Format:
    """A format that models are exported to, for batches of any size.

    `run` loads a file in its own runtime and returns the function from images to logits.
    """

    suffix: str
    backends: Mapping[str, Sequence[str]]  # the tested ones, each with the packages that it needs
    export: "Callable[[keras.Model, Path, Sequence[str]], None]"  # of a model with these classes
    run: Callable[[Path], _Runtime]


def _export(
    format: str, model: "keras.Model", path: Path, class_names: Sequence[str] = (), **options: Any
) -> None:
    model.export(str(path), format=format, verbose=False, **options)


def _export_onnx(model: "keras.Model", path: Path, class_names: Sequence[str]) -> None:
    import keras
    import onnx

    signature = [keras.InputSpec(shape=model.input_shape, dtype="float32", name="images")]
    _export("onnx", model, path, input_signature=signature)
    written = onnx.load(path)
    images, logits = written.graph.input[0], written.graph.output[0]
    for node in written.graph.node:  # the exporters' own names say nothing
        for names in (node.input, node.output):
            names[:] = ["logits" if name == logits.name else name for name in names]
    logits.name = "logits"
    for value in (images, logits):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(written, {"class_names": json.dumps(list(class_names))})
    onnx.save(written, path)


def _run_onnx(path: Path) -> _Runtime:
    # Otherwise, its import leaves a note in the user's cache.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def _run_saved_model(path: Path) -> _Runtime:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda x: loaded.serve(x).numpy()


def _run_litert(path: Path) -> _Runtime:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    takes, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(takes["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(takes["index"], x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(gives["index"]))

    return run


def _export_torch(model: "keras.Model", path: Path, class_names: Sequence[str]) -> None:
    import torch

    _export("torch", model, path, dynamic_shapes={0: torch.export.Dim("batch")})


def _run_torch(path: Path) -> _Runtime:
    import torch

    module = torch.export.load(str(path)).module()
    return lambda x: module(torch.from_numpy(x)).detach().numpy()


_TO_ONNX = {"torch": ("onnx", "onnxruntime"), "tensorflow": ("onnx", "tf2onnx", "onnxruntime")}
_TO_LITERT = {"tensorflow": ("ai_edge_litert",)}
_export_saved_model = partial(_export, "tf_saved_model")

FORMATS: dict[FormatName, Format] = {
    "onnx": Format(".onnx", _TO_ONNX, _export_onnx, _run_onnx),
    "saved_model": Format(_SAVED_MODEL, {"tensorflow": ()}, _export_saved_model, _run_saved_model),
    "litert": Format(".tflite", _TO_LITERT, partial(_export, "litert"), _run_litert),
    "torch": Format(".pt2", {"torch": ()}, _export_torch, _run_torch),
}


def check(format: FormatName, backend: str) -> None:
    """Refuse a format that this backend and these packages do not export to."""
    known = FORMATS[format].backends
    if backend not in known:
        others = " or ".join(f"--backend {name}" for name in known)
        raise BackendError(
            f"{format} is not exported on {backend}. A model is the same on every backend: {others}"
        )
    missing = [name for name in known[backend] if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(name.replace("_", "-") for name in missing)
        raise BackendError(f"{format} on {backend} needs more packages: pip install {packages}")


def replaceable(path: Path, format: FormatName) -> bool:
    """Return whether an export may be written there: it replaces only exports of its format."""
    is_free = not path.is_dir()
    if FORMATS[format].suffix == _SAVED_MODEL:
        is_free = not path.exists() or (path / "saved_model.pb").is_file()
    return bool(path.name) and is_free


def export_model(
    model: "keras.Model", format: FormatName, path: Path, class_names: Sequence[str] = ()
) -> float:
    """Export a model, load the file in its own runtime, and compare the logits of random images.

    Args:
        model: Model from images with values in 0…1 to logits.
        format: Key of `FORMATS`.
        path: File or, for a SavedModel, folder to write; it appears only if the outputs agree.
        class_names: Name of each logit's class, which ONNX keeps as JSON in its metadata.

    Returns:
        The largest difference of a logit, relative to the largest logit or to 1.

    Raises:
        BackendError: As for `check`.
        ExportError: If the exported file gives other logits.
        FileError: If it cannot be written, or something else is there.
    """
    import keras

    if not replaceable(path, format):
        raise FileError(f"{path}: only an earlier {format} export is replaced")
    check(format, keras.backend.backend())
    about = FORMATS[format]
    with whole(path, about.suffix) as unfinished:
        try:
            difference = _difference(model, about, unfinished, class_names)
        except Exception as error:  # exporters raise almost anything, even on a full disk
            raise FileError(f"{path}: cannot be written: {reason(error)}") from error
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{path}: not written: the exported model's logits differ by {difference:.1e} of "
                f"the largest; {TOLERANCE:.0e} is allowed"
            )
    return difference


def _difference(
    model: "keras.Model", about: Format, path: Path, class_names: Sequence[str]
) -> float:
    """Export a model to a path, and return how much the logits differ there."""
    x = generator(0, "exported images").random((_COMPARED, *model.input_shape[1:]), np.float32)
    expected = model.predict_on_batch(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn about their own deprecated parts
        about.export(model, path, class_names)
        run = about.run(path)
        # Batches of three sizes: the file must not fix the size.
        found = np.concatenate([run(x[:1]), run(x[1:8]), run(x[8:])])
    return float(np.abs(found - expected).max() / max(1, np.abs(expected).max()))
