"""What is printed on a terminal: tables and progress, no wider than it is."""

import os
import re
import struct
import subprocess
import sys

import pytest

from mnist_keras.experiments.experiment import Experiment
from mnist_keras.experiments.plan import Plan
from mnist_keras.experiments.results_folder import ResultsFolder

pytestmark = [
    pytest.mark.any_backend,
    pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals"),
]


@pytest.fixture
def on_terminal():
    """The function that runs Python on a terminal and returns the lines it leaves there."""
    import fcntl
    import pty
    import termios

    def run(columns, *arguments):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        command = [sys.executable, *map(str, arguments)]
        with subprocess.Popen(command, env=environment | {"TERM": "xterm"}, **streams) as process:
            os.close(theirs)
            written = bytearray()
            try:
                while part := os.read(ours, 65536):
                    written += part
            except OSError:  # Linux's way to say that the other side is closed
                pass
        os.close(ours)
        assert process.returncode == 0, written.decode()
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
        return [
            line.rsplit("\r", 1)[-1].rstrip() for line in plain.replace("\r\n", "\n").split("\n")
        ]

    return run


@pytest.fixture
def folder(record, tmp_path):
    """A results folder of three arms with made-up numbers at six seeds."""
    losses = {"A": "focal", "B": "crossentropy", "C": "crossentropy"}
    arms = [
        {"name": name, "loss": loss, "batch_size": 50 if name == "C" else 100}
        for name, loss in losses.items()
    ]
    claims = [
        {"text": f"{name} is better than B.", "arm": name, "against": "B"} for name in ("A", "C")
    ]
    experiment = Experiment(name="two", title="Two losses", arms=arms, claims=claims)
    better = {
        "A": lambda seed: 0.1,
        "B": lambda seed: 0.0,
        "C": lambda seed: 0.01 * (seed % 3) ** 2,
    }
    made = [
        record(seed, arm.settings, heldout=0.7 + better[arm.name](seed) + 0.001 * seed)
        for arm in experiment.arms
        for seed in range(6)
    ]
    results = ResultsFolder(tmp_path / "results")
    with results.writing():
        results.write_plan(
            Plan(
                experiments=(experiment,),
                versions=made[0].versions,
                data_name=made[0].data_name,
                data_fingerprints={one.run.seed: one.data_fingerprint for one in made},
            )
        )
        for one in made:
            results.write_record(one)
    return results.path


@pytest.mark.parametrize("columns", [60, 80])
def test_a_report_fits(columns, folder, on_terminal, invoke):
    """Verdicts come before tables, in whole words; losses by epoch are left to the files."""
    lines = on_terminal(columns, "-m", "mnist_keras", "report", folder)
    assert max(len(line) for line in lines[:-3]) <= columns
    text = " ".join(" ".join(lines).split())
    assert text.index("supported: A is better than B.") < text.index("held-out (n =")
    assert "Training loss" not in text
    assert "report.html Open claims: 1 of 2." in text
    # The differences are 0, 1 and 4 points, twice: 2.36 · 1.86 / √8 is less than their mean.
    assert text.endswith("At differences like these, --seeds 8 would settle 1.")
    assert invoke("report", folder).stdout.startswith((folder / "tables.md").read_text())


def test_a_report_is_whole_if_asked_for(folder, on_terminal):
    """--verbose shows losses by epoch and costs as well."""
    text = "\n".join(on_terminal(100, "-m", "mnist_keras", "report", folder, "--verbose"))
    assert "Training loss, mean over the seeds:" in text
    assert "CPU seconds" in text


PROGRESS = """
from mnist_keras.cli.progress import progress
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings
run = Run.whole(Settings(), seed=3)
with progress([run]) as show:
    on_epoch = show(run)
    for epoch in (1, 2):
        on_epoch(epoch, 0.5)
"""


@pytest.mark.parametrize("columns", [60, 120])
def test_progress_fits(columns, on_terminal):
    """Epoch, loss and time left are always there; the name of the run is what is cut."""
    lines = on_terminal(columns, "-c", PROGRESS)
    (line,) = [line for line in lines if "[1/1]" in line]
    assert re.fullmatch(r"\[1/1\] cnn .* epoch 2/10, loss 0\.5000 \S+ [-\d:]+", line), line
    assert len(line) <= columns
    assert ("seed 3" in line) == (columns == 120)
