"""Warps of images: their random numbers, coordinates and pixels, and batches made ahead."""

import functools
import gc
import hashlib
import threading
import time

import numpy as np
import pytest
from scipy import interpolate, ndimage, stats

from mnist_keras.datasets import augmentation, batches
from mnist_keras.datasets.augmentation import AFFINE, ELASTIC, SHIFTS, Warp, warp
from mnist_keras.datasets.batches import Batches, WarpedBatches

pytestmark = pytest.mark.any_backend


@pytest.fixture
def images(picture):
    """Seven pictures of soft spots of 28×20 pixels, values in 0…1."""
    return np.stack([picture(n, 28, 20) for n in range(7)])[..., None] / np.float32(255)


@pytest.fixture
def always(monkeypatch):
    """The function that replaces the random numbers by given ones."""

    put = functools.partial(monkeypatch.setattr, augmentation, "_uniform")
    return lambda *uniform: put(lambda states, *_: np.array([uniform] * len(states), float))


@pytest.fixture(autouse=True)
def own_threads():
    """Each test waits for the threads of batches that it dropped within an epoch."""
    yield
    join_threads()


def warp_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("warps")]


def join_threads():
    if warp_threads():  # of batches that nothing holds any more
        gc.collect()
    for thread in warp_threads():
        thread.join(timeout=10)


def test_bits_never_change():
    """The pixels are a contract: the same on every machine and in every later version."""
    x = (np.arange(2 * 9 * 8).reshape(2, 9, 8, 1) * 37 % 256).astype(np.float32) / 255

    views = warp(x, [3, 2**40], epoch=5, seed=1, strength=ELASTIC)

    assert hashlib.sha256(views.astype("<f4").tobytes()).hexdigest()[:16] == "171e58bbcbeeb606"


def test_known_generator():
    """The numbers of a state are those published for SplitMix64."""
    numbers = augmentation._numbers(np.array([1234567], np.uint64), 0, 3)

    assert numbers.tolist() == [[6457827717110365317, 3203168211198807973, 9817491932198370423]]


def test_random_numbers():
    """Numbers are distributed right, and independent between images, epochs and seeds."""
    ids = np.arange(4000)
    states = {
        (epoch, seed): augmentation._states(ids, epoch, seed) for epoch in (0, 1) for seed in (0, 1)
    }
    uniform = augmentation._uniform(states[0, 0], 0, 20)
    normal = augmentation._normal(states[0, 0], 0, 20)

    assert stats.kstest(uniform.ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert uniform.min() >= -1
    assert uniform.max() < 1
    assert abs(normal.mean()) < 4 / np.sqrt(normal.size)
    assert abs(normal.std() - 1) < 0.01
    assert abs(stats.skew(normal, axis=None)) < 0.03
    # The sum of four uniform numbers has kurtosis 3 - 6/20.
    assert abs(stats.kurtosis(normal, axis=None) + 0.3) < 0.05
    others = (augmentation._uniform(states[other], 0, 20) for other in ((1, 0), (0, 1), (1, 1)))
    columns = np.column_stack([uniform, np.roll(uniform, 1, axis=0), *others])
    correlations = np.corrcoef(columns, rowvar=False)[np.triu_indices(columns.shape[1], 1)]
    assert abs(correlations).max() < 5 / np.sqrt(len(ids))
    assert abs(correlations.std() * np.sqrt(len(ids)) - 1) < 0.1


def test_view_depends_on_its_image_alone(images):
    """Order and number of images change nothing; epoch, seed and id change the view."""
    ids = np.array([5, 2**63 + 1, 0, 9, 1, 7, 3], np.uint64)
    many = np.resize(images, (130, *images.shape[1:]))
    many_ids = np.concatenate([ids, np.arange(100, 223, dtype=np.uint64)])
    views = warp(images, ids, 3, 8, ELASTIC)

    np.testing.assert_array_equal(warp(images[::-1], ids[::-1], 3, 8, ELASTIC)[::-1], views)
    np.testing.assert_array_equal(warp(many[::-1], many_ids[::-1], 3, 8, ELASTIC)[:-8:-1], views)
    for n in range(7):
        alone = warp(images[n : n + 1], ids[n : n + 1], 3, 8, ELASTIC)
        np.testing.assert_array_equal(alone[0], views[n])
    for other in ((ids, 4, 8), (ids, 3, 9), (ids + np.uint64(1), 3, 8)):
        assert np.all(np.any(warp(images, *other, ELASTIC) != views, axis=(1, 2, 3)))


def test_parts_draw_the_same_numbers(images):
    """A stronger warp, or one more part, keeps the numbers of the other parts."""
    states = augmentation._states(np.arange(7), 0, 0)
    size = images.shape[1:3]
    half, whole = (augmentation._displacements(states, Warp(shift=s), *size) for s in (1, 2))
    elastic = augmentation._displacements(states, Warp(shift=2, elastic=1e-9), *size)

    np.testing.assert_array_equal(2 * half, whole)
    np.testing.assert_allclose(elastic, whole, atol=1e-8)
    assert np.all(abs(whole) < 2)
    assert whole.std() > 1


@pytest.mark.parametrize("strength", [SHIFTS, AFFINE, ELASTIC, ELASTIC.scaled(6)])
def test_against_scipy(images, strength):
    """Views are SciPy's bilinear resampling at the same coordinates, and stay in 0…1."""
    x = np.concatenate([images, images > 0.5], axis=-1).astype(np.float32)
    ids = np.arange(7)
    grid = augmentation._displacements(augmentation._states(ids, 2, 0), strength, 28, 20)
    displacements = np.rint(augmentation._interpolated(grid, 28, 20)) / 4096
    views = warp(x, ids, 2, 0, strength)

    for n in range(7):
        coordinates = np.mgrid[:28, :20] + displacements[n].astype(float)
        for channel in range(2):
            expected = ndimage.map_coordinates(
                x[n, ..., channel].astype(float), coordinates, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(views[n, ..., channel], expected, atol=1e-6)
    assert views.dtype == np.float32
    assert views.min() >= 0
    assert views.max() <= 1


def test_affine_against_scipy(images, always):
    """Rotation, scales, shear and shift are the matrices that the docstring describes."""
    strength = Warp(rotation=30, scale=0.2, shear=0.3, shift=3)
    always(0.5, 0.25, -0.75, 0.9, 0.1, -0.4)
    angle, middle = np.deg2rad(15), np.array([13.5, 9.5])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1, 0], [0.27, 1]]) @ np.diag([1.05, 0.85])
    offset = middle - matrix @ middle + [0.3, -1.2]

    views = warp(images, np.arange(7), 0, 0, strength)

    for view, image in zip(views[..., 0], images[..., 0], strict=True):
        expected = ndimage.affine_transform(
            image.astype(float), matrix, offset, order=1, mode="grid-constant"
        )
        # Coordinates are rounded to 1/4096 pixel.
        np.testing.assert_allclose(view, expected, atol=2e-4)


