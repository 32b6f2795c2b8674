"""A trained model in one file: a `.keras` archive that also holds the model's card.

The file is written whole or not at all. It is read without running anything that it holds: the
network is built from the card's settings, and only numbers are taken from the archive.
"""

import hashlib
import json
import stat
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from mnist_keras._foundations.files import escaped, reason, whole
from mnist_keras.inference.model_card import Card, ModelFileError, from_document, to_document
from mnist_keras.inference.trained_model import MOST_BYTES, TrainedModel, check_size
from mnist_keras.training.networks import build_model

CARD = "mnist_keras.json"
# What Keras writes for a functional model without assets.
_WEIGHTS = "model.weights.h5"
_MEMBERS = ("metadata.json", "config.json", _WEIGHTS)
# What a file may hold: weights, and each of its other parts.
_MOST_OTHER_BYTES = 2**25
# What a file of another kind begins with, or is called, and why it is not loaded.
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NO_HDF5 = "whole models in HDF5 are not loaded: Keras does not check what code they run"
_NO_PICKLE = "pickles are not loaded: they may run any code"
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy")
_REFUSED_SUFFIXES = {".h5": _NO_HDF5, ".hdf5": _NO_HDF5, **dict.fromkeys(_PICKLES, _NO_PICKLE)}


def save_model(path: Path, trained: TrainedModel) -> None:
    """Write a model and its card into one `.keras` file, whole or not at all.

    `keras.saving.load_model` reads it, too, where `mnist_keras` is imported.

    Args:
        path: Ends in `.keras`.
        trained: Model and card. Of the model, the weights are written and no optimizer.

    Raises:
        FileError: If the file cannot be written.
    """
    bare = trained.untrained()
    for variable, value in zip(bare.variables, trained.model.variables, strict=True):
        variable.assign(value)
    with whole(path) as unfinished:
        bare.save(unfinished)
        with zipfile.ZipFile(unfinished, "a", zipfile.ZIP_STORED) as archive:
            checksums = {name: _checksum(archive, name) for name in _MEMBERS}
            archive.writestr(CARD, json.dumps(to_document(trained.card, checksums), indent=1))


def load_model(path: Path) -> TrainedModel:
    """Return the model of a file that `save_model` wrote, on whatever backend runs.

    Raises:
        ModelFileError: If the file is missing, of another kind, damaged, declares sizes that it
            does not hold, or holds an encoder.
    """
    return _load(path, encoder=False)


def load_encoder(path: Path) -> TrainedModel:
    """Return the encoder of a file that `save_model` wrote, on whatever backend runs.

    Raises:
        ModelFileError: As `load_model`, or if the file holds a model of classes.
    """
    return _load(path, encoder=True)


def _load(path: Path, encoder: bool) -> TrainedModel:
    name = escaped(str(path))
    try:
        card = _read(path)
        if encoder and card.class_names:
            raise ModelFileError("a model of classes, not an encoder of `mnist-keras pretrain`")
        if not encoder and not card.class_names:
            said = "an encoder, which knows no classes; "
            raise ModelFileError(said + "`mnist-keras train --from` makes a model of it")
        model = build_model(card.settings, card.input.form.shape, len(card.class_names), card.seed)
        _check_weights(path, model)
        model.load_weights(path)
        if not all(np.isfinite(weights).all() for weights in model.get_weights()):
            raise ModelFileError("its weights are not finite numbers")
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from error
    except OSError as error:
        raise ModelFileError(f"{name}: cannot be read: {reason(error)}") from error
    except Exception as error:  # h5py and Keras raise almost anything on damaged weights
        raise ModelFileError(f"{name}: its weights do not fit its card") from error
    return TrainedModel(model, card)


def _read(path: Path) -> Card:
    """Return the card of a file, once all that it says of the archive has been checked."""
    if refusal := _REFUSED_SUFFIXES.get(path.suffix.lower()):
        raise ModelFileError(refusal)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ModelFileError("not a regular file")
    with open(path, "rb") as file:
        if file.read(len(_HDF5)) == _HDF5:
            raise ModelFileError(_NO_HDF5)
    if path.suffix != ".keras":
        raise ModelFileError("the name of a model has to end in .keras")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            card, checksums = from_document(json.loads(archive.read(CARD)))
            for member in _MEMBERS:
                if checksums.get(member) != _checksum(archive, member):
                    raise ModelFileError(f"damaged or changed: {member} is not what was written")
            size = check_size(card.settings, card.input.form.shape, len(card.class_names))
            if archive.getinfo(_WEIGHTS).file_size < size:
                raise ModelFileError("its card declares more weights than it holds")
            return card
    except ModelFileError:
        raise
    except RecursionError as error:
        raise ModelFileError("its card cannot be read: it is nested too deep") from error
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise ModelFileError(f"not a whole .keras file: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"its card cannot be read: {error!r}") from error


def _check_weights(path: Path, model: keras.Model) -> None:
    """Refuse weights that are not all in the file, or that come with more than the network has."""
    # Keras makes up to four groups for a layer, and two for the network itself.
    left = 2 + 4 * len(model.layers) + len(model.variables)
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(_WEIGHTS) as file,
            h5py.File(file) as h5,
        ):
            waiting = [h5]
            while waiting:
                group = waiting.pop()
                left -= len(group)
                if left < 0:  # before they are visited, which takes long for each one
                    raise ModelFileError("it holds groups that its network does not have")
                for name in group:
                    linked = not isinstance(group.get(name, getlink=True), h5py.HardLink)
                    item = None if linked else group[name]
                    if isinstance(item, h5py.Group):
                        waiting.append(item)
                    # What is filled in, compressed or elsewhere may be of any size.
                    elif item is None or item.id.get_storage_size() != item.nbytes:
                        raise ModelFileError("its weights are not all in the file")
    except ModelFileError:
        raise
    except Exception as error:  # h5py raises almost anything on damaged files
        raise ModelFileError("its weights cannot be read") from error


def _check_members(archive: zipfile.ZipFile) -> None:
    """Refuse an archive that holds anything but what is written, or that grows when it is read."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if CARD not in names:
        raise ModelFileError("not a model that `mnist-keras train` wrote: it has no card")
    if sorted(names) != sorted((*_MEMBERS, CARD)):
        odd = sorted(set(names) - {*_MEMBERS, CARD}) or "one of its parts twice, or not at all"
        raise ModelFileError(f"not what `mnist-keras train` writes: it holds {odd}")
    if min(member.header_offset for member in members) > 0:
        raise ModelFileError("not what `mnist-keras train` writes: something stands before it")
    for member in members:
        most = 2 * MOST_BYTES if member.filename == _WEIGHTS else _MOST_OTHER_BYTES
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > most:
            raise ModelFileError(f"{member.filename} is compressed or too large")


def _checksum(archive: zipfile.ZipFile, member: str) -> str:
    with archive.open(member) as file:  # a ZipExtFile, which typeshed calls an IO
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
