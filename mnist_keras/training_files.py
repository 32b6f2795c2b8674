"""Trainings that several runs share, in a folder: one file for each, whole or not there."""

import io
import json
import zipfile
from collections.abc import Iterator, MutableMapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mnist_keras.history import History, Training
from mnist_keras.records import write

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
