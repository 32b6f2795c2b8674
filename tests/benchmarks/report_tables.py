"""Time `mnist-keras run` beside the original's program, as whole processes that alternate.

    python tests/benchmarks/report_tables.py IDX_FOLDER --backends jax tensorflow torch --rounds 3

Prints a Markdown table: each program's seconds and peak memory (the median over the rounds), and
its ratio to the original's program in each round. The backends and PyTorch must be installed.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from shared import alternate, print_table, run_process


def rows(idx_folder, backends, rounds):
    yield ["program", "seconds", "CPU seconds", "peak MB", "ratio of seconds (each round)"]
    original_program = Path(__file__).with_name("original_program.py")
    programs = {"original's program": [sys.executable, original_program, idx_folder]}
    with tempfile.TemporaryDirectory() as output:
        for backend in backends:
            programs[f"mnist-keras, {backend}"] = [
                *(sys.executable, "-m", "mnist_keras", "run", "--seeds", "1"),
                *("--backend", backend, "--idx", idx_folder, "--output", Path(output, backend)),
            ]
        measured = alternate(run_process, programs, rounds)
    yardstick, *_ = measured.values()
    for name, own in measured.items():
        wall, cpu, memory = (statistics.median(values) for values in zip(*own, strict=True))
        ratios = [ours[0] / base[0] for ours, base in zip(own, yardstick, strict=True)]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        ratio = f"{statistics.median(ratios):.2f} ({each})"
        yield [name, f"{wall:.1f}", f"{cpu:.1f}", f"{memory:.0f}", ratio]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("idx_folder", type=Path)
parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
parser.add_argument("--rounds", type=int, default=3)
print_table(rows(**vars(parser.parse_args())))
