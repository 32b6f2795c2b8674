"""The results folder: resumed, locked, swept, killed, and the same bytes in the end."""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from mnist_keras._foundations.files import FileError
from mnist_keras.experiments.experiment import Experiment
from mnist_keras.experiments.plan import Plan, choose, widened
from mnist_keras.experiments.results_folder import ResultsFolder
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

pytestmark = pytest.mark.any_backend
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

ARMS = (
    {"name": "one", "epochs": 1},
    {"name": "two"},
    {"name": "cross entropy", "loss": "crossentropy"},
)
CLAIM = {"text": "Two epochs beat one.", "arm": "two", "against": "one"}
TABLES = ("tables.md", "tables.csv", "tables.tex", "tables.json")
FIGURES = ("loss.png", "accuracy.png")


@pytest.fixture
def short(tmp_path, write_experiment):
    return write_experiment(tmp_path, *ARMS, claims=[CLAIM])


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory, write_experiment, invoke):
    """The folder of the short experiment, run to its end, and what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    short = write_experiment(folder, *ARMS, claims=[CLAIM])
    return folder / "out", invoke(*arguments(short, folder / "out"))


@pytest.fixture
def finished(finished_once, tmp_path):
    """A copy of its folder, to do with as one likes."""
    return shutil.copytree(finished_once[0], tmp_path / "out")


def arguments(experiment, output, seeds=2):
    options = ("--source", "digits", "--seeds", seeds, "--output", output)
    return list(map(str, ("run", experiment, *options)))


@pytest.fixture
def run(invoke, short):
    """The function that runs the short experiment into a folder."""
    return lambda output, code=0: invoke(*arguments(short, output), code=code)


def contents(folder, names=TABLES):
    return {name: (folder / name).read_bytes() for name in names}


def trained(result):
    """Return how many runs a command trained."""
    return result.stderr.count(": loss ")


def test_again_trains_nothing_and_prints_the_same(run, finished_once, finished):
    """A finished run is printed again from its records, byte for byte."""
    before = contents(finished, TABLES + FIGURES)
    first, again = finished_once[1], run(finished)
    assert (trained(first), trained(again)) == (4, 0)
    assert "4 of 4 runs are already there." in again.stderr
    assert again.stdout == first.stdout
    assert contents(finished, TABLES + FIGURES) == before


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_only_what_is_missing_or_damaged_is_trained(run, finished):
    """A record that is gone, cut, changed or foreign is redone; what was there is kept aside."""
    before = contents(finished)
    paths = sorted((finished / "records").glob("*.json"))
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    paths[2].write_bytes(paths[3].read_bytes())
    again = run(finished)
    assert trained(again) == 3
    assert contents(finished) == before
    aside = sorted((finished / "records").glob("*.damaged-*"))
    assert aside == [path.with_name(f"{path.name}.damaged-0") for path in paths[1:3]]
    assert all(f"{path}: " in again.stderr for path in paths[1:3])
    assert sorted((finished / "records").glob("*.json")) == paths


@pytest.mark.usefixtures("without_figures")
def test_other_versions_and_data_are_never_mixed_in(run, finished):
    """A record of another version or of other images stays where it is and is in no table."""
    before = contents(finished)
    folder = ResultsFolder(finished)
    found, _ = folder.records()
    one = found[0].replace(history=found[0].history.replace(loss=(9.0, 9.0)))
    folder.write_record(one.replace(versions={**one.versions, "keras": "3.0"}))
    folder.write_record(one.replace(data_fingerprint="other"))
    folder.write_record(one.replace(run=replace(one.run, seed=9)))
    assert trained(run(finished)) == 0
    assert contents(finished) == before


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_more_epochs_and_earlier_scores(run, finished, tmp_path, write_experiment):
    """A longer training serves a shorter arm; a run scored elsewhere is trained again, wider."""
    write_experiment(tmp_path, {"name": "a", "epochs": 1})
    assert trained(run(finished)) == 0
    write_experiment(tmp_path, *ARMS[:2], loss="crossentropy")
    assert trained(run(finished)) == 2
    found, _ = ResultsFolder(finished).records()
    assert sorted(tuple(record.scores) for record in found) == [(1, 2)] * 4


def test_choose_and_widened(record):
    """Of several fitting records the shortest is taken; a new one keeps the old one's scores."""
    settings = Settings(model="basic_net", epochs=2)
    run = Run(settings=settings, seed=0, scored_at=(2,))
    record = record(0, settings, run=run)
    record = record.replace(scores={2: record.scores[2]})
    more = replace(run, settings=settings.replace(epochs=3))
    longer = record.replace(run=more)
    experiment = Experiment(name="x", title="x", arms=[{"name": "a", **dict(settings)}])
    of_record = {"data_name": "", "data_fingerprints": {0: record.data_fingerprint}}
    plan = Plan(experiments=(experiment,), versions=record.versions, **of_record)

    assert plan.runs == [run]
    assert choose(plan, [longer, record]) == {run: record}
    assert choose(plan, [longer]) == {run: longer}
    for other in (
        {"scores": {}},
        {"versions": {**record.versions, "keras": "3.0"}},
        {"data_fingerprint": "other"},
        {"run": replace(run, seed=1)},
        {"run": replace(run, settings=settings.replace(optimizer="sgd"))},
    ):
        assert choose(plan, [record.replace(**other)]) == {}
    diverged = record.history.replace(loss=(math.nan,))
    assert choose(plan, [record.replace(scores={}, history=diverged)])[run].history.diverged == 1
    assert widened(replace(run, scored_at=(1,)), [record]).scored_at == (1, 2)
    assert widened(replace(run, seed=1, scored_at=(1,)), [record]).scored_at == (1,)


