"""Fixtures: images and IDX files that the tests make themselves, and the command line."""

import functools
import gzip
import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock
from PIL import Image

from mnist_keras._foundations import backends


def pytest_configure(config):
    """Stop at once if the backend that runs is not the one that was asked for."""
    asked = os.environ.get("KERAS_BACKEND")
    if asked not in backends.TRAINABLE:
        pytest.exit(f"set KERAS_BACKEND to one of {backends.TRAINABLE}, not {asked!r}", 4)
    backends.use(backends.choose())
    running = sys.modules["keras"].backend.backend()
    if running != asked:
        pytest.exit(f"asked for {asked!r}, but Keras runs on {running!r}", 4)


def pytest_collection_modifyitems(items):
    """Modules with slow tests come first, so that no worker is left alone with one."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """A cache folder of each test's own: none reads what another one remembered."""
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def digit_images():
    """Thirty small gray pictures, three for each of ten classes, no two alike."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    return images, np.repeat(np.arange(10), 3)


@pytest.fixture
def picture():
    """The function that returns a gray picture of soft spots, another one for each number."""

    def draw(number, height=28, width=28):
        rng = np.random.default_rng(number)
        y, x = np.mgrid[:height, :width]
        spots = [
            np.exp(
                -((y - rng.uniform(4, height - 4)) ** 2 + (x - rng.uniform(4, width - 4)) ** 2)
                / (2 * rng.uniform(2, 5) ** 2)
            )
            for _ in range(4)
        ]
        return (200 * sum(spots)).clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture
def two_classes(tmp_path, picture):
    """A folder of the classes a and b with four pictures each."""
    pictures = [picture(number) for number in range(8)]
    return write_folder(tmp_path / "two", pictures, ["a"] * 4 + ["b"] * 4)


@pytest.fixture
def image_folder(tmp_path, digit_images):
    """A class-per-folder directory of gray PNGs: ten classes, three images each."""
    return write_folder(tmp_path / "digits", *digit_images)


@pytest.fixture
def write_images():
    """The function that writes arrays as a class-per-folder directory."""
    return write_folder


def write_folder(folder, images, labels):
    for number, (image, digit) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(digit) / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture
def write_idx():
    """The function that writes arrays as IDX files, as LeCun's page has them."""

    def write(folder, images, labels, part="t10k", zipped=True):
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(">HBB", 0, 8, array.ndim)
            header += struct.pack(f">{array.ndim}I", *array.shape)
            content = header + array.astype(np.uint8).tobytes()
            path = folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
        return folder

    return write


@pytest.fixture
def mnist_idx():
    """The folder of the genuine MNIST files, where there is one."""
    folder = os.environ.get("MNIST_KERAS_IDX")
    if not folder:
        pytest.skip("MNIST_KERAS_IDX names no folder of MNIST's IDX files")
    return Path(folder)


@pytest.fixture
def offline(monkeypatch):
    """A machine without MNIST's files and without a network to download them."""

    def fail():
        print("Downloading data")  # noqa: T201 (as Keras does)
        raise Exception("URL fetch failure: no network")

    monkeypatch.setattr("keras.datasets.mnist.load_data", fail)
    monkeypatch.delenv("MNIST_KERAS_IDX", raising=False)


@pytest.fixture(scope="session")
def digits_data():
    """Five hundred of scikit-learn's digits to train and test on, the others held out."""
    from mnist_keras.datasets import sources
    from mnist_keras.datasets.splits import draw
    from mnist_keras.training.data import Data

    return Data(*draw(sources.load("digits", channels=3), 50, seed=0))


@pytest.fixture(scope="session")
def model_file(digits_data, tmp_path_factory):
    """The function that returns the file of a network, trained for a few epochs on digits.

    The workers of one run share it.
    """
    from mnist_keras.inference.model_file import save_model
    from mnist_keras.inference.trained_model import train_model
    from mnist_keras.training.settings import Settings

    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def save(name):
        path = folder / f"{name}.keras"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                settings = Settings(model=name, loss="crossentropy", activation="relu", epochs=4)
                save_model(path, train_model(settings, 0, digits_data))
        return path

    return save


@pytest.fixture(scope="session")
def trained(model_file):
    """The function that returns such a network."""
    from mnist_keras.inference.model_file import load_model

    return functools.cache(lambda name: load_model(model_file(name)))


