"""Time the audit of a folder, and an epoch of its images from each cache, against Keras's loaders.

    KERAS_BACKEND=jax python tests/benchmarks/image_folder.py --images 60000 --rounds 3

Writes PNGs of 28×28 pixels into a temporary folder, then prints as Markdown: the seconds and peak
memory of a first and a second audit, each in its own process; the seconds of a walk over a million
files; and the images per second of a streamed epoch, ours and Keras's on the same files, as medians
of alternating rounds. Keras's loaders need TensorFlow and Grain.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

AUDIT = """
import sys
from pathlib import Path
from mnist_keras.datasets import user_images
user_images.read(Path(sys.argv[1])).require()
"""
BATCH = 100


def make(folder, count):
    """Write noisy pictures of two gray spots, no two alike, in ten classes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28]
    for number in range(count):
        spots = sum(
            np.exp(-((y - rng.uniform(6, 22)) ** 2 + (x - rng.uniform(6, 22)) ** 2) / 20)
            for _ in range(2)
        )
        image = (180 * spots + rng.uniform(0, 20, (28, 28))).clip(0, 255).astype(np.uint8)
        path = folder / str(number % 10) / f"{number}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(path)


def measure(command, environment):
    """Run a command and return wall seconds and peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} ended with status {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def loaders(folder):
    """Return data sets whose iteration is one epoch, by name."""
    import keras

    from mnist_keras import image_dataset_from_directory

    ours = {
        cache: image_dataset_from_directory(folder, validation_split=None, cache=cache)
        for cache in ("memory", "disk", "none")
    }
    theirs = {
        format: keras.utils.image_dataset_from_directory(
            folder, image_size=(28, 28), batch_size=BATCH, format=format, verbose=False
        )
        for format in ("tf", "grain")
    }
    return {f'cache="{name}"': data for name, data in ours.items()} | {
        f'Keras, format="{name}"': data for name, data in theirs.items()
    }


def images_per_second(batches, most_batches):
    """Return the speed of an epoch, or of its first batches."""
    started, seen = time.perf_counter(), 0
    for number, (x, _) in enumerate(batches):
        seen += len(np.asarray(x))
        if number == most_batches:
            break
    return seen / (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder, many = Path(temporary, "images"), Path(temporary, "many")
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary, "cache"))
        make(folder, arguments.images)
        print("| | seconds | peak MB |\n|---|---:|---:|")
        for name in ("first audit", "second audit"):
            seconds, memory = measure([sys.executable, "-c", AUDIT, folder], os.environ)
            print(f"| {name} of {arguments.images:,} images | {seconds:.1f} | {memory:.0f} |")

        from mnist_keras.datasets.image_folder.walk import walk

        for number in range(arguments.files):
            path = many / str(number % 10) / f"{number}.png"
            path.parent.mkdir(exist_ok=True, parents=True)
            original = number % arguments.images  # a file can have only some thousand links
            os.link(folder / str(original % 10) / f"{original}.png", path)
        started = time.perf_counter()
        assert len(walk(many).files) == arguments.files
        print(f"| walk of {arguments.files:,} files | {time.perf_counter() - started:.1f} | |")

        speeds = {}
        for number in range(arguments.rounds):
            for name, batches in loaders(folder).items():
                # Grain needs minutes for an epoch; its first batches show its speed.
                most = 20 if "grain" in name else arguments.images
                speeds.setdefault(name, []).append(images_per_second(batches, most))
                print(f"round {number + 1}: {name}: {speeds[name][-1]:.0f}", file=sys.stderr)
        print("\n| images per second | median | each round |\n|---|---:|---:|")
        for name, values in speeds.items():
            each = ", ".join(f"{value:,.0f}" for value in values)
            print(f"| {name} | {statistics.median(values):,.0f} | {each} |")


if __name__ == "__main__":
    main()
