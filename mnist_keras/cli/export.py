"""`mnist-keras export`: a trained model for another runtime."""

from pathlib import Path

import click

from mnist_keras.cli import options


@click.command()
@options.model
@click.option(
    "--format",
    "format",
    type=click.Choice(["onnx", "saved_model", "litert", "torch"]),
    required=True,
    help="ONNX, TensorFlow's SavedModel, LiteRT (.tflite), or PyTorch's ExportedProgram (.pt2).",
)
@click.option(
    "-o",
    "--output",
    type=options.NamedPath(path_type=Path),
    metavar="PATH",
    help="Default: the model's name with the suffix of the format.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@options.backend
def export(
    model: Path, format: str, output: Path | None, overwrite: bool, backend: str | None
) -> None:
    """Write a model for another runtime, once that runtime has given the same logits.

    onnx needs TensorFlow or PyTorch, saved_model and litert TensorFlow, torch PyTorch; the model
    may have been trained on any backend. The exported model takes batches of any size of images
    with values in 0…1, channels last, and gives logits.
    """
    options.use_backend(backend)
    import keras

    import mnist_keras.inference.export as runtimes
    from mnist_keras._foundations.files import check_writable
    from mnist_keras.inference.model_file import load_model

    runtimes.check(format, keras.backend.backend())
    if output is None:
        output = model.with_name(f"{model.stem}{runtimes.FORMATS[format].suffix}")
    if not output.parent.is_dir():
        raise click.UsageError(f"--output: no such folder: {output.parent}")
    if not runtimes.replaceable(output, format) or (output.exists() and output.samefile(model)):
        raise click.UsageError(f"{output} is no {format} that could be replaced")
    check_writable(output)
    if output.exists() and not overwrite:
        raise click.UsageError(f"{output} is there already; --overwrite replaces it")
    trained = load_model(model)
    difference = runtimes.export_model(trained.model, format, output)
    form = trained.card.input.form
    click.echo(f"{output}: logits differ by {difference:.1e} of the largest at most")
    click.echo(f"takes float32 images of {'×'.join(map(str, form.shape))}, levels / 255")
    click.echo(f"classes: {', '.join(trained.card.class_names)}")
