"""The options that several commands share, and short ways to make one."""

import os
import pkgutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from mnist_keras.datasets.choices import MAX_FILES, PER_CLASS, OnBad


class NamedPath(click.Path):
    """A path that is not empty: an unset variable of a shell names no folder."""

    def convert(self, value: Any, *context: Any) -> Any:
        """Return the path."""
        if value == "":
            self.fail("the path is empty", *context)
        return super().convert(value, *context)


class LazyChoice(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A word of a `Literal` whose module is imported when the option is used or explained.

    Args:
        place: Module and name, as `"package.module:Name"`.
    """

    name = "choice"

    def __init__(self, place: str):
        self._place = place

    @cached_property
    def _choice(self) -> "click.Choice[str]":
        return click.Choice(get_args(pkgutil.resolve_name(self._place)))

    def convert(self, value: Any, *context: Any) -> Any:
        """Return the word, or refuse it."""
        return self._choice.convert(value, *context)

    def get_metavar(self, *context: Any, **options: Any) -> str | None:
        """Return the words, as the help shows them."""
        return self._choice.get_metavar(*context, **options)


def example(*commands: str) -> str:
    """Return the end of a command's help: what one may type."""
    lines = "\n".join(f"  {command}" for command in commands)
    return f"\b\nExample{'s' * (len(commands) > 1)}:\n{lines}"


def number(
    flag: str, default: int | None, help: str, least: int = 0, **others: Any
) -> Callable[..., Any]:
    """Return an option that takes an integer."""
    kind = click.IntRange(least, others.pop("most", None))
    return click.option(
        flag, type=kind, default=default, show_default=default is not None, help=help, **others
    )


def word(flag: str, words: Any, default: str | None, help: str) -> Callable[..., Any]:
    """Return an option that takes a word of a sequence, of a `Literal` or of a `LazyChoice`."""
    kind: Any = LazyChoice(words) if isinstance(words, str) else None
    kind = kind or click.Choice(get_args(words) or words)
    name = flag.removeprefix("--").replace("-", "_")
    shown = default is not None
    return click.option(flag, name, type=kind, default=default, show_default=shown, help=help)


def folder(flag: str, help: str, *names: str, **others: Any) -> Callable[..., Any]:
    """Return an option that takes a folder that has a name."""
    return click.option(
        flag, *names, type=NamedPath(path_type=Path), metavar="DIR", help=help, **others
    )


model = click.argument("model", type=NamedPath(path_type=Path))
directory = click.argument("directory", metavar="DIR", type=NamedPath(path_type=Path))
backend = click.option(
    "--backend",
    metavar="NAME",
    help="jax, tensorflow or torch. Default: KERAS_BACKEND, else the first installed.",
)
idx = click.option(
    "--idx",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with the original IDX files (train and/or t10k, gzipped or not).",
)
per_class = number("--per-class", PER_CLASS, "Images drawn from each class.", 2)
max_files = number(
    "--max-files", MAX_FILES, "Files beyond which a folder is taken for the wrong one.", 1
)
invert = word(
    "--invert",
    "mnist_keras.inference.model_input:Invert",
    "auto",
    "Invert levels; auto: where the background is bright and that of the training images is "
    "dark, or the reverse.",
)
fit = word(
    "--fit",
    "mnist_keras.inference.model_input:Fit",
    "auto",
    "Find the ink and center it as in MNIST, or resize as in training; auto: ink for images of "
    "another size, unless training images were resized or their backgrounds differ.",
)
on_bad = word(
    "--on-bad", OnBad, "refuse", "What to do if files cannot be used: stop, or go on without them."
)
strict = click.option("--strict", is_flag=True, help="Exit with 5 unless every claim is supported.")
verbose = click.option(
    "--verbose",
    is_flag=True,
    help="On a terminal, show losses by epoch and costs, too; they are always in the files.",
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace a file that is there.")


def output(help: str) -> Callable[..., Any]:
    """Return the option that names the model's file to write."""
    kind = NamedPath(path_type=Path, dir_okay=False)
    return click.option("-o", "--output", type=kind, required=True, metavar="FILE.keras", help=help)


def output_folder(default: Path | None, help: str) -> Callable[..., Any]:
    """Return the option that names a folder to write."""
    kind, shown = NamedPath(path_type=Path, file_okay=False), default is not None
    return click.option(
        "-o",
        "--output",
        type=kind,
        default=default,
        show_default=shown,
        metavar="FOLDER",
        help=help,
    )


def check_output(path: Path, overwrite: bool, suffix: str = "") -> None:
    """Refuse a path that could not be written, before anything is done for it."""
    if suffix and path.suffix != suffix:
        raise click.UsageError(f"--output: the name has to end in {suffix}. Received: {path}")
    if not path.parent.is_dir():
        raise click.UsageError(f"--output: no such folder: {path.parent}")
    from mnist_keras._foundations.files import check_writable

    check_writable(path)
    if path.exists() and not overwrite:
        raise click.UsageError(f"{path} is there already; --overwrite replaces it")


def outside(output: Path, name: str, *folders: Path | None) -> Path:
    """Return where to write: never into folders that are read, however the path is spelled.

    There, a path that the user gave for the option `name` is refused. A default is moved: its
    folder then lies beside that of the data, and is called after it.
    """
    for folder in folders:
        real = Path(os.path.realpath(output))
        around = [path for path in (real, *real.parents) if os.path.exists(path)]
        if not folder or not os.path.exists(folder):
            continue
        if not any(os.path.samefile(folder, path) for path in around):
            continue
        if click.get_current_context().get_parameter_source(name) != ParameterSource.DEFAULT:
            said = f"{output} lies in {folder}, where nothing is written"
            raise click.UsageError(f"--{name.replace('_', '-')}: {said}")
        real = Path(os.path.realpath(folder))
        output = real.with_name(f"{real.name}-results").joinpath(*output.parts[1:])
        click.echo(f"Results go to {output}: nothing is written into the data.", err=True)
    return output


def make_folder(folder: Path) -> None:
    """Make a folder for results, if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"{folder}: cannot be written: {error.strerror or error}") from error


def use_backend(name: str | None) -> None:
    """Choose, check and import the backend, and say which it is and why."""
    from mnist_keras._foundations import backends

    backend = backends.choose(name)
    backends.use(backend)
    click.echo(f"Backend: {backend.name} {backend.version} ({backend.chosen_by})", err=True)
