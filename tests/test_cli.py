"""The command line: tables end to end, exit codes, and one line for every wrong input."""

import functools
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from PIL import Image

from mnist_keras.cli import cli

ARMS = (
    {"name": "one", "epochs": 1, "reported_accuracy": 50},
    {"name": "two", "reported_loss": [2.0, 1.0]},
)


@pytest.fixture
def short(tmp_path, write_experiment):
    """An experiment that trains for a second."""
    return write_experiment(tmp_path, *ARMS)


@pytest.mark.any_backend
def test_every_command_has_help(invoke):
    """Each command says what it does."""
    assert set(cli.commands) == {
        *("run", "list", "report", "compare", "data", "check"),
        *("train", "pretrain", "predict", "evaluate", "explain", "export", "demo"),
        *("doctor", "help"),
    }
    for name in cli.commands:
        assert len(invoke(name, "--help").output.splitlines()) > 5
    assert invoke("--version").output.startswith("mnist-keras, version ")


@pytest.mark.any_backend
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_fits_the_terminal(invoke, columns):
    """Every command stands under one heading with a whole sentence, and has an example."""
    invoke = functools.partial(invoke, terminal_width=columns)
    overview = invoke("--help").output
    _, _, *sections = re.split(r"^[A-Z].*:$", overview, flags=re.MULTILINE)
    named = [name for section in sections for name in re.findall(r"^  (\w+)", section, re.M)]
    assert sorted(named) == sorted(cli.commands)
    assert not any("..." in section for section in sections)
    for name in cli.commands:
        said = invoke("help", name).output
        assert said == invoke(name, "--help").output
        assert f"  mnist-keras {name}" in said
        lines = said.splitlines()
        wrapped = [line for line in lines if not line.lstrip().startswith("mnist-keras ")]
        assert max(map(len, wrapped)) <= columns
    assert invoke("help").output == overview
    assert "No such command 'nope'" in invoke("help", "nope", code=2).stderr
    headings = ["Images:", "Model:", "Training:", "Options:"]
    assert [line for line in invoke("help", "train").output.splitlines() if line in headings] == (
        headings
    )


@pytest.mark.any_backend
def test_doctor_says_what_a_bug_report_needs(invoke, trained, monkeypatch):
    """Versions, backends, settings and a training are printed; without a backend, all but that."""
    train = Mock(return_value=trained("basic_net"))
    monkeypatch.setattr("mnist_keras.inference.trained_model.train_model", train)
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "1")
    monkeypatch.setenv("MNIST_KERAS_IDX", "idx")
    said = invoke("doctor").stdout
    assert f"  keras: {keras.__version__}" in said
    assert "  KERAS_MAX_EPOCHS: 1" in said
    assert "MNIST: idx, which MNIST_KERAS_IDX names" in said
    assert "held-out accuracy" in said.splitlines()[-1]
    found = json.loads(invoke("doctor", "--format", "json", "--backend", "numpy", code=4).stdout)
    assert found["training"].startswith("none: --backend: 'numpy' cannot train")
    running = keras.backend.backend()
    assert found["backends"][running].startswith(sys.modules[running].__version__)
    assert train.call_count == 1


@pytest.mark.any_backend
def test_doctor_names_a_broken_backend(tmp_path, python):
    """A backend that does not import is said to be so, with the reason."""
    (tmp_path / "torch.py").write_text("raise ImportError('libfoo.so: no such file')")
    command = ("-m", "mnist_keras", "doctor", "--format", "json", "--backend", "torch")
    found = json.loads(python(*command, codes=(4,), environment={"PYTHONPATH": str(tmp_path)}))
    expected = "does not import: ImportError: libfoo.so: no such file"
    assert found["backends"]["torch"].endswith(expected)
    assert found["training"].startswith("none: 'torch' is installed but does not import")


