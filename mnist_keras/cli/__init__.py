"""The command line: each command parses, sets the backend, calls the library and prints."""

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from mnist_keras._foundations import stopping
from mnist_keras.cli import options
from mnist_keras.cli.check import check
from mnist_keras.cli.compare import compare
from mnist_keras.cli.data import data
from mnist_keras.cli.demo import demo
from mnist_keras.cli.doctor import doctor
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


class _Terminated(SystemExit):
    code = 128 + signal.SIGTERM


@click.command("help", epilog=options.example("mnist-keras help train"))
@click.argument("command", required=False)
@click.pass_context
def help_of(ctx: click.Context, command: str | None) -> None:
    """Show the help of a command."""
    context = ctx.find_root()
    if command is not None:
        _, found, _ = cli.resolve_command(context, [command])
        assert found  # else it was refused
        context = click.Context(found, info_name=command, parent=context)
    click.echo(context.get_help())


# What one does, and the commands for it.
_SECTIONS = {
    "Reproduce and check": (list_experiments, run, report, compare),
    "Your own images": (data, check),
    "Your own model": (train, pretrain, predict, evaluate, export),
    "Look inside": (explain, demo),
    "This program": (doctor, help_of),
}


class _Commands(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in _SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(str(c.name), c.get_short_help_str(200)) for c in commands])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            stopping.check()
            return result
        except KeyboardInterrupt:
            click.echo("\nStopped by Ctrl-C.", err=True)
            sys.exit(130)
        except _Terminated:
            click.echo("Stopped by SIGTERM.", err=True)
            raise
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


for commands in _SECTIONS.values():
    for command in commands:
        cli.add_command(command)


def main() -> None:
    """Run the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names in a script that the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            cli(prog_name="mnist-keras")
    except SystemExit as end:
        if end.code in (130, 143):  # Ctrl-C, SIGTERM
            # A backend stopped in the middle of a step may crash while Python takes it down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise


# Signals that are nearer to each other are one: `timeout` sends SIGTERM to a process and its group.
_SECONDS_BETWEEN_SIGNALS = 0.3


@contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop what is done within, and a second one end the process at once."""
    first = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not first:
            first = time.monotonic()
            stopping.ask(KeyboardInterrupt() if number == signal.SIGINT else _Terminated())
        elif time.monotonic() - first > _SECONDS_BETWEEN_SIGNALS:
            os._exit(128 + number)

    def say(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, (KeyboardInterrupt, _Terminated)):
            others(unraisable)  # a stop that was lost here is raised again elsewhere

    others, sys.unraisablehook = sys.unraisablehook, say
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        sys.unraisablehook = others
        for number, handler in before.items():
            signal.signal(number, handler)
        stopping.forget()
