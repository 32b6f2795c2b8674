"""Time `mnist-keras run` beside the original's program, as whole processes that alternate.

    python tests/benchmarks/report_tables.py IDX_FOLDER --backends jax tensorflow torch --rounds 3

Prints a Markdown table: each program's seconds and peak memory (the median over the rounds), and
its ratio to the original's program in each round. The backends and PyTorch must be installed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(command):
    """Run a command and return wall seconds, CPU seconds and peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))} ended with status {status}")
    wall = time.perf_counter() - started
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("idx_folder", type=Path)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    original_program = Path(__file__).with_name("original_program.py")
    programs = {"original's program": [sys.executable, original_program, arguments.idx_folder]}
    with tempfile.TemporaryDirectory() as output:
        for backend in arguments.backends:
            programs[f"mnist-keras, {backend}"] = [
                *(sys.executable, "-m", "mnist_keras", "run", "--seeds", "1"),
                *("--backend", backend, "--idx", arguments.idx_folder),
                *("--output", Path(output, backend)),
            ]
        measured = {name: [] for name in programs}
        for number in range(1, arguments.rounds + 1):
            for name, command in programs.items():
                measured[name].append(measure(command))
                print(f"round {number}: {name}: {measured[name][-1][0]:.1f} s", file=sys.stderr)

    yardstick, *_ = measured.values()
    print("| program | seconds | CPU seconds | peak MB | ratio of seconds (each round) |")
    print("|---|---:|---:|---:|---:|")
    for name, rounds in measured.items():
        wall, cpu, memory = (statistics.median(values) for values in zip(*rounds, strict=True))
        ratios = [own[0] / base[0] for own, base in zip(rounds, yardstick, strict=True)]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        median = statistics.median(ratios)
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {memory:.0f} | {median:.2f} ({each}) |")


if __name__ == "__main__":
    main()
