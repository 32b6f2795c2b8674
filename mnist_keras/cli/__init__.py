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

# By name: where the module of an error was not imported, the error is not raised.
_CODES = {
    "ExperimentError": 2,
    "ExplanationError": 2,
    "FileError": 2,
    "DataError": 3,
    "BackendError": 4,
    "DivergedError": 6,
}


def _exit_code(error: Exception) -> int | None:
    """Return the documented exit code of an error of the library."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # the output's, e.g.
        return 2
    kinds = (kind.__name__ for kind in type(error).__mro__)
    return next((_CODES[name] for name in kinds if name in _CODES), None)


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
    """Reproduce and check a small-data MNIST paper on JAX, TensorFlow or PyTorch.

    Exit codes: 0 done, 1 unexpected, 2 usage, 3 data refused, 4 backend missing or
    unusable, 5 claims not supported (run, report) or runs not the same (compare), 6 finished
    but some runs diverged or failed, 130 Ctrl-C, 143 SIGTERM.
    """


for command in (
    *(run, report, compare, check, data, train, pretrain, predict),
    *(evaluate, explain, export, demo, list_experiments),
):
    cli.add_command(command)


def main() -> None:
    """Run the program."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names in a script that the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="mnist-keras")
    except SystemExit as end:
        if end.code in (130, 143):  # Ctrl-C, SIGTERM
            # A backend stopped in the middle of a step may crash while Python takes it down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    click.echo("Stopped by SIGTERM.", err=True)
    sys.exit(128 + number)
