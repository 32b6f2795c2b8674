"""Time the audit of a folder, and an epoch of its images from each cache, against Keras's loaders.

    KERAS_BACKEND=jax python tests/benchmarks/image_folder.py --images 60000 --rounds 3

Writes PNGs of 28×28 pixels into a temporary folder, then prints as Markdown: the seconds and peak
memory of a first and a second audit, each in its own process; the seconds of a walk over a million
files; and the images per second of a streamed epoch, ours and Keras's on the same files, as medians
of alternating rounds. Keras's loaders need TensorFlow and Grain.
"""

import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from shared import options, print_table, run_process

AUDIT = """
import sys
from pathlib import Path
from mnist_keras.datasets import user_images
user_images.read(Path(sys.argv[1])).require()
"""
BATCH = 100


def path_in(folder, number):
    """Return the path of a file in the folder of its class, which is made."""
    path = folder / str(number % 10) / f"{number}.png"
    path.parent.mkdir(exist_ok=True, parents=True)
    return path


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
        Image.fromarray(image).save(path_in(folder, number))


def loaders(folder):
    """Return data sets whose iteration is one epoch, by name."""
    import keras

    from mnist_keras import image_dataset_from_directory

    how = {"image_size": (28, 28), "batch_size": BATCH, "verbose": False}
    ours = {
        f'cache="{cache}"': image_dataset_from_directory(folder, format=None, cache=cache, **how)
        for cache in ("memory", "disk", "none")
    }
    return ours | {
        f'Keras, format="{format}"': keras.utils.image_dataset_from_directory(
            folder, format=format, **how
        )
        for format in ("tf", "grain")
    }


def images_per_second(batches, most_batches):
    """Return the speed of an epoch, or of its first batches."""
    started, seen = time.perf_counter(), 0
    for x, _ in itertools.islice(batches, most_batches):
        seen += len(np.asarray(x))
    return seen / (time.perf_counter() - started)


def audits(folder, images, files):
    yield ["", "seconds", "peak MB"]
    for name in ("first audit", "second audit"):
        seconds, _, memory = run_process([sys.executable, "-c", AUDIT, folder])
        yield [f"{name} of {images:,} images", f"{seconds:.1f}", f"{memory:.0f}"]
    from mnist_keras.datasets.image_folder.walk import walk

    with tempfile.TemporaryDirectory() as many:
        for number in range(files):
            original = number % images  # a file can have only some thousand links
            os.link(path_in(folder, original), path_in(Path(many), number))
        started = time.perf_counter()
        assert len(walk(Path(many)).files) == files
        yield [f"walk of {files:,} files", f"{time.perf_counter() - started:.1f}", ""]


def epochs(folder, rounds):
    speeds = {}
    for number in range(rounds):
        for name, batches in loaders(folder).items():
            # Grain needs minutes for an epoch; its first batches show its speed.
            speed = images_per_second(batches, 20 if "grain" in name else None)
            speeds.setdefault(name, []).append(speed)
            print(f"round {number + 1}: {name}: {speed:.0f}", file=sys.stderr)
    yield ["images per second", "median", "each round"]
    for name, values in speeds.items():
        each = ", ".join(f"{value:,.0f}" for value in values)
        yield [name, f"{statistics.median(values):,.0f}", each]


given = options(__doc__, images=60_000, files=1_000_000, rounds=3)
with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary, "images")
    os.environ["XDG_CACHE_HOME"] = str(Path(temporary, "cache"))
    make(folder, given.images)
    print_table(audits(folder, given.images, given.files))
    print()
    print_table(epochs(folder, given.rounds))
