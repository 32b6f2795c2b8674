"""Files written whole or not at all, and names that stay on one line."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class FileError(ValueError):
    """A file or folder that cannot be written or read. The message names it."""


def reason(error: Exception) -> str:
    """Return on one line what an error says: of one from the system, without its number."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error).strip()
    return (said or type(error).__name__).splitlines()[0]


@contextmanager
def naming(
    path: Path, kind: type[Exception] = FileError, what: str = "cannot be written"
) -> Iterator[None]:
    """Turn an `OSError` into another error, whose message names the file: `PATH: WHAT: REASON`."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path}: {what}: {reason(error)}") from error


def write(path: Path, content: bytes) -> None:
    """Write a file as `whole` does: it is whole or not there, whenever the machine stops."""
    with whole(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def whole(path: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield the name of a file or folder to write, which replaces `path` once it is whole.

    The name ends in `suffix`, where a writer chooses a format by it.
    """
    unfinished = _unfinished(path, path.suffix if suffix is None else suffix)
    try:
        with naming(path):
            yield unfinished
            if unfinished.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with open(unfinished, "rb+") as file:
                    os.fsync(file.fileno())
            os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work for it begins."""
    with naming(path):
        trial = _unfinished(path, path.suffix)
        trial.touch()
        trial.unlink()
        path.exists()  # raises if the name is too long


def _unfinished(path: Path, suffix: str) -> Path:
    # Cut short: with its endings, a name may become longer than file systems allow.
    return path.with_name(f".{path.name[:99]}.{os.getpid()}.unfinished{suffix}")


def shown_name(path: Path) -> str:
    """Return the name of a file or folder as tables show it."""
    return escaped(os.path.basename(os.path.abspath(path)))


def utf8(name: str) -> str:
    """Return `name` with what is not text in it escaped, so that JSON can hold it."""
    return name.encode("utf-8", "backslashreplace").decode()


def shown_names(names: Iterable[str]) -> list[str]:
    """Return names as they are shown: each on one line, and no two alike."""
    names = list(names)
    shown = [escaped(name) for name in names]
    if len(set(shown)) < len(set(names)):  # a backslash may then be one of a name, or ours
        shown = [escaped(name.replace("\\", r"\\")) for name in names]
    return shown


def escaped(name: str) -> str:
    """Return `name` with every unprintable character escaped, so that it stays on one line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