def test_identities(images, always):
    """No strength, shifts by whole pixels and right angles keep the bits of the image."""
    ids = np.arange(7)
    np.testing.assert_array_equal(warp(images, ids, 0, 0, Warp()), images)

    always(0, 0, 0, 0, 1, -1)
    moved = np.zeros_like(images)
    moved[:, :-3, 3:] = images[:, 3:, :-3]
    np.testing.assert_array_equal(warp(images, ids, 0, 0, Warp(shift=3)), moved)
    assert not warp(images, ids, 0, 0, Warp(shift=1e9)).any()

    always(-1, 0, 0, 0, 0, 0)
    for size in (19, 20):
        square = images[:, :size, :size]
        turned = np.rot90(square, axes=(1, 2))
        np.testing.assert_array_equal(warp(square, ids, 0, 0, Warp(rotation=90)), turned)
        upside_down = warp(square, ids, 0, 0, Warp(rotation=180))
        np.testing.assert_array_equal(upside_down, square[:, ::-1, ::-1])


def test_sine_and_cosine():
    """The series agree with the C library's functions over the whole circle."""
    angles = np.linspace(-np.pi, np.pi, 1001)
    found, expected = augmentation._sine_cosine(angles), (np.sin(angles), np.cos(angles))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [1, 2, 5, 28, 33])
def test_cubic_interpolation(size):
    """Between its points, the grid is the Hermite cubic of their central differences."""
    points = np.random.default_rng(0).normal(size=5)
    hermite = interpolate.CubicHermiteSpline(np.arange(5), points, np.gradient(points))

    values = points @ augmentation._cubic_weights(size)

    np.testing.assert_allclose(values, hermite(np.linspace(0, 4, size)), atol=1e-6)


def test_elastic_strength():
    """Points of the grid move by the given standard deviation, independent of all else."""
    states = augmentation._states(np.arange(2000), 0, 0)
    grid = augmentation._displacements(states, Warp(elastic=0.8), 28, 28)
    field = augmentation._interpolated(grid, 28, 28) / 4096

    np.testing.assert_allclose(field[:, :, ::27, ::27], grid[:, :, ::4, ::4], atol=1e-5)
    np.testing.assert_allclose(grid.std(axis=0), 0.8, rtol=0.08)
    numbers = np.hstack([grid.reshape(2000, 50), augmentation._uniform(states, 0, 6)])
    correlations = np.corrcoef(numbers, rowvar=False)[np.triu_indices(56, 1)]
    assert abs(correlations).max() < 5 / np.sqrt(2000)


def test_equal_channels(images):
    """For gray images in three channels, each channel is the view of one."""
    views = warp(np.repeat(images, 3, axis=-1), np.arange(7), 0, 0, ELASTIC)
    one = warp(images, np.arange(7), 0, 0, ELASTIC)
    np.testing.assert_array_equal(views, np.repeat(one, 3, axis=-1))


