"""Runs in processes of their own: cores are divided, bits are the same, a death costs one run."""

import os
import signal
import subprocess
import sys

import pytest

from mnist_keras.experiments.results_folder import ResultsFolder
from mnist_keras.experiments.run import divide, work

# Trains "runs" by making their files, and dies by a signal at the one called 2.
WORKER = """
import os, sys
for run in sys.argv[2:]:
    if run == "2":
        os.kill(os.getpid(), 9)
    open(os.path.join(sys.argv[1], run), "x").close()
"""


@pytest.mark.parametrize(
    ("cores", "jobs", "expected"),
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([0, 1, 2, 3, 4], 2, [[0, 1], [2, 3]]),
        ([3, 5], 2, [[3], [5]]),
        ([3, 5], 3, [[3], [5], [3]]),
        ([0], 1, [[0]]),
    ],
)
def test_cores_are_divided(cores, jobs, expected):
    """Every worker has equally many cores, of its own as far as there are enough."""
    assert divide(cores, jobs) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_worker_that_dies_fails_its_run_only(workers, tmp_path):
    """The other runs of its task are done by another process."""

    def start(task, worker):
        return subprocess.Popen([sys.executable, "-c", WORKER, tmp_path, *map(str, task)])

    tasks = [[0, 1, 2, 3], [4, 5]]
    failed = work(tasks, workers, start, lambda run: (tmp_path / str(run)).exists())
    assert failed == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "3", "4", "5"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_workers_end_with_their_parent(tmp_path):
    """When the parent is interrupted, no worker goes on."""
    started = []

    def start(task, worker):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]))
        if len(started) == 2:
            raise KeyboardInterrupt
        return started[0]

    with pytest.raises(KeyboardInterrupt):
        work([[0], [1]], 2, start, lambda run: False)
    started[1].kill()
    started[1].wait()
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot choose cores here")
def test_jobs_have_the_bits_of_one_process(tmp_path, write_experiment, python):
    """Two processes of one core each give the numbers of one process on one core."""
    write_experiment(tmp_path, {"name": "focal"})
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{core}]); os.environ['OMP_NUM_THREADS'] = '1'\n"
        "from mnist_keras.cli import main; main()"
    )
    options, last = ["run", "--source", "digits", "--seeds", 2, "--output"], ["--", "short.toml"]
    python("-c", code, *options, "one", *last, cwd=tmp_path)
    python("-m", "mnist_keras", *options, "two", "--jobs", 2, *last, cwd=tmp_path)
    one, two = (ResultsFolder(tmp_path / name).records()[0] for name in ("one", "two"))
    assert [record.name for record in one] == [record.name for record in two]
    assert [record.history.loss for record in one] == [record.history.loss for record in two]
    one, two = ((tmp_path / name / "tables.md").read_bytes() for name in ("one", "two"))
    assert one == two
