"""A trained model in one file: it comes back whole, or is refused with one line that says why."""

import functools
import hashlib
import json
import os
import zipfile
from unittest.mock import Mock

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from mnist_keras._foundations.files import FileError, shown_names
from mnist_keras.inference import model_file as model_files
from mnist_keras.inference.model_file import ModelFileError, load_model, save_model
from mnist_keras.models.prediction import predict


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28, 3), dtype=np.uint8)


@pytest.mark.parametrize("model", ["basic_net", "small_cnn"])
def test_a_saved_model_comes_back(model, model_file, trained, images):
    """Outputs are the same bits, and every entry of the card is the same."""
    loaded, original = load_model(model_file(model)), trained(model)
    np.testing.assert_array_equal(predict(loaded.model, images), predict(original.model, images))
    np.testing.assert_array_equal(loaded.card.trained_on, original.card.trained_on)
    assert loaded.card.model_dump_json() == original.card.model_dump_json()
    assert len(loaded.card.trained_on) == 400
    heldout = loaded.card.metrics.heldout
    assert heldout.n == 1297
    low, high = heldout.interval
    assert low < heldout.accuracy < high


def test_keras_reads_it_too(model_file, trained, images):
    """To programs that know only Keras, the file is a plain `.keras` file."""
    found = predict(keras.saving.load_model(model_file("small_cnn")), images)
    np.testing.assert_allclose(found, predict(trained("small_cnn").model, images), atol=1e-5)


def test_untrained(trained, images):
    """The network before training has its run's initial weights, not those of training."""
    before, again = (predict(trained("basic_net").untrained(), images) for _ in range(2))
    np.testing.assert_array_equal(before, again)
    assert np.abs(before - predict(trained("basic_net").model, images)).max() > 0.5


def refusal(path):
    """Return the one line with which a file is refused."""
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


@pytest.fixture
def tampered(model_file, tmp_path):
    """The function that returns a copy whose members are changed by functions of their bytes."""

    def tamper(compression=zipfile.ZIP_STORED, **changes):
        names = {"card": model_files.CARD, "config": "config.json", "weights": "model.weights.h5"}
        edits = {names.get(name, name): edit for name, edit in changes.items()}
        path = tmp_path / "tampered.keras"
        with zipfile.ZipFile(model_file("basic_net")) as source:
            parts = dict.fromkeys(edits, b"") | {n: source.read(n) for n in source.namelist()}
        with zipfile.ZipFile(path, "w", compression) as target:
            for name, part in parts.items():
                content = edits[name](part) if name in edits else part
                if content is not None:
                    target.writestr(name, content)
        return path

    return tamper


