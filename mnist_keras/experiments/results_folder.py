"""The results folder: a plan, a record for each Run, what is made of them. The only writer."""

import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mnist_keras._foundations.files import write
from mnist_keras.experiments.experiment import from_document, to_document
from mnist_keras.experiments.plan import Plan
from mnist_keras.training.record import (
    History,
    Record,
    RecordError,
    Training,
    read_record,
    write_record,
)
from mnist_keras.training.settings import ExperimentError


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
            A sentence if the last run was stopped before its end, else `None`.

        Raises:
            RecordError: If the folder cannot be written, or another run is writing to it.
        """
        lock = self._lock()
        stopped = lock.read().strip()
        try:
            _say(lock, str(os.getpid()))
            yield f"the last run here (process {stopped}) was stopped" if stopped else None
        finally:
            _say(lock, "")
            lock.close()

    def _lock(self) -> TextIO:
        """Return the open lock file, held until it is closed, be it by the end of the process."""
        try:
            self._records.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "a+")  # noqa: SIM115 (the caller closes it)
            if not _take(lock):
                lock.seek(0)
                holder = lock.read().strip()
                lock.close()
                raise RecordError(f"{self.path}: another run (process {holder}) is writing here")
            lock.seek(0)
            self._sweep()
        except OSError as error:
            raise RecordError(
                f"{self.path}: cannot be written: {error.strerror or error}"
            ) from error
        return lock

    def _sweep(self) -> None:
        """Remove the unfinished files of a run that was stopped while it wrote."""
        for folder in (self.path, self._records, self.trainings.path):
            for leftover in folder.glob(".*.unfinished*"):
                leftover.unlink(missing_ok=True)

    def write_plan(self, plan: Plan) -> None:
        """Write what the folder is for."""
        document = {
            "experiments": [
                {"name": experiment.name, **to_document(experiment)}
                for experiment in plan.experiments
            ],
            "data": {
                "name": plan.data_name,
                "fingerprints": {str(s): d for s, d in plan.data.items()},
            },
            "versions": dict(plan.versions),
            "note": plan.note,
            "left_out": dict(plan.left_out),
            "samples": dict(plan.samples),
        }
        write(self._plan, (json.dumps(document, indent=1) + "\n").encode())

    def read_plan(self) -> Plan:
        """Return what the folder is for.

        Raises:
            RecordError: If it holds no plan, or one that cannot be used.
        """
        try:
            document: dict[str, Any] = json.loads(self._plan.read_bytes())
            data = document["data"]
            return Plan(
                experiments=tuple(
                    from_document(table.pop("name"), table) for table in document["experiments"]
                ),
                data_name=data["name"],
                data={int(seed): fingerprint for seed, fingerprint in data["fingerprints"].items()},
                versions=document["versions"],
                note=document["note"],
                left_out=document["left_out"],
                samples=document["samples"],
            )
        except FileNotFoundError as error:
            raise RecordError(f"{self.path}: no results of `mnist-keras run`") from error
        except OSError as error:
            raise RecordError(f"{self._plan}: cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, ExperimentError) as error:
            raise RecordError(f"{self._plan}: not a plan: {error!r}") from error

    def records(self) -> tuple[list[Record], list[RecordError]]:
        """Return all records that can be used, and an error for each file that cannot."""
        found, refused = [], []
        for path in sorted(self._records.glob("*.json")):
            try:
                found.append(read_record(path))
            except RecordError as error:
                refused.append(error)
        return found, refused

    def write_record(self, record: Record) -> None:
        """Write a record; it is whole and there when this returns."""
        write_record(self._records, record)

    def set_aside_damaged(self) -> list[str]:
        """Rename the records that cannot be used, and return a sentence for each."""
        sentences = []
        for path in sorted(self._records.glob("*.json")):
            try:
                read_record(path)
            except RecordError as error:
                aside = next(
                    name
                    for n in range(1_000_000)
                    if not (name := path.with_name(f"{path.name}.damaged-{n}")).exists()
                )
                os.replace(path, aside)
                sentences.append(f"{error}; set aside as {aside.name}")
        return sentences

    def write(self, name: str, content: bytes) -> None:
        """Write a file made of the records."""
        write(self.path / name, content)


def _take(lock: TextIO) -> bool:
    """Lock an open file, if no other process has; the system unlocks it when it is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _say(lock: TextIO, text: str) -> None:
    # A full disk must not hide what the run has to say.
    with suppress(OSError):
        lock.seek(0)
        lock.truncate()
        lock.write(text)
        lock.flush()


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
                document = json.loads(str(arrays[_HISTORY]))
                weights = {path: arrays[path] for path in arrays.files if path != _HISTORY}
            return Training(weights, History(**document))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise KeyError(name) from error

    def __setitem__(self, name: str, training: Training) -> None:
        file = io.BytesIO()
        history = np.array(json.dumps(asdict(training.history)))
        np.savez(file, allow_pickle=False, **training.weights, **{_HISTORY: history})
        self.path.mkdir(parents=True, exist_ok=True)
        write(self._file(name), file.getvalue())

    def __delitem__(self, name: str) -> None:
        self._file(name).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self.path.glob("*.npz")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npz"
