"""The command line: each command parses, sets the backend, calls the library and prints."""

import errno
import io
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from mnist_keras.cli.check import check
from mnist_keras.cli.compare import compare
from mnist_keras.cli.data import data
from mnist_keras.cli.demo import demo
from mnist_keras.cli.evaluate import evaluate
from mnist_keras.cli.explain import explain
from mnist_keras.cli.export import export
from mnist_keras.cli.list import list_experiments
from mnist_keras.cli.predict import predict
from mnist_keras.cli.pretrain import pretrain
from mnist_keras.cli.report import report
from mnist_keras.cli.run import run
from mnist_keras.cli.train import train


def _exit_code(error: Exception) -> int | None:
    """Return the documented exit code of an error of the library."""
    from mnist_keras._foundations.backends import BackendError
    from mnist_keras._foundations.files import FileError
    from mnist_keras.datasets.images import DataError
    from mnist_keras.training.record import DivergedError
    from mnist_keras.training.settings import ExperimentError

    codes: dict[type, int] = {
        ExperimentError: 2,
        FileError: 2,
        DataError: 3,
        BackendError: 4,
        DivergedError: 6,
    }
    # It imports Keras: where it is not imported, its error is not raised.
    if explanations := sys.modules.get("mnist_keras.explanations.maps"):
        codes[explanations.ExplanationError] = 2
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # the output's, e.g.
        return 2
    return next((code for kind, code in codes.items() if isinstance(error, kind)), None)


_STOPPED = (130, 143)  # Ctrl-C, SIGTERM


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nStopped by Ctrl-C.", err=True)
            sys.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            refusal = click.ClickException(str(error))
            setattr(refusal, "exit_code", code)  # noqa: B010 (click declares it for the class)
            raise refusal from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mnist-keras", prog_name="mnist-keras")
def cli() -> None:
    """Reproduce and check a small-data MNIST report on JAX, TensorFlow or PyTorch.

    Exit codes: 0 done, 1 unexpected, 2 usage, 3 data refused, 4 backend missing or
    unusable, 5 claims not supported (run, report) or runs not the same (compare), 6 finished
    but some runs diverged or failed, 130 Ctrl-C, 143 SIGTERM.
    """


cli.add_command(run)
cli.add_command(report)
cli.add_command(compare)
cli.add_command(check)
cli.add_command(data)
cli.add_command(train)
cli.add_command(pretrain)
cli.add_command(predict)
cli.add_command(evaluate)
cli.add_command(explain)
cli.add_command(export)
cli.add_command(demo)
cli.add_command(list_experiments)


def main() -> None:
    """Run the program."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names in a script that the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="mnist-keras")
    except SystemExit as end:
        if end.code in _STOPPED:
            # A backend stopped in the middle of a step may crash while Python takes it down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    click.echo("Stopped by SIGTERM.", err=True)
    sys.exit(128 + number)