def card_with(**entries):
    """Return the edit of a card that sets entries, given as paths with `__` between keys."""

    def edit(content):
        document = json.loads(content)
        for path, value in entries.items():
            *keys, last = path.split("__")
            functools.reduce(dict.get, keys, document)[last] = value
        return json.dumps(document)

    return edit


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"format": 99}, "written by another version"),
        ({"format": True}, "written by another version"),
        ({"output": "probabilities"}, "written by another version"),
        ({"scale": "levels"}, "written by another version"),
        ({"class_names": []}, "written by another version"),
        ({"class_names": [], "output": "features"}, "an encoder of model 'basic_net'"),
        ({"class_names": "0123456789"}, "`class_names` must be a list"),
        ({"class_names": ["a", "a"]}, "class_names are not different names"),
        ({"class_names": ["\ud800", "b"]}, "its card cannot be read"),
        ({"class_names": ["a" * 10**6, "b"]}, "must be a string of 1 to 1000 characters"),
        ({"class_names": [str(n) for n in range(10**5)]}, "more weights than it holds"),
        ({"class_names": ["a", "b"]}, "its weights do not fit its card"),
        ({"input__form__image_size": [10**9, 10**9]}, "bytes of weights; files hold up to"),
        ({"input__form__image_size": [64, 64]}, "its card declares more weights than it holds"),
        ({"input__form__image_size": [28, -1]}, "image_size (28, -1)"),
        ({"input__form__image_size": [14, 14]}, "its weights do not fit its card"),
        ({"input__form__image_size": [14.5, 14]}, "`image_size` must be an integer"),
        ({"input__form__color_mode": "cmyk"}, "unknown color_mode 'cmyk'"),
        ({"input__background": "red"}, "unknown background 'red'"),
        ({"input__resized": "no"}, "`resized` must be a bool"),
        ({"input__more": 1}, "unknown key 'more'"),
        ({"settings__model": "os.system"}, "unknown model 'os.system'"),
        ({"settings__model": "svm"}, "'svm' is not a network"),
        ({"settings__model": "cnn"}, "its card declares more weights than it holds"),
        ({"settings": 3}, "`settings` must be a table"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
        ({"seed": 1.5}, "`seed` must be an integer >= 0"),
        ({"trained_on": "???"}, "`trained_on` must be a table"),
        ({"trained_on": {"dtype": "O"}}, "an array needs dtype, shape and base64"),
        ({"trained_on__dtype": "O"}, "its card cannot be read"),
        ({"trained_on__shape": [10**12]}, "its card cannot be read"),
        ({"trained_on__base64": "???"}, "its card cannot be read"),
        ({"sha256": {}}, "metadata.json is not what was written"),
        ({"sha256": None}, "it has no checksums"),
        ({"metrics": None}, "`metrics` must be a table"),
        ({"pretrained": "x"}, "unknown key 'pretrained'"),
    ],
)
def test_a_changed_card_is_refused(entries, said, tampered):
    """Whatever the card claims, it is one line, and nothing large is built."""
    assert said in refusal(tampered(card=card_with(**entries)))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": lambda c: c.replace(b"28", b"29")}, "config.json is not what was written"),
        ({"weights": lambda c: c[:-1] + b"x"}, "model.weights.h5 is not what was written"),
        ({"card": lambda c: None}, "it has no card"),
        ({"card": lambda c: b"[" * 100_000}, "its card cannot be read"),
        ({"card": lambda c: b"null"}, "its card cannot be read"),
        ({"weights": lambda c: None}, "one of its parts twice, or not at all"),
        ({"assets/vocabulary.txt": lambda c: b"x"}, "it holds ['assets/vocabulary.txt']"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed or too large"),
    ],
)
def test_a_changed_archive_is_refused(changes, said, tampered):
    """A member that is changed, missing, new or compressed is one line."""
    assert said in refusal(tampered(**changes))


@pytest.fixture
def forged(tampered):
    """The function that returns a copy with other content, for which its card vouches."""

    def forge(member, name, content):
        with zipfile.ZipFile(tampered()) as archive:
            sums = json.loads(archive.read(model_files.CARD))["sha256"]
        sums[member] = hashlib.sha256(content).hexdigest()
        return tampered(card=card_with(sha256=sums), **{name: lambda _: content})

    return forge


@pytest.mark.any_backend
def test_forged_weights_are_refused(forged, model_file, tmp_path):
    """Weights that are elsewhere, filled in, of other shapes or not numbers are not read."""
    genuine = zipfile.ZipFile(model_file("basic_net")).read("model.weights.h5")

    def edited(edit):
        path = tmp_path / "forged.h5"
        path.write_bytes(genuine)
        with h5py.File(path, "a") as file:
            edit(file)
        return forged("model.weights.h5", "weights", path.read_bytes().ljust(len(genuine), b"\0"))

    def link(file):
        del file["layers"]
        file["layers"] = h5py.ExternalLink("/etc/passwd", "/")

    def fill(file):
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", (2**30,), "f4", chunks=(2**20,))

    def spoil(file):
        file["layers/dense/vars/0"][0, 0] = np.nan

    def turn(file):
        kernel = file["layers/dense/vars/0"][:].T
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = kernel

    def loop(file):
        file["layers/again"] = file["/"]

    def soft(file):
        kernel = file["layers/dense/vars/0"][:]
        del file["layers/dense/vars/0"]
        file["vars/kernel"] = kernel
        file["layers/dense/vars/0"] = h5py.SoftLink("/vars/kernel")

    for edit in (link, soft):
        assert "its weights are not all in the file" in refusal(edited(edit))
    assert "it holds groups that its network does not have" in refusal(edited(loop))
    assert "its weights are not all in the file" in refusal(edited(fill))
    assert "its weights are not finite numbers" in refusal(edited(spoil))
    assert "its weights do not fit its card" in refusal(edited(turn))


