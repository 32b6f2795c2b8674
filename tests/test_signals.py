"""Ctrl-C and SIGTERM: never lost, whenever they come, and what was done is whole."""

import gc
import os
import shutil
import signal
import subprocess
import sys

import pytest

from mnist_keras._foundations import stopping
from mnist_keras.cli import stoppable
from mnist_keras.datasets.batches import WarpedBatches
from mnist_keras.experiments import run as running
from mnist_keras.experiments.results_folder import ResultsFolder

pytestmark = [
    pytest.mark.any_backend,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
    pytest.mark.usefixtures("interruptible", "without_figures"),
]

ARMS = ({"name": "one"}, {"name": "other", "loss": "crossentropy"})
TABLES = ("tables.md", "tables.csv", "tables.tex", "tables.json")
# Keras tells the batches of each epoch, and each training, when it begins and when it ends.
IN_THE_SECOND_RUN = 7
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture
def arguments(tmp_path, write_experiment):
    """The words of a command of two short runs, whose output is the folder `out`."""
    experiment, options = write_experiment(tmp_path, *ARMS), ("--source", "digits", "--seeds", 1)
    return ("run", experiment, *options, "--output", tmp_path / "out")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, write_experiment, invoke):
    """The folder of those runs, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    experiment = write_experiment(folder, *ARMS)
    invoke("run", experiment, "--source", "digits", "--seeds", 1, "--output", folder / "out")
    return folder / "out"


def contents(folder):
    return {name: (folder / name).read_bytes() for name in TABLES}


def plainly(send):
    send()


def in_a_collection(send):
    """Send a signal while Python calls a callback of its garbage collector."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        send()

    gc.callbacks.append(callback)
    gc.collect()


def in_a_destructor(send):
    class Sender:
        def __del__(self):
            send()

    Sender()


@pytest.fixture
def signaled(monkeypatch):
    """The function that makes the call of a method, of that number, send a signal first."""

    def at(kind, method, call, number, where):
        real, calls = getattr(kind, method), []

        def calling(*arguments):
            calls.append(1)
            if len(calls) == call:
                where(lambda: os.kill(os.getpid(), number))
            return real(*arguments)

        monkeypatch.setattr(kind, method, calling)

    return at


@pytest.mark.parametrize(
    ("kind", "method", "call", "done", "number", "where"),
    [
        (ResultsFolder, "write_plan", 1, 0, signal.SIGTERM, in_a_collection),
        (ResultsFolder, "write_record", 1, 1, signal.SIGINT, in_a_destructor),
        (WarpedBatches, "set_epoch", IN_THE_SECOND_RUN, 1, signal.SIGINT, in_a_collection),
        (WarpedBatches, "set_epoch", IN_THE_SECOND_RUN, 1, signal.SIGTERM, in_a_destructor),
    ],
)
def test_a_run_is_stopped_whenever_the_signal_comes(
    arguments, whole, invoke, signaled, tmp_path, kind, method, call, done, number, where
):
    """What is done is in whole tables; the same command then ends with those of a whole run."""
    signaled(kind, method, call, number, where)
    with stoppable():
        stopped = invoke(*arguments, code=CODES[number])
    assert "Stopped by" in stopped.stderr
    records, damaged = ResultsFolder(tmp_path / "out").records()
    assert (len(records), damaged) == (done, [])
    assert not done or (tmp_path / "out" / "tables.md").read_text() in stopped.stdout
    assert ("Partial: 1 of 2 runs are missing." in stopped.stdout) == (done == 1)
    invoke(*arguments)
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize("command", ["train", "pretrain", "demo"])
@pytest.mark.usefixtures("offline")
def test_every_training_is_stopped(command, invoke, signaled, tmp_path, two_classes):
    """A model whose training is stopped is not written, and no page is shown."""
    signaled(WarpedBatches, "set_epoch", 1, signal.SIGTERM, in_a_destructor)
    output = tmp_path / "model.keras"
    words = {
        "train": ("--source", "digits", "--model", "basic_net", "--epochs", 3, "-o", output),
        "pretrain": (two_classes, "--epochs", 3, "--width", 1, "-o", output),
        "demo": ("--no-browser",),
    }[command]
    if command == "demo":
        pytest.importorskip("starlette", reason="the page needs Starlette")
    with stoppable():
        stopped = invoke(command, *words, code=143)
    assert "Stopped by SIGTERM." in stopped.stderr
    assert not output.exists()


def test_a_worker_is_stopped(arguments, whole, invoke, signaled, tmp_path, monkeypatch):
    """A process of --jobs ends as well, and leaves the records that it has written."""
    monkeypatch.setattr(running, "pin", lambda cores: None)
    (tmp_path / "out" / "records").mkdir(parents=True)
    shutil.copy(whole / "plan.json", tmp_path / "out")
    signaled(WarpedBatches, "set_epoch", IN_THE_SECOND_RUN, signal.SIGTERM, in_a_collection)
    with stoppable():
        invoke(*arguments, "--only", "0,1", "--cores", "0", code=143)
    assert len(ResultsFolder(tmp_path / "out").records()[0]) == 1


@pytest.mark.parametrize("where", [in_a_collection, in_a_destructor])
def test_workers_end_with_their_parent(where):
    """A signal that comes while the parent starts or watches a process leaves none running."""
    started = []

    def start(task, worker):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]))
        where(lambda: os.kill(os.getpid(), signal.SIGTERM))
        return started[-1]

    with stoppable(), pytest.raises(SystemExit), stopping.deferred():
        running.work([[0]], 1, start, lambda run: False)
    assert started[0].poll() == -signal.SIGKILL


TWICE = """
import os, signal, time
from mnist_keras._foundations import stopping
from mnist_keras.cli import stoppable
with stoppable(), stopping.deferred():
    os.kill(os.getpid(), signal.{first})
    time.sleep({seconds})
    os.kill(os.getpid(), signal.{second})
    print("goes on", flush=True)
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("first", "second", "code"), [("SIGTERM", "SIGTERM", 143), ("SIGTERM", "SIGINT", 130)]
)
def test_a_second_signal_ends_at_once(first, second, code, python):
    """Whatever the program is doing; two signals at once are one, as `timeout` sends them."""
    words = {"first": first, "second": second}
    assert python("-c", TWICE.format(seconds=0.5, **words), codes=[code]) == ""
    assert python("-c", TWICE.format(seconds=0, **words), codes=[143]) == "goes on\n"


def test_a_librarys_caller_keeps_its_handlers(digits_data):
    """Neither importing nor training nor the command line as a function handles signals."""
    from mnist_keras.training import Run, Settings, train

    handlers = [signal.getsignal(number) for number in CODES]
    settings = Settings(model="basic_net", epochs=1)
    assert train(Run.whole(settings, 0), digits_data).record.history.loss
    assert [signal.getsignal(number) for number in CODES] == handlers
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) not in handlers
    assert [signal.getsignal(number) for number in CODES] == handlers


def test_training_ends_with_its_batch(digits_data):
    """No epoch follows the one in which a stop is asked for."""
    from mnist_keras.training import Run, Settings, train

    epochs = []

    def on_epoch(epoch, loss):
        epochs.append(epoch)
        stopping.ask(KeyboardInterrupt())

    run = Run.whole(Settings(model="basic_net", epochs=3), 0)
    with pytest.raises(KeyboardInterrupt), stoppable(), stopping.deferred():
        train(run, digits_data, on_epoch=on_epoch)
    assert epochs == [1]
