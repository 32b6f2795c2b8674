"""`mnist-keras demo`: draw a digit in the browser and see what a model makes of it."""

import threading
import time
import webbrowser
from pathlib import Path
from typing import Any

import click

from mnist_keras.cli import options
from mnist_keras.cli.data_options import seed_images
from mnist_keras.cli.progress import progress


@click.command(epilog=options.example("mnist-keras demo model.keras"))
@click.argument("model", type=options.NamedPath(path_type=Path), required=False)
@options.number("--port", 0, "Port of the page's address; 0 takes any free one.", most=65535)
@click.option("--no-browser", is_flag=True, help="Print the address without opening a browser.")
@options.backend
def demo(model: Path | None, port: int, no_browser: bool, backend: str | None) -> None:
    """Draw a digit and see at once what a model makes of it.

    MODEL is a file of `mnist-keras train`. Without one, the original's CNN is trained first. That
    takes about a minute, and the model is not kept.

    The page shows the class, the probabilities of all classes, the drawing as the model takes it,
    and what in the drawing speaks for the class. It is served to this machine alone, until Ctrl-C.
    """
    options.use_backend(backend)
    from mnist_keras.inference.demo import listen, serving

    try:
        listener = listen(port)
    except OSError as error:
        raise click.UsageError(f"--port {port}: {error.strerror or error}") from error
    with listener:
        trained = _trained(model)
        click.echo("Preparing the page …", err=True)
        with serving(trained, listener) as address:
            click.echo(address)
            click.echo("Draw there; Ctrl-C stops the program.", err=True)
            if not no_browser:
                # Some browsers run in the terminal, and return only when they are closed.
                threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
            while True:
                time.sleep(1)


def _trained(model: Path | None) -> Any:
    """Return the model of a file, or the original's CNN."""
    if model:
        from mnist_keras.inference.model_file import load_model

        return load_model(model)
    from mnist_keras.inference.trained_model import train_model
    from mnist_keras.training.run import Run
    from mnist_keras.training.settings import Settings

    data, run = seed_images().of(0), Run.whole(Settings(), 0)
    with progress([run]) as show:
        trained = train_model(run.settings, run.seed, data, on_epoch=show(run))
    click.echo(trained.card.metrics, err=True)
    return trained
