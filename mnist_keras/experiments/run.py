"""Run a plan: what to train, in which order, in this process or in several."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from mnist_keras._foundations import backends, stopping
from mnist_keras.datasets.images import class_samples
from mnist_keras.experiments.experiment import Experiment
from mnist_keras.experiments.plan import Plan, choose, widened
from mnist_keras.experiments.results_folder import ResultsFolder
from mnist_keras.training.data import Data, SeedImages
from mnist_keras.training.record import OnEpoch
from mnist_keras.training.run import Run

_POLL_SECONDS = 0.1


def plan_of(experiments: Iterable[Experiment], seeds: Sequence[int], images: SeedImages) -> Plan:
    """Return what is to be run, and on which data, with the versions of this process."""
    return Plan(
        experiments=tuple(experiments),
        data_name=images.name,
        data_fingerprints={seed: images.of(seed).fingerprint for seed in seeds},
        versions=backends.versions(),
        note=images.note,
        left_out=images.left_out,
        samples=class_samples(images.of(seeds[0]).images),
    )


def missing_runs(plan: Plan, folder: ResultsFolder) -> list[Run]:
    """Return the runs of a plan that have no record, scored also where a shorter one was."""
    there, _ = folder.records()
    done = choose(plan, there)
    return [widened(run, there) for run in plan.runs if run not in done]


def train_runs(
    runs: Iterable[Run],
    folder: ResultsFolder,
    data_of: Callable[[int], Data],
    show: Callable[[Run], OnEpoch],
) -> None:
    """Train runs one after the other and write their records; equal networks are compiled once.

    `data_of` returns the images of a seed, `show` what is called after each epoch of a run.
    """
    from mnist_keras.training.engine import train
    from mnist_keras.training.networks import Networks

    kept, networks = folder.trainings, Networks()
    for run in runs:
        data = data_of(run.seed)
        trained = train(run, data, on_epoch=show(run), kept=kept, networks=networks)
        folder.write_record(trained.record)


def tasks_of(runs: Sequence[Run], plan: Plan, jobs: int) -> list[list[int]]:
    """Return the numbers, in the plan, of the runs that each process is given at a time."""
    numbers = {run: number for number, run in enumerate(plan.runs)}
    tasks = []
    for _, group in groupby(runs, key=lambda run: run.settings):
        seeds = [numbers[run] for run in group]
        tasks += [part for start in range(jobs) if (part := seeds[start::jobs])]
    return tasks


def available_cores() -> list[int]:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def divide(cores: Sequence[int], jobs: int) -> list[list[int]]:
    """Return the cores of each of `jobs` workers: equally many, and each one's alone.

    Equally many, because the number of threads decides the last bits of a run. With more workers
    than cores, each has one core, and some share it.
    """
    each = max(1, len(cores) // jobs)
    return [[cores[(job * each + i) % len(cores)] for i in range(each)] for job in range(jobs)]


def pin(cores: Sequence[int]) -> None:
    """Keep this process, and the threads of a backend not yet imported, on some cores."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(len(cores))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def work(
    tasks: Sequence[Sequence[int]],
    workers: int,
    start: Callable[[Sequence[int], int], "subprocess.Popen[bytes]"],
    is_done: Callable[[int], bool],
) -> list[int]:
    """Do tasks, each the numbers of some runs, in this many processes at a time.

    One that dies or fails costs the run it was at, and no more: those runs are returned. `start`
    starts a process for some runs, as a worker from 0; `is_done` says whether a run has a record.
    """
    waiting = [list(task) for task in tasks]
    busy: dict[int, tuple[list[int], subprocess.Popen[bytes]]] = {}
    failed = []
    try:
        while waiting or busy:
            for worker in range(workers):
                if worker not in busy and waiting:
                    task = waiting.pop(0)
                    busy[worker] = task, start(task, worker)
            time.sleep(_POLL_SECONDS)
            stopping.check()
            for worker, (task, process) in list(busy.items()):
                if process.poll() is None:
                    continue
                del busy[worker]
                if rest := [run for run in task if not is_done(run)]:
                    failed.append(rest.pop(0))
                if rest:
                    waiting.insert(0, rest)
    finally:
        for _, process in busy.values():
            process.kill()
            process.wait()
    return failed