@pytest.mark.any_backend
def test_list_names_every_experiment(invoke, monkeypatch):
    """All experiments are listed with their sections, arms and minutes."""
    monkeypatch.setenv("COLUMNS", "60")
    lines = invoke("list").output.splitlines()
    names = "epochs architecture loss optimizer activation agreement representation"
    assert [line.split(":")[0] for line in lines if line[0] != " "] == names.split()
    assert "loss: Cross entropy against focal loss (section 3.4)" in lines
    assert "  2 arms, about 1 min a seed on two cores: cross entropy ·" in lines
    assert max(map(len, lines)) <= 60
    schema = json.loads(invoke("list", "--schema").output)
    assert {"title", "arms", "claims", "settings"} <= set(schema["properties"])


@pytest.mark.any_backend
def test_dry_run_shows_the_plan_and_trains_nothing(invoke, tmp_path):
    """The plan shares equal arms and writes nothing."""
    output = tmp_path / "results"
    result = invoke("run", "--dry-run", "--seeds", 2, "--output", output)
    assert "11 arms, 10 runs, seeds 0…1" in result.output
    later = invoke("run", "loss", "--dry-run", "--seeds", 2, "--first-seed", 5)
    assert "2 arms, 4 runs, seeds 5…6" in later.output
    assert "adam 10 epochs seed 6" in later.output
    assert "280 epochs instead of the 482" in result.output
    assert not output.exists()


def test_run_prints_tables_and_writes_results(invoke, short, tmp_path):
    """stdout is tables.md and costs.md; records, tables, figures and the page are written."""
    output = tmp_path / "results"
    result = invoke("run", short, "--source", "digits", "--seeds", 2, "--output", output)

    written = [(output / name).read_text() for name in ("tables.md", "costs.md")]
    assert result.stdout == "\n".join(written)
    assert "Data: digits (scikit-learn)." in result.stdout
    assert "do not compare with the original's" in result.stdout
    assert f"Backend: {keras.backend.backend()}" in result.stderr
    names = {path.name for path in output.iterdir()}
    assert names == {
        *(".lock", "plan.json", "records", "report.html", "costs.md"),
        *("tables.md", "tables.csv", "tables.tex", "tables.json"),
        *("loss.png", "accuracy.png", "confusion.png"),
    }
    assert len(list((output / "records").iterdir())) == 2
    one, two = json.loads((output / "tables.json").read_text())["experiments"][0]["arms"]
    assert one["seeds"] == two["seeds"] == [0, 1]
    assert one["loss"] == [curve[:1] for curve in two["loss"]]
    assert one["heldout"]["n"] == 1297
    with Image.open(output / "loss.png") as figure:
        assert figure.format == "PNG"


@pytest.mark.slow
@pytest.mark.any_backend
@pytest.mark.usefixtures("without_figures")
def test_a_written_source_gives_the_numbers_of_the_source(invoke, short, tmp_path):
    """`data` and then `run --data` is the run that draws with the same seed."""
    invoke("data", "digits", tmp_path / "digits", "--per-class", 12)
    arguments = ("run", short, "--seeds", 1, "--output")
    folder = invoke(*arguments, tmp_path / "a", "--data", tmp_path / "digits")
    invoke(*arguments, tmp_path / "b", "--source", "digits", "--per-class", 12)

    assert "Data: digits/train-12." in folder.stdout
    tables = [json.loads((tmp_path / name / "tables.json").read_text()) for name in "ab"]
    arms = [table["experiments"][0]["arms"] for table in tables]
    for one, other in zip(*arms, strict=True):
        for quantity in ("loss", "test", "heldout"):
            assert one[quantity] == other[quantity]


