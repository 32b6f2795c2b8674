"""Time the warping of images against SciPy's resampling of one image after another.

    python tests/benchmarks/augmentation.py --seconds 1 --rounds 5

Prints, as Markdown, the views per second of random images of 28×28 pixels in batches of 100, as
medians of alternating rounds: `warp` on one thread and on two, and `affine_transform` and
`map_coordinates` of `scipy.ndimage` with `order=1` on one thread. SciPy is given its matrices and
coordinates; `warp` also draws and computes them.
"""

import argparse
import itertools
import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage
from timing import seconds_per_call

from mnist_keras._foundations.texts import markdown_table
from mnist_keras.datasets import augmentation

BATCH, AT_ONCE = 100, 8


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    images = np.random.default_rng(0).random((BATCH, 28, 28, 1), dtype=np.float32)
    ids = np.arange(BATCH)
    epochs = itertools.count()
    matrix = np.array([[0.95, -0.2], [0.25, 1.05]])
    coordinates = np.mgrid[:28, :28] + np.random.default_rng(1).normal(size=(2, 28, 28))

    def own(strength, threads):
        def batch(epoch):
            return augmentation.warp(images, ids, epoch, 0, strength)

        def step():
            return list(threads.map(batch, itertools.islice(epochs, AT_ONCE)))

        return step, BATCH * AT_ONCE

    def affine():
        for image in images[..., 0]:
            ndimage.affine_transform(image, matrix, order=1, mode="grid-constant")

    def elastic():
        for image in images[..., 0]:
            ndimage.map_coordinates(image, coordinates, order=1, mode="grid-constant")

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(2) as two:
        ways = {}
        for name in ("SHIFTS", "AFFINE", "ELASTIC"):
            strength = getattr(augmentation, name)
            ways[f"`{name}`, 1 thread"] = own(strength, one)
            ways[f"`{name}`, 2 threads"] = own(strength, two)
        ways["SciPy `affine_transform`"] = affine, BATCH
        ways["SciPy `map_coordinates`"] = elastic, BATCH
        rates = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, (step, views) in ways.items():
                rates[way].append(views / seconds_per_call(step, options.seconds))
    rows = [[way, f"{statistics.median(rate):,.0f}"] for way, rate in rates.items()]
    print("\n".join(markdown_table([["", "views per second"], *rows])))


if __name__ == "__main__":
    main()
