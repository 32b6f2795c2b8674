"""The options that several commands share, and short ways to make one."""

import pkgutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import click

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
    "Images of another size: find the ink and center it as in MNIST, or resize as in "
    "training; auto: ink, unless training images were resized or their backgrounds differ.",
)
on_bad = word(
    "--on-bad", OnBad, "refuse", "What to do if files cannot be used: stop, or go on without them."
)
strict = click.option("--strict", is_flag=True, help="Exit with 5 unless every claim is supported.")
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