@pytest.mark.any_backend
@pytest.mark.parametrize("format", ["table", "csv", "jsonl"])
def test_class_names_are_kept_and_shown_on_one_line(format, tampered, invoke, tmp_path, picture):
    """A model may have any names; where they are printed, no two are alike."""
    pairs = ["a\nb", r"a\nb", "می\u200cخوان", r"می\u200cخوان", "\x1b[2J", r"\x1b[2J"]
    names = [*pairs, r"a\\nb", "\u202e", "日本\u3000語", "plain"]
    path = tampered(card=card_with(class_names=names))
    assert load_model(path).card.class_names == tuple(names)
    files = [tmp_path / f"{number}.png" for number in range(12)]
    for number, file in enumerate(files):
        Image.fromarray(picture(number)).save(file)
    printed = invoke("predict", path, *files, "--format", format).stdout.splitlines()
    assert len(printed) == 12 + (format != "jsonl")
    shown = shown_names(names)
    assert len(set(shown)) == len(names)
    if format == "jsonl":
        assert {json.loads(line)["class"] for line in printed} <= set(names)
    else:
        assert all(line.isprintable() for line in printed)
        assert all(any(name in line for name in shown) for line in printed[1:])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "place", ["more/{}", "layers/more{}", "layers/dense/{}", "layers/dense/vars/a{}/b", "vars/a/{}"]
)
def test_groups_of_no_layer_are_not_visited(place, forged, model_file, tmp_path, monkeypatch):
    """Wherever empty groups are, they are counted and not opened."""
    path = tmp_path / "forged.h5"
    path.write_bytes(zipfile.ZipFile(model_file("basic_net")).read("model.weights.h5"))
    with h5py.File(path, "a") as file:
        for number in range(50):
            file.create_group(place.format(number))
    grown = forged("model.weights.h5", "weights", path.read_bytes())
    opened, get = [], h5py.Group.__getitem__
    monkeypatch.setattr(h5py.Group, "__getitem__", lambda *args: opened.append(1) or get(*args))
    assert "it holds groups that its network does not have" in refusal(grown)
    assert len(opened) < 30


@pytest.mark.any_backend
def test_a_forged_config_runs_nothing(forged):
    """The archive's own description of the network is not what is built."""
    content = b'{"module": "builtins", "class_name": "exec", "config": {}}'
    assert load_model(forged("config.json", "config", content)).model.name == "basic_net"


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.h5", b"", "whole models in HDF5 are not loaded"),
        ("model.keras", b"\x89HDF\r\n\x1a\n", "whole models in HDF5 are not loaded"),
        ("model.pkl", b"", "pickles are not loaded"),
        ("model.pt", b"", "pickles are not loaded"),
        ("model.zip", b"PK", "the name of a model has to end in .keras"),
        ("model.keras", b"", "not a whole .keras file"),
        ("model.keras", b"PK\x03\x04 no more", "not a whole .keras file"),
        ("half.keras", lambda model: model[: len(model) // 2], "not a whole .keras file"),
        ("double.keras", lambda model: b"#!/bin/sh\n" + model, "something stands before it"),
    ],
)
def test_other_files_are_refused(name, content, said, model_file, tmp_path):
    """A file of another kind, half a model, and a model that is also a program are refused."""
    if callable(content):
        content = content(model_file("basic_net").read_bytes())
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


@pytest.mark.any_backend
def test_a_folder_or_a_pipe_is_not_a_model(tmp_path):
    """Neither is read, nor waited for; and what is missing is named."""
    os.mkfifo(tmp_path / "pipe.keras")
    for path in (tmp_path, tmp_path / "pipe.keras"):
        assert "not a regular file" in refusal(path)
    assert "cannot be read: No such file" in refusal(tmp_path / "model.keras")


@pytest.mark.any_backend
def test_a_foreign_keras_file_is_refused(tmp_path):
    """A model that Keras wrote, but we did not, has no card."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "foreign.keras")
    assert "it has no card" in refusal(tmp_path / "foreign.keras")


@pytest.mark.any_backend
def test_a_failed_write_leaves_the_old_file(trained, tmp_path, monkeypatch):
    """The file that was there is whole until the new one is."""
    path = tmp_path / "model.keras"
    save_model(path, trained("basic_net"))
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(FileError, match="No space left"):
        save_model(path, trained("basic_net"))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]