@pytest.mark.slow
@pytest.mark.any_backend
@pytest.mark.usefixtures("without_figures")
def test_own_folder_without_heldout(invoke, short, tmp_path, write_images):
    """A user's folder trains without held-out images; other classes and sizes are fine."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
    folder = write_images(tmp_path / "mine", images, np.repeat([0, 1, 2], 8))
    result = invoke("run", short, "--data", folder, "--seeds", 2, "--output", tmp_path / "out")
    assert "held-out (–)" in result.stdout
    assert "Data: mine." in result.stdout
    assert "Partial" not in result.stdout  # the resized images that were got wrong are kept, too


@pytest.mark.any_backend
@pytest.mark.usefixtures("offline")
def test_digits_stand_in_and_say_why(invoke, short, tmp_path):
    """Without MNIST the embedded digits are used, and one line gives the reason."""
    result = invoke("run", short, "--seeds", 1, "--output", tmp_path / "out")
    assert "no network" in result.stderr
    assert "these numbers do not compare with the original's" in result.stderr
    assert "Data: digits (scikit-learn)." in result.stdout


def test_diverged_runs_exit_with_6(invoke, tmp_path, write_experiment):
    """Tables are printed, the run is marked, and the exit code says so."""
    steep = {"optimizer": "sgd", "activation": "relu", "learning_rate": 1e38}
    short = write_experiment(tmp_path, *ARMS, **steep)
    arguments = ("run", short, "--source", "digits", "--seeds", 1, "--output", tmp_path / "out")
    assert "diverged at epoch" in invoke(*arguments, code=6).stdout


# The words after `mnist-keras`, the exit code, and what is said.
WRONG = {
    "unknown experiment": ("run los", 2, "unknown experiment 'los'. Did you mean 'loss'?"),
    "no such file": ("run none.toml", 2, "none.toml: cannot be read"),
    "wrong TOML": ("run wrong.toml", 2, "wrong.toml: not a TOML file"),
    "no command": ("rum", 2, "No such command 'rum'"),
    "seed -1": ("data digits d --seed -1", 2, "-1 is not in the range"),
    "no seeds": ("run --seeds 0", 2, "0 is not in the range"),
    "two sources": ("run --data images --idx idx", 2, "leave out --source and --idx"),
    "split and draw": ("run --data images --split s.csv --per-class 9", 2, "leave out --per-class"),
    "no split": ("run short.toml --source digits --split s.csv", 3, "s.csv: cannot be read"),
    "no such choice": ("run --on-bad ignore", 2, "'ignore' is not one of"),
    "check an empty path": ("check ''", 2, "the path is empty"),
    "run on an empty path": ("run --data ''", 2, "the path is empty"),
    "too few to split": ("run short.toml --data few", 3, "leaves 2 for training"),
    "check nothing": ("check", 2, "Missing argument 'DIR'"),
    "unwritable": ("run short.toml --output file", 2, "file: cannot be written"),
    "missing folder": ("run short.toml --data no", 3, "No such file or directory"),
    "empty folder": ("run short.toml --data empty", 3, "found no folders"),
    "bad image": ("run short.toml --data images", 3, "b/bad.png: not a BMP, GIF, JPEG"),
    "bad IDX": ("run short.toml --idx idx", 3, "not an IDX file of bytes"),
    "no IDX": ("run short.toml --idx no", 3, "no such folder of IDX files"),
    "few": ("run short.toml --source digits --per-class 500", 3, "fewer than the 500 to draw"),
    "data exists": ("data digits .", 3, "heldout: exists already"),
    "unwritable data": ("data digits file/x", 3, "cannot be written"),
    "digits from IDX": ("data digits d --idx idx", 3, "reads no IDX files"),
    "misspelt backend": ("run --backend jaxx", 4, "Did you mean 'jax'?"),
    "cannot train": ("run --backend numpy", 4, "'numpy' cannot train"),
}


@pytest.mark.any_backend
@pytest.mark.parametrize(("words", "code", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.usefixtures("short")
def test_wrong_input_is_one_line(words, code, message, invoke, tmp_path, monkeypatch):
    """Wrong input gives the documented exit code and one line that says what and where."""
    for name, angle in (("a", 0), ("b", 90)):
        (tmp_path / "images" / name).mkdir(parents=True)
        picture = Image.linear_gradient("L").rotate(angle).resize((28, 28))
        picture.save(tmp_path / "images" / name / "good.png")
    shutil.copytree(tmp_path / "images", tmp_path / "few")
    (tmp_path / "images" / "b" / "bad.png").write_text("not an image")
    (tmp_path / "idx").mkdir()
    for name in ("images-idx3", "labels-idx1"):
        (tmp_path / "idx" / f"t10k-{name}-ubyte").write_bytes(b"<html>")
    (tmp_path / "wrong.toml").write_text("title =")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "heldout").mkdir()
    monkeypatch.chdir(tmp_path)

    result = invoke(*shlex.split(words), code=code)

    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "words",
    [
        "run short.toml --data images --output images/results",
        "run short.toml --data images --output images",
        "run short.toml --data images --output images/a/../new/results",
        "run short.toml --data images --output link/results",
        "run short.toml --data link/../images --output images/results --backend all",
        "run short.toml --data link --output images/results --dry-run",
        "run short.toml --data images --save-split images/split.csv",
        "run short.toml --source mnist --idx images --output images/results",
        "train --data images -o images/m.keras",
        "train --data other -o link/m.keras --best --unlabeled images",
        "pretrain images -o images/m.keras",
        "explain none.keras images --output images/pictures",
        "explain none.keras link -o images/a/pictures",
        "evaluate none.keras images --output images/scores",
        "data digits images/digits --idx images",
    ],
)
@pytest.mark.usefixtures("short")
def test_nothing_is_written_into_the_data(words, invoke, tmp_path, two_classes, monkeypatch):
    """Whatever the command and the spelling, it is refused before anything is made."""
    two_classes.rename(tmp_path / "images")
    (tmp_path / "link").symlink_to("images")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    refused = invoke(*words.split(), code=2).stderr
    assert refused.splitlines()[-1].endswith(", where nothing is written")
    assert "Backend" not in refused
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.any_backend
@pytest.mark.parametrize("there", [".", "a"])
def test_default_results_lie_beside_the_data(there, invoke, short, two_classes, monkeypatch):
    """In the data folder, or in one of its classes, the default is another folder, and is said."""
    monkeypatch.chdir(two_classes / there)
    dry = ("--dry-run", "--data", two_classes)
    said = invoke("run", short, *dry).stderr
    assert f"Results go to {two_classes}-results: nothing is written into the data." in said
    assert invoke("run", short, *dry, "--output", f"{two_classes}-other").stderr == ""
    assert invoke("run", short, "--dry-run").stderr == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "code", "jobs"), [(signal.SIGINT, 130, "1"), (signal.SIGTERM, 143, "2")]
)
@pytest.mark.usefixtures("interruptible")
def test_signals_end_with_their_codes(write_experiment, tmp_path, number, code, jobs):
    """Ctrl-C and SIGTERM leave the tables of what is done, no process, and end with their codes."""
    endless = {"name": "endless", "loss": "crossentropy", "epochs": 100000}
    short = write_experiment(tmp_path, *ARMS, endless)
    arguments = ("run", short, "--source", "digits", "--seeds", "1", "--output", tmp_path / "out")
    command = [sys.executable, "-m", "mnist_keras", *arguments, "--jobs", jobs]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True) as process:
        next(line for line in process.stderr if line.startswith("[1/"))
        time.sleep(1)
        process.send_signal(number)
        rest = process.stderr.read()  # to its end, which processes of --jobs would put off
        assert process.wait(timeout=60) == code
        printed = process.stdout.read()
    assert "Stopped by" in rest
    assert "Traceback" not in rest
    assert "Partial: 1 of 2 runs are missing." in printed
    assert printed.startswith((tmp_path / "out" / "tables.md").read_text())