def test_a_second_process_is_refused(run, tmp_path):
    """Who comes second to a folder is told who is there, and changes nothing."""
    out = tmp_path / "out"
    with ResultsFolder(out).writing() as stopped:
        assert stopped is None
        refused = run(out, code=2)
        assert f"{out}: another run (process {os.getpid()}) is writing here" in refused.stderr
        assert not list((out / "records").iterdir())
    with ResultsFolder(out).writing() as stopped:
        assert stopped is None


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
@pytest.mark.usefixtures("without_figures")
def test_a_file_system_without_locks(number, run, tmp_path, monkeypatch):
    """A file stands for the lock: it is said, keeps a second run out, and is gone at the end."""

    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    out = tmp_path / "out"
    (out / "records").mkdir(parents=True)
    (out / ".lock").touch()  # of a run on another machine
    with ResultsFolder(out).writing() as said:
        assert said == "the file system has no locks; a file .soft-lock stands for one"
        refused = run(out, code=2).stderr
        assert f"another run (process {os.getpid()}) is writing here" in refused
        assert "remove it if there is no such run" in refused
    assert sorted(path.name for path in out.iterdir()) == [".lock", "records"]
    with ResultsFolder(out).writing() as said:
        assert said


@pytest.mark.usefixtures("without_figures")
def test_a_stale_lock_is_no_lock(run, finished):
    """What a killed run leaves is named and swept, and does not stop the next one."""
    out = finished
    (out / ".running").write_text("12345")
    names = (".tables.md.12345.unfinished.md", "records/.a.json.1.unfinished.json")
    leftovers = [out / name for name in names]
    for leftover in leftovers:
        leftover.write_text("half")
    records, damaged = ResultsFolder(out).records()
    assert (len(records), damaged) == (4, [])
    result = run(out)
    assert "the last run here (process 12345) was stopped" in result.stderr
    assert not any(leftover.exists() for leftover in leftovers)
    assert "was stopped" not in run(out).stderr


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_full_disk_loses_nothing(run, finished, tmp_path, monkeypatch):
    """When the disk is full the run ends with one line; what it had is whole; it can go on."""
    out = tmp_path / "full"
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        failed = run(out, code=2)
    assert "cannot be written: No space left on device" in failed.stderr
    found, refused = ResultsFolder(out).records()
    assert (len(found), refused) == (2, [])
    assert trained(run(out)) == 2
    assert contents(out) == contents(finished)


