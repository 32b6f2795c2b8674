"""Files written whole or not at all, and names that stay on one line."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class FileError(ValueError):
    """A file or folder that cannot be written or read. The message names it."""


def write(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there, whenever the machine stops."""
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def whole(path: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield the name of a file or folder to write; it takes the place of `path` when it is whole.

    Args:
        path: Its place; what is there is replaced.
        suffix: Of the name to write, for who goes by it. Defaults to that of `path`.

    Raises:
        FileError: If it cannot be written.
    """
    unfinished = _unfinished(path, path.suffix if suffix is None else suffix)
    try:
        yield unfinished
        if unfinished.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be made, before anything is done for it.

    Raises:
        FileError: If it cannot be written.
    """
    trial = _unfinished(path, path.suffix)
    try:
        trial.touch()
        trial.unlink()
        path.exists()  # raises if the name is too long
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error


def _unfinished(path: Path, suffix: str) -> Path:
    # Cut short: with its endings, a name may become longer than file systems allow.
    return path.with_name(f".{path.name[:99]}.{os.getpid()}.unfinished{suffix}")


def shown_name(path: Path) -> str:
    """Return the name of a file or folder, as tables show it."""
    return escaped(os.path.basename(os.path.abspath(path)))


def escaped(name: str) -> str:
    """Return `name` with everything unprintable escaped, so that it stays on one line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
