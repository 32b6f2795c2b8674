"""Experiments as TOML files."""

import json
import re
import tomllib
from typing import get_args

import pytest

from mnist_keras.experiments.experiment import (
    ORIGINAL_TABLES,
    Experiment,
    built_in,
    find,
    folder,
    json_schema,
    load,
)
from mnist_keras.training.settings import Activation, ExperimentError, Settings

pytestmark = pytest.mark.any_backend

GOOD = """
title = "Mine"
section = "1"
claim = "None."
[settings]
epochs = 3
[[arms]]
name = "a"
[[arms]]
name = "b"
epochs = 4
loss = "crossentropy"
reported_accuracy = 90
reported_loss = [2.0, 1]
[[claims]]
text = "b beats a."
arm = "b"
against = "a"
quantity = "crossentropy"
epoch = 2
"""


def write(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_row_states_only_what_differs(tmp_path):
    """Arms take the shared settings, and what they state themselves on top."""
    experiment = load(write(tmp_path, GOOD))
    a, b = experiment.arms
    assert (experiment.name, experiment.title) == ("mine", "Mine")
    assert (a.settings.epochs, a.settings.loss, a.reported_accuracy) == (3, "focal", None)
    assert (b.settings.epochs, b.settings.loss, b.reported_accuracy) == (4, "crossentropy", 90)
    assert b.reported_loss == (2.0, 1.0)


@pytest.mark.parametrize("name", built_in())
def test_json_and_back(name):
    """What is written of an experiment makes an equal one."""
    experiment = load(built_in()[name])
    document = json.loads(experiment.model_dump_json())
    assert Experiment(**document) == experiment
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_the_schema_is_that_of_the_files():
    """Each key of the built-in files is in it; they name it, and it is the one beside them."""
    schema = json_schema()
    path = folder() / "schema.json"
    assert json.loads(path.read_text("utf-8")) == schema
    arm = schema["$defs"]["Arm"]
    for file in built_in().values():
        text = file.read_text("utf-8")
        assert text.startswith("#:schema ./schema.json\n")
        document = tomllib.loads(text)
        assert set(document) <= set(schema["properties"])
        assert set(document.get("settings", {})) <= set(schema["$defs"]["Settings"]["properties"])
        for table in document["arms"]:
            assert set(arm["required"]) <= set(table) <= set(arm["properties"])
    assert schema["$defs"]["Settings"]["properties"]["epochs"]["minimum"] == 1
    assert all("description" in known for known in arm["properties"].values())
    assert set(Settings.model_fields) < set(arm["properties"])


def test_built_in_experiments_carry_the_report():
    """The original's tables come first, each with its section, claim and numbers."""
    assert tuple(built_in())[:4] == ORIGINAL_TABLES
    experiments = {name: load(path) for name, path in built_in().items()}
    assert all(e.title and e.claim for e in experiments.values())
    assert [name for name, e in experiments.items() if not e.section] == ["agreement"]
    reported = {arm.name: arm.reported_accuracy for e in experiments.values() for arm in e.arms}
    expected = {
        **{"1 epoch": 17, "20 epochs": 90, "50 epochs": 83, "100 epochs": 83},
        **{"Basic Net": 85, "My CNN": 91, "cross entropy": 92, "focal loss": 96},
        **{"SGD": None, "RAdam": None},
    }
    assert reported.items() >= expected.items()
    curves = [arm.reported_loss for e in experiments.values() for arm in e.arms]
    assert sorted(len(curve) for curve in curves if curve) == [10] * 4
    activations = [arm.settings.activation for arm in experiments["activation"].arms]
    assert tuple(activations) == get_args(Activation)


def test_find(tmp_path):
    """Names, paths and `all` can be mixed; each experiment is found once."""
    assert [e.name for e in find([])] == list(ORIGINAL_TABLES)
    assert [e.name for e in find(["all"])] == list(built_in())
    path = write(tmp_path, GOOD)
    assert [e.name for e in find(["loss", str(path), "loss"])] == ["loss", "mine"]
    with pytest.raises(ExperimentError, match="two experiments are called 'loss'"):
        find(["loss", str(write(tmp_path, GOOD, "loss.toml"))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title", "titel"), "unknown key 'titel'. Did you mean 'title'?"),
        (("epochs = 3", "epoch = 3"), "unknown key 'epoch'. Did you mean 'epochs'?"),
        (("epochs = 4", "settings = { epochs = 4 }"), "arm 2: unknown key 'settings'"),
        (("epochs = 4", "epohcs = 4"), "arm 2: unknown key 'epohcs'. Did you mean 'epochs'?"),
        (("crossentropy", "cross_entropy"), "Did you mean 'crossentropy'?"),
        (("epochs = 4", "epochs = 0"), "arm 2: `epochs` must be an integer >= 1"),
        (("epochs = 4", 'epochs = "4"'), "arm 2: `epochs` must be an integer >= 1"),
        (('title = "Mine"', ""), "`title` is missing"),
        (('title = "Mine"', "title = 3"), "`title` must be a string"),
        (('name = "a"', ""), "arm 1: `name` is missing"),
        (('name = "b"', 'name = "a"'), "expected [[arms]] of different names"),
        (("90", "101"), "must be a number between 0 and 100. Received: reported_accuracy=101"),
        (("90", "-1"), "`reported_accuracy` must be a number between 0 and 100"),
        (("90", '"90"'), "`reported_accuracy` must be a number"),
        (("[2.0, 1]", '[2.0, "1"]'), "`reported_loss` must be a number"),
        (("[2.0, 1]", "2.0"), "`reported_loss` must be a list"),
        (("[settings]", "settings = 3\n[other]"), "unknown key 'other'"),
        (("claim", "claim ="), "not a TOML file"),
        (
            ('title = "Mine"', 'title = "Mine"\n[[claim]]'),
            "[[claim]] is not a table; write [[claims]]",
        ),
        (('arm = "b"', 'arm = "c"'), "unknown arm 'c'"),
        (('against = "a"', ""), "`against` is missing"),
        (('quantity = "crossentropy"', 'quantity = "los"'), "Did you mean 'loss'?"),
        (('quantity = "crossentropy"', 'expect = "high"'), "Did you mean 'higher'?"),
        (('quantity = "crossentropy"', ""), "`epoch` belongs to a loss"),
        (("epoch = 2", "epoch = 5"), "a claim asks for epoch 5 of 4 of 'b'"),
        (("epoch = 2", "epoch = 0"), "`epoch` must be an integer >= 1"),
        (("epoch = 2", "margin = -1"), "`margin` must be a number >= 0"),
        (("epoch = 2", "epohc = 2"), "unknown key 'epohc'"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_bad_files(tmp_path, change, message):
    """An unknown key or value names the file, the arm and the nearest known word."""
    path = write(tmp_path, GOOD.replace(*change, 1))
    with pytest.raises(ExperimentError, match=f"{re.escape(f'{path}: ')}.*{re.escape(message)}"):
        load(path)


def test_files_without_an_experiment(tmp_path):
    """Missing, binary and armless files and unknown names are one clear line."""
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    title = "title = 'x'\n"
    cases = {
        tmp_path / "nowhere.toml": "cannot be read: No such file",
        tmp_path / "binary.toml": "not a TOML file",
        write(tmp_path, title + "arms = []", "a.toml"): "`arms` must be a list, not empty",
        write(tmp_path, title, "b.toml"): "`arms` is missing",
        write(tmp_path, title + "arms = [1]", "c.toml"): "`arms` must be a table. Received: arms=1",
    }
    for path, message in cases.items():
        with pytest.raises(ExperimentError, match=message) as error:
            find([str(path)])
        assert "\n" not in str(error.value)
    with pytest.raises(ExperimentError, match="unknown experiment 'los'"):
        find(["los"])


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("\n", "\r\n")])
def test_a_byte_order_mark(tmp_path, text):
    """Windows' mark of UTF-8 is not part of the file; a file in UTF-16 is refused by name."""
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("utf-8-sig"))
    assert load(path) == load(write(tmp_path, GOOD))
    for mark, encoding in (("\ufeff", "utf-16-le"), ("\ufeff", "utf-16-be")):
        path.write_bytes((mark + text).encode(encoding))
        with pytest.raises(ExperimentError, match="not a TOML file: it is in UTF-16"):
            load(path)


@pytest.mark.parametrize(
    "value",
    [
        "1" * 5000,
        "0x" + "f" * 5000,
        "1" * 400,
        "1" * 4000,
        "[" * 3000 + "]" * 3000,
        "[" * 900 + "]" * 900,
        "{a = " * 3000 + "1" + "}" * 3000,
        "{" + ".".join("a" * 3000) + " = 1}",
    ],
    ids=lambda value: f"{value[:4]}… ({len(value)})",
)
@pytest.mark.parametrize("key", ["epochs", "learning_rate", "name", "reported_loss", "batch_size"])
def test_values_beyond_all_limits(tmp_path, key, value):
    """Numbers of thousands of digits and lists in lists are one line each."""
    replaced = {"name": 'name = "b"', "reported_loss": "reported_loss = [2.0, 1]"}
    text = GOOD.replace(replaced.get(key, "epochs = 4"), f"{key} = {value}")
    with pytest.raises(ExperimentError) as error:
        load(write(tmp_path, text))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_text_is_one_line(tmp_path):
    """Line breaks become spaces; what no terminal should print is escaped, here and in claims."""
    text = GOOD.replace('title = "Mine"', 'title = """\nOne,\n\ntwo"""')
    for key in ("name", "against"):
        text = text.replace(f'{key} = "a"', rf'{key} = "x\ny\u001b[2J\u202e"')
    experiment = load(write(tmp_path, text))
    assert experiment.title == "One, two"
    assert experiment.arms[0].name == experiment.claims[0].against == r"x y\x1b[2J\u202e"
    assert Experiment(**json.loads(experiment.model_dump_json())) == experiment


def test_experiments_are_found_outside_the_checkout(monkeypatch, tmp_path):
    """The folder does not depend on where the program is started."""
    monkeypatch.chdir(tmp_path)
    assert folder().is_dir()
    assert set(ORIGINAL_TABLES) <= set(built_in())
