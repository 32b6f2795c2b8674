"""The results folder: a plan, a record for each run, and what is made of them. The only writer."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from pydantic import ValidationError

from mnist_keras._foundations.fields import sentence
from mnist_keras._foundations.files import naming, reason, write
from mnist_keras.experiments.plan import Plan
from mnist_keras.training.record import (
    FORMAT,
    History,
    Record,
    RecordError,
    Training,
    from_json,
    to_json,
)

try:
    import fcntl
except ImportError:  # Windows, whose locks filelock knows
    fcntl = None  # type: ignore[assignment]

# Stands for a lock where the file system has none. Not `.lock`, which stays between runs.
_SOFT = ".soft-lock"
_ANOTHER_VERSION = "written by another version of mnist-keras"


class ResultsFolder:
    """A folder with a plan and records.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self._plan = path / "plan.json"
        self._records = path / "records"
        self.trainings = TrainingFiles(path / "trainings")

    @contextmanager
    def writing(self) -> Iterator[str | None]:
        """Make the folder and keep others from writing to it until the end.

        Yields:
            A sentence if the last run was stopped before its end, or if the file system has no
            locks and a file has to do; else `None`.

        Raises:
            FileError: If the folder cannot be written.
            RecordError: If another run is writing to it, or another version of this package did.
        """
        holder, said = self.path / ".running", ""
        with naming(self.path):
            self._records.mkdir(parents=True, exist_ok=True)
            lock: filelock.BaseFileLock = filelock.FileLock(self.path / ".lock")
            if not _has_locks(self.path):
                lock = filelock.SoftFileLock(self.path / _SOFT)
                said = f"the file system has no locks; a file {_SOFT} stands for one"
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout as error:
                words = f"another run (process {_text(holder)}) is writing here"
                hint = f" ({said}: remove it if there is no such run)" if said else ""
                raise RecordError(f"{self.path}: {words}{hint}") from error
        try:
            try:
                self.read_plan()
            except RecordError as error:
                if _ANOTHER_VERSION in str(error):  # its records would be set aside as damaged
                    raise
            stopped = _text(holder)
            with suppress(OSError):  # a full disk must not hide what the run has to say
                for folder in (self.path, self._records, self.trainings.path):
                    for leftover in folder.glob(".*.unfinished*"):
                        leftover.unlink(missing_ok=True)
                holder.write_text(str(os.getpid()))
            stop = f"the last run here (process {stopped}) was stopped" if stopped else ""
            yield "; ".join(filter(None, (stop, said))) or None
        finally:
            with suppress(OSError):
                holder.unlink()
            lock.release()

    def write_plan(self, plan: Plan) -> None:
        """Write what the folder is for."""
        document = {"format": FORMAT, **plan.model_dump(mode="json")}
        write(self._plan, (json.dumps(document, indent=1) + "\n").encode())

    def read_plan(self) -> Plan:
        """Return what the folder is for.

        Raises:
            RecordError: If it holds no plan, or one that cannot be used.
        """
        try:
            document = json.loads(self._plan.read_bytes())
            if document.pop("format", None) == FORMAT:
                return Plan.model_validate_json(json.dumps(document))
        except FileNotFoundError as error:
            raise RecordError(f"{self.path}: no results of `mnist-keras run`") from error
        except OSError as error:
            raise RecordError(f"{self._plan}: cannot be read: {reason(error)}") from error
        except ValidationError as error:
            raise RecordError(f"{self._plan}: not a plan: {sentence(error, Plan)}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RecordError(f"{self._plan}: not a plan: {error!r}") from error
        raise RecordError(f"{self._plan}: {_ANOTHER_VERSION}")

    def records(self) -> tuple[list[Record], list[RecordError]]:
        """Return all records that can be used, and an error for each file that cannot."""
        found = [read for _, read in self._read()]
        usable = [record for record in found if isinstance(record, Record)]
        return usable, [error for error in found if isinstance(error, RecordError)]

    def write_record(self, record: Record) -> Path:
        """Write a record under the name of its run; it is whole and there when this returns."""
        path = self._records / f"{record.name}.json"
        write(path, to_json(record).encode())
        return path

    def set_aside_damaged(self) -> list[str]:
        """Rename the records that cannot be used, and return a sentence for each."""
        sentences = []
        for path, error in self._read():
            if isinstance(error, RecordError):
                names = (path.with_name(f"{path.name}.damaged-{number}") for number in count())
                aside = next(name for name in names if not name.exists())
                os.replace(path, aside)
                sentences.append(f"{error}; set aside as {aside.name}")
        return sentences

    def _read(self) -> Iterator[tuple[Path, Record | RecordError]]:
        """Yield each file of a record with what it holds, or with what is wrong with it."""
        # Not those with a dot: another process has not finished them, or will never finish them.
        for path in sorted(self._records.glob("[!.]*.json")):
            try:
                yield path, read_record(path)
            except RecordError as error:
                yield path, error


def read_record(path: Path) -> Record:
    """Return the record of a file, or raise a `RecordError` that names the file."""
    with naming(path, RecordError, "cannot be read"):
        content = path.read_bytes()
    try:
        record = from_json(content)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    if record.name != path.stem:
        raise RecordError(f"{path}: not the record of that name, but of {record.name}")
    return record


def _has_locks(folder: Path) -> bool:
    """Return whether files in a folder can be locked: some network file systems cannot."""
    if fcntl is None:
        return True
    with tempfile.TemporaryFile(dir=folder) as file:  # which nobody else can have locked
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


_HISTORY = "history.json"


class TrainingFiles(MutableMapping[str, Training]):
    """A folder of trainings, used as a dictionary; made when the first one is put in.

    A file that is damaged counts as not there: what it held is trained again.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def __getitem__(self, name: str) -> Training:
        try:
            file = io.BytesIO(self._file(name).read_bytes())
            with np.load(file, allow_pickle=False) as arrays:
                history = History.model_validate_json(str(arrays[_HISTORY]))
                weights = {path: arrays[path] for path in arrays.files if path != _HISTORY}
            return Training(weights, history)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise KeyError(name) from error

    def __setitem__(self, name: str, training: Training) -> None:
        file = io.BytesIO()
        history = np.array(training.history.model_dump_json())
        arrays: dict[str, Any] = {**training.weights, _HISTORY: history}
        np.savez(file, **arrays)
        self.path.mkdir(parents=True, exist_ok=True)
        write(self._file(name), file.getvalue())

    def __delitem__(self, name: str) -> None:
        self._file(name).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self.path.glob("[!.]*.npz")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npz"
