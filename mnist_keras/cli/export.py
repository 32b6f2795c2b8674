"""`mnist-keras export`: a trained model for another runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnist_keras.cli import options

if TYPE_CHECKING:
    from mnist_keras.inference.export import FormatName


@click.command(epilog=options.example("mnist-keras export model.keras --format onnx"))
@options.model
@click.option(
    "--format",
    type=options.LazyChoice("mnist_keras.inference.export:FormatName"),
    required=True,
    help="ONNX, TensorFlow's SavedModel, LiteRT (.tflite), or PyTorch's ExportedProgram (.pt2).",
)
@click.option(
    "-o",
    "--output",
    type=options.NamedPath(path_type=Path),
    metavar="PATH",
    help="File or folder to write. Default: the model's name with the suffix of the format.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
@options.backend
def export(
    model: Path, format: "FormatName", output: Path | None, overwrite: bool, backend: str | None
) -> None:
    """Write a model for another runtime that gives the same logits.

    onnx needs TensorFlow or PyTorch, saved_model and litert need TensorFlow, torch needs PyTorch.
    The model may have been trained on any backend. The exported model takes images with values in
    0…1, channels last, in batches of any size, and gives logits.
    """
    options.use_backend(backend)
    import keras

    from mnist_keras._foundations.files import shown_names
    from mnist_keras.inference.export import FORMATS, check, export_model, replaceable
    from mnist_keras.inference.model_file import load_model

    check(format, keras.backend.backend())
    output = output or model.with_name(f"{model.stem}{FORMATS[format].suffix}")
    if not replaceable(output, format) or (output.exists() and output.samefile(model)):
        raise click.UsageError(f"{output}: only an earlier {format} export is replaced")
    options.check_output(output, overwrite)
    trained = load_model(model)
    difference = export_model(trained.model, format, output, trained.card.class_names)
    shape = "×".join(map(str, trained.card.input.form.shape))
    click.echo(f"{output}: logits differ by at most {difference:.1e} of the largest")
    click.echo(f"takes float32 images of {shape}, levels / 255")
    click.echo(f"classes: {', '.join(shown_names(trained.card.class_names))}")
