"""What the benchmarks share: options, functions to time, rounds that alternate, and the table."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from mnist_keras._foundations.texts import markdown_table


def options(description, *paths, **defaults):
    """Return the command line's paths, and its options, which have these defaults."""
    parser = argparse.ArgumentParser(description=description)
    for name in paths:
        parser.add_argument(name, type=Path)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def print_table(rows):
    print("\n".join(markdown_table(list(rows))))


def alternate(measure, steps, rounds):
    """Return each step's measurements by name; taking turns, all suffer alike from other work."""
    found = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            found[name].append(measure(step))
    return found


def seconds_per_call(step, seconds):
    """Return the mean duration of the calls of `step` that begin within this many seconds."""
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        step()
        calls += 1
    return elapsed / calls


def run_process(command):
    """Run a command and return wall seconds, CPU seconds and peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    line = " ".join(map(str, command))
    if status:
        sys.exit(f"{line} ended with status {status}")
    wall = time.perf_counter() - started
    print(f"{wall:.1f} s: {line}", file=sys.stderr)
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def gradient_step(function, x, *others, xla=True):
    """Return a function that computes `function(x, *others)` and returns its gradient in x."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(jax.value_and_grad(function))
        given = [jax.numpy.asarray(array) for array in (x, *others)]
        return lambda: jax.block_until_ready(compiled(*given))[1]

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=xla)
        def compiled(x, *others):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = function(x, *others)
            return value, tape.gradient(value, x)

        given = [tf.constant(array) for array in (x, *others)]
        return lambda: compiled(*given)[1].numpy()

    import torch

    torch.set_num_threads(1)  # threads that wait for a busy core would be all we measure
    x, others = torch.tensor(x, requires_grad=True), [torch.tensor(array) for array in others]
    return lambda: torch.autograd.grad(function(x, *others), x)[0]