@pytest.fixture
def without_figures(monkeypatch):
    """Reports have no figures, which take longer than all that these tests look at."""
    monkeypatch.setattr("mnist_keras.experiments.report.figures.all_figures", lambda results: {})


@pytest.fixture(scope="session")
def invoke():
    """The function that runs the command line in this process, which must end with `code`."""
    from mnist_keras.cli import cli

    def run(*arguments, code=0, **options):
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments], **options)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture(scope="session")
def python():
    """The function that runs Python in a process of its own and returns what it printed."""

    def run(*arguments, codes=(0,), environment=(), cwd=None):
        command, env = [sys.executable, *map(str, arguments)], os.environ | dict(environment)
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)
        assert done.returncode in codes, done.stdout[-5000:] + done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def write_experiment():
    """The function that writes an experiment's file, of Basic Net unless the settings say else."""

    def toml(value):
        if isinstance(value, dict):
            return f"{{ {', '.join(f'{key} = {toml(value[key])}' for key in value)} }}"
        return json.dumps(value)  # numbers, texts, lists of them and truth are the same in TOML

    def write(folder, *arms, claims=(), **settings):
        settings = {"model": "basic_net", "epochs": 2} | settings
        path = folder / "short.toml"
        path.write_text(
            f'title = "Short"\nsection = "0"\nclaim = "None."\nsettings = {toml(settings)}\n'
            f"arms = [{', '.join(map(toml, arms))}]\nclaims = [{', '.join(map(toml, claims))}]\n"
        )
        return path

    return write


@pytest.fixture(scope="session")
def original_program():
    """The original's program in plain PyTorch: the original that ours is compared with."""
    pytest.importorskip("torch", reason="the original program needs PyTorch")
    path = Path(__file__).parent / "benchmarks" / "original_program.py"
    spec = importlib.util.spec_from_file_location("original_program", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def record():
    """The function that returns a record of made-up numbers; keywords replace its fields."""
    from mnist_keras.training.record import History, Mistakes, Record, Score
    from mnist_keras.training.run import Run
    from mnist_keras.training.settings import Settings

    def classes(n, share):
        """True and predicted classes. Every fourth image is the last to be right."""
        labels = np.arange(n) % 10
        right = np.argsort(np.arange(n) % 4 == 0, kind="stable")[: round(share * n)]
        return labels, np.where(np.isin(np.arange(n), right), labels, (labels + 1) % 10)

    def make(seed, settings=None, *, test=0.9, heldout=0.75, n_heldout=1000, loss=None, **fields):
        settings = settings or Settings()
        scored_at = tuple(sorted({1, settings.all_epochs}))
        test_labels, tested = classes(100, test)
        heldout_labels, held = classes(n_heldout, heldout)
        loss = loss or tuple(2.0 / (epoch + seed) for epoch in range(1, settings.epochs + 1))
        history = History(
            **dict.fromkeys(("loss", "crossentropy", "focal"), loss),
            **dict.fromkeys(("training_accuracy", "cpu_seconds"), (0.5,) * len(loss)),
            seconds=(0.25,) * len(loss),
            fingerprints={"weights": "w", "masks": "m", "batches": "b"},
        )
        reached = [epoch for epoch in scored_at if epoch < (history.diverged or 1000)]
        made_up = {
            "run": Run(settings=settings, seed=seed, scored_at=scored_at),
            "versions": {"mnist-keras": "0", "keras": "3.15.1", "backend": "jax", "jax": "0.10.2"},
            "data_name": "MNIST t10k",
            "data_fingerprint": "abc",
            "class_names": tuple("0123456789"),
            "n_training": 400,
            "n_unlabeled": 0,
            "test_labels": test_labels,
            "heldout_labels": heldout_labels,
            "history": history,
            "scores": dict.fromkeys(reached, Score(test=tested, heldout=held)),
            "mistakes": Mistakes(
                images=np.full((2, 4, 4, 3), 7, np.uint8),
                labels=np.array([3, 5]),
                predicted=np.array([4, 6]),
            ),
            "peak_memory": 10**9,
        }
        return Record(**made_up | fields)

    return make


@pytest.fixture
def interruptible():
    """Ctrl-C reaches processes started here, also where this one runs in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