def test_report_from_records_alone(invoke, finished):
    """The report makes every file again, and says what it leaves out."""
    before = contents(finished, TABLES + FIGURES)
    for name in (*TABLES, *FIGURES, "report.html", "costs.md"):
        (finished / name).unlink()
    again = invoke("report", finished)
    assert contents(finished, TABLES + FIGURES) == before
    assert again.stdout.startswith((finished / "tables.md").read_text())
    assert str(finished / "report.html") in again.stderr
    for format, name in (("csv", "tables.csv"), ("json", "tables.json"), ("html", "report.html")):
        shown = invoke("report", finished, "--format", format)
        assert shown.stdout == (finished / name).read_text()
    invoke("report", finished, "--strict", code=5)  # two seeds are too few to tell

    path = sorted((finished / "records").glob("*.json"))[0]
    path.write_text("{")
    partial = invoke("report", finished)
    assert f"left out: {path}: not a record" in partial.stderr
    assert "Partial: 1 of 4 runs are missing." in partial.stdout
    assert path.exists()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({}, "no results of `mnist-keras run`"),
        ({"out": None}, "no results of `mnist-keras run`"),
        ({"out": ""}, "cannot be read: Not a directory"),
        ({"out": None, "out/plan.json": "{}"}, "another version"),
        ({"out": None, "out/plan.json": '{"format": 4}'}, "not a plan"),
        ({"out": None, "out/plan.json": "["}, "not a plan"),
    ],
)
def test_report_of_something_else(made, message, invoke, tmp_path):
    """A folder without results is one line and exit code 2, and stays as it is."""
    out = tmp_path / "out"
    for name, text in made.items():
        (tmp_path / name).mkdir() if text is None else (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    assert message in invoke("report", out, code=2).stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("without_figures")
def test_a_folder_of_another_version_is_refused(run, finished):
    """Its records are not set aside one by one: one line says why, and nothing changes."""
    path = finished / "plan.json"
    path.write_text(path.read_text().replace('"format": 4', '"format": 3', 1))
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert f"{path}: written by another version of mnist-keras" in run(finished, code=2).stderr
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_report_needs_no_backend(finished, python):
    """Neither Keras nor a backend is imported."""
    code = (
        "import sys; from mnist_keras.cli import cli\n"
        f"cli(['report', {str(finished)!r}, '--format', 'json'], standalone_mode=False)\n"
        "assert not {'keras', 'jax', 'tensorflow', 'torch'} & set(sys.modules)"
    )
    json.loads(python("-c", code))


# Does to a folder what `run` does to it, but copies the records of another one and trains nothing.
# Its disk is slow, so that each file is half written for a while. It does so in a process of its
# own, killed at a random moment after that one has begun to write, again and again; the last one
# is left alone.
KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from mnist_keras.experiments.plan import choose
from mnist_keras.experiments.report import figures
from mnist_keras.experiments.report.write import write_report
from mnist_keras.experiments.results_folder import ResultsFolder
from mnist_keras.experiments.run import missing_runs

ready, out = (ResultsFolder(Path(path)) for path in sys.argv[1:3])
plan = ready.read_plan()
records = choose(plan, ready.records()[0])
figures.all_figures = lambda results: {}  # takes longer than everything else

def start():
    reading, begins = os.pipe()
    child = os.fork()
    if child:
        os.close(begins)
        os.read(reading, 1)
        return child

    def write_slowly(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            os.write(begins, b".")
            time.sleep(0.03)
            file.write(content[len(content) // 2 :])

    Path.write_bytes = write_slowly
    with out.writing():
        out.write_plan(plan)
        out.set_aside_damaged()
        for run in missing_runs(plan, out):
            out.write_record(records[run])
        write_report(out)
    os._exit(0)

moments, killed = random.Random(0), 0
for _ in range(int(sys.argv[3])):
    child = start()
    time.sleep(moments.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    assert out.records()[1] == []
assert os.waitpid(start(), 0)[1] == 0
print(killed, "killed")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forks")
def test_twenty_kills_at_random_moments(record, tmp_path, python):
    """However often and whenever a folder's writer is killed, it ends with the same bytes."""
    settings = Settings(model="basic_net", epochs=2)
    made = [record(seed, settings) for seed in range(20)]
    arms = [{"name": "a", **dict(settings)}]
    plan = Plan(
        experiments=(Experiment(name="short", title="Short", arms=arms),),
        versions=made[0].versions,
        data_name=made[0].data_name,
        data_fingerprints={one.run.seed: one.data_fingerprint for one in made},
    )
    ready = ResultsFolder(tmp_path / "ready")
    with ready.writing():
        ready.write_plan(plan)
        for one in made:
            ready.write_record(one)
    python("-c", KILLS, ready.path, tmp_path / "whole", 0)
    assert int(python("-c", KILLS, ready.path, tmp_path / "out", 20).split()[0]) > 10
    assert contents(tmp_path / "out", TABLES) == contents(tmp_path / "whole", TABLES)
    assert not list((tmp_path / "out").rglob("*.unfinished*"))


@posix
@pytest.mark.slow
def test_a_killed_run_goes_on(short, finished, tmp_path):
    """The program itself, killed twice: what it trained is kept, and its tables are the same."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mnist_keras", *arguments(short, out)]
    for records in (1, 2):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while len(ResultsFolder(out).records()[0]) < records:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    assert contents(out, TABLES + FIGURES) == contents(finished, TABLES + FIGURES)
    assert not list(out.rglob("*.unfinished*"))


def test_a_folder_that_cannot_be_one(tmp_path):
    """A file in the folder's place is found before any training."""
    (tmp_path / "file").touch()
    folder = ResultsFolder(tmp_path / "file")
    with pytest.raises(FileError, match="file: cannot be written"), folder.writing():
        pass
