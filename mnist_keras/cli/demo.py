"""`mnist-keras demo`: draw a digit in the browser and see what a model makes of it."""

import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

import click

from mnist_keras.cli.data_options import source_images
from mnist_keras.cli.options import NamedPath, backend_option, use_backend
from mnist_keras.cli.train import metric_lines, train_model
from mnist_keras.training.settings import Settings


@click.command()
@click.argument("model", type=NamedPath(path_type=Path), required=False)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Of the page's address; 0: any that is free.",
)
@click.option("--no-browser", is_flag=True, help="Open no browser; the address is printed.")
@backend_option
def demo(model: Path | None, port: int, no_browser: bool, backend: str | None) -> None:
    """Draw a digit and see at once what a model makes of it.

    MODEL is a file of `mnist-keras train`. Without one, the original's CNN is trained first,
    which takes about a minute, and not kept.

    The page shows the class, the probabilities of all classes, the drawing as the model takes it
    and what in it speaks for the class. It is served to this machine alone, until Ctrl-C.
    """
    use_backend(backend)
    trained = _trained(model)
    from mnist_keras.inference.demo import server

    click.echo("Making ready …", err=True)
    try:
        serving = server(trained, port)
    except OSError as error:
        raise click.UsageError(f"--port {port}: {error.strerror or error}") from error
    address = f"http://127.0.0.1:{serving.server_port}/"
    click.echo(address)
    click.echo("Draw there; Ctrl-C ends.", err=True)
    if not no_browser:
        # Some browsers run in the terminal, and would keep the page from being served.
        threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
    with serving:
        serving.serve_forever()


def _trained(model: Path | None) -> Any:
    """Return the model of a file, or the original's CNN."""
    if model:
        from mnist_keras.inference.model_file import load_model

        return load_model(model)
    images = source_images()
    for warning in images.warnings:
        click.echo(warning, err=True)
    trained = train_model(Settings(), 0, images.of(0))
    if trained is None:
        sys.exit(6)
    for line in metric_lines(trained.card.metrics):
        click.echo(line, err=True)
    return trained
