"""Time the warping of images against SciPy's resampling of one image after another.

    python tests/benchmarks/augmentation.py --seconds 1 --rounds 5

Prints, as Markdown, the views per second of random images of 28×28 pixels in batches of 100, as
medians of alternating rounds: `warp` on one thread and on two, and `affine_transform` and
`map_coordinates` of `scipy.ndimage` with `order=1` on one thread. SciPy is given its matrices and
coordinates; `warp` also draws and computes them.
"""

import itertools
import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage
from shared import alternate, options, print_table, seconds_per_call

from mnist_keras.datasets import augmentation

BATCH, AT_ONCE = 100, 8
IMAGES = np.random.default_rng(0).random((BATCH, 28, 28, 1), dtype=np.float32)
MATRIX = np.array([[0.95, -0.2], [0.25, 1.05]])
COORDINATES = np.mgrid[:28, :28] + np.random.default_rng(1).normal(size=(2, 28, 28))
EPOCHS = itertools.count()


def own(strength, threads):
    """Return a function that warps batches on these threads, and the number of its views."""

    def batch(epoch):
        return augmentation.warp(IMAGES, np.arange(BATCH), epoch, 0, strength)

    return lambda: list(threads.map(batch, itertools.islice(EPOCHS, AT_ONCE))), BATCH * AT_ONCE


def scipys(resample, where):
    """Return a function that resamples one image after another, and the number of its views."""

    def step():
        for image in IMAGES[..., 0]:
            resample(image, where, order=1, mode="grid-constant")

    return step, BATCH


given = options(__doc__, seconds=1.0, rounds=5)
with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(2) as two:
    ways = {
        f"`{name}`, {number}": own(getattr(augmentation, name), threads)
        for name in ("SHIFTS", "AFFINE", "ELASTIC")
        for number, threads in (("1 thread", one), ("2 threads", two))
    }
    ways["SciPy `affine_transform`"] = scipys(ndimage.affine_transform, MATRIX)
    ways["SciPy `map_coordinates`"] = scipys(ndimage.map_coordinates, COORDINATES)
    rates = alternate(
        lambda way: way[1] / seconds_per_call(way[0], given.seconds), ways, given.rounds
    )
rows = ([way, f"{statistics.median(rate):,.0f}"] for way, rate in rates.items())
print_table([["", "views per second"], *rows])