def test_scaled():
    """Scaling multiplies every number of a warp."""
    assert AFFINE.scaled(0.5) == Warp(rotation=7.5, scale=0.075, shear=0.125, shift=1)
    assert ELASTIC.scaled(0) == Warp()


@pytest.mark.parametrize(
    "settings",
    [{"shift": -1}, {"elastic": np.nan}, {"shear": np.inf}, {"rotation": 181}, {"scale": 1}],
)
def test_bad_strength(settings):
    """Numbers without a meaning are refused by name."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        Warp(**settings)


@pytest.mark.parametrize(
    ("shape", "ids", "seed"),
    [
        ((2, 4, 4), [0, 1], 0),
        ((2, 4, 4, 1), [0], 0),
        ((1, 4, 4, 1), [0.5], 0),
        ((1, 4, 4, 1), [0], -1),
    ],
)
def test_bad_arguments(shape, ids, seed):
    """Other shapes, ids that are not integers, and bad seeds are refused."""
    with pytest.raises(ValueError, match="Received"):
        warp(np.zeros(shape), ids, 0, seed, AFFINE)


def warped_batches(images, **kwargs):
    levels = np.rint(255 * np.resize(images, (23, *images.shape[1:]))).astype(np.uint8)
    return WarpedBatches(levels, np.arange(23), ELASTIC, batch_size=4, seed=6, **kwargs)


def test_batches_hold_the_views_of_the_epoch(images):
    """An epoch has the order of `Batches` and the views of `warp`; `set_epoch` can go back."""
    warped = warped_batches(images)
    plain = Batches(warped.x, warped.y, 4, seed=6)

    for epoch in (0, 1, 2, 1):
        warped.set_epoch(epoch)
        plain.set_epoch(epoch)
        for index in range(len(plain)):
            (x, y), (same_x, same_y) = plain[index], warped[index]
            np.testing.assert_array_equal(same_y, y)
            np.testing.assert_array_equal(same_x, warp(x / 255, y, epoch, 6, ELASTIC))

    unlabeled = WarpedBatches(warped.x, None, ELASTIC, batch_size=4, shuffle=False, seed=6)
    views = warp(warped.x / np.float32(255), np.arange(23), 0, 6, ELASTIC)
    np.testing.assert_array_equal(np.concatenate(list(unlabeled)), views)
    other = warped_batches(images, ids=np.arange(23) + 1)
    assert not np.array_equal(other[0][0], warped_batches(images)[0][0])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_bit(images, threads):
    """Batches made ahead equal those made when asked for, in whatever order they are read."""
    waiting, ahead = warped_batches(images, threads=0), warped_batches(images, threads=threads)

    for _ in range(3):
        for (x, y), (same_x, same_y) in zip(waiting, ahead, strict=True):
            np.testing.assert_array_equal(same_x, x)
            np.testing.assert_array_equal(same_y, y)
    for index in (0, 1, 4, 2, 2, 5, 0):
        np.testing.assert_array_equal(ahead[index][0], waiting[index][0])
    ahead.set_epoch(9)
    waiting.set_epoch(9)
    np.testing.assert_array_equal(ahead[1][0], waiting[1][0])


def test_batches_are_made_ahead(images, monkeypatch):
    """While the caller has a batch, another thread makes the next two, and no more."""
    made = []

    def note(x, *args):
        made.append(threading.current_thread().name)
        return x

    monkeypatch.setattr(batches, "warp", note)
    warped = warped_batches(images)
    _ = warped[0]
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)

    assert sorted(made) == ["MainThread", "warps_0", "warps_0"]


def test_no_thread_is_left(images):
    """Threads end with the epoch, with a change of epoch and with the batches themselves."""
    assert not warp_threads()
    warped = warped_batches(images, threads=2)
    _ = warped[0]
    assert warp_threads()
    warped.set_epoch(0)
    assert not warp_threads()
    for index in range(len(warped)):
        _ = warped[index]
    assert not warp_threads()

    _ = warped[0]
    assert warp_threads()
    del warped
    join_threads()
    assert not warp_threads()


def test_exceptions_reach_the_caller(images, monkeypatch):
    """An exception in a thread is raised where its batch is asked for."""
    warped = warped_batches(images)
    second, unchanged = warped.order[4:8], batches.warp

    def fail(x, ids, *args):
        if np.array_equal(ids, second):
            raise MemoryError("of the second batch")
        return unchanged(x, ids, *args)

    monkeypatch.setattr(batches, "warp", fail)
    _ = warped[0]
    with pytest.raises(MemoryError, match="of the second batch"):
        _ = warped[1]
    _ = warped[2]
    with pytest.raises(IndexError):
        _ = warped[6]
    with pytest.raises(ValueError, match="`threads` must be at least 0"):
        warped_batches(images, threads=-1)
