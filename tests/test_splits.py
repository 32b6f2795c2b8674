"""Splits in files: a written split is found again, whatever the files are called by then."""

import csv
import io
import json

import numpy as np
import pytest

from mnist_keras.datasets import sources
from mnist_keras.datasets.images import DataError
from mnist_keras.datasets.splits import draw, read_splits, split_indices, split_text
from mnist_keras.training.data import Data

pytestmark = pytest.mark.any_backend

HASH = "0123456789abcdef" * 2


@pytest.fixture
def digits():
    return draw(sources.load("digits"), 10, seed=0)[0]


def split(images, seed):
    """Return the images of both sides."""
    training, test = split_indices(images, 0.2, seed)
    return {"training": images.take(training), "test": images.take(test)}


def test_duplicates_stay_together(digits):
    """Images with equal pixels are on one side, whatever the seed."""
    twice = digits.extended(digits.take(np.arange(0, 100, 7)))
    for seed in range(20):
        for stratify in (True, False):
            training, test = split_indices(twice, 0.2, seed, stratify)
            assert not set(twice.fingerprints[training]) & set(twice.fingerprints[test])
            assert sorted([*training, *test]) == list(range(len(twice)))


def test_a_split_survives_its_file(tmp_path, digits):
    """Seeds, sides and images are found again; a file without seeds is for all of them."""
    by_seed = {seed: split(digits, seed) for seed in (0, 1)}
    path = tmp_path / "split.csv"
    path.write_text(split_text(by_seed, None))
    splits = read_splits(path)
    assert set(splits) == {0, 1}
    for seed, sides in by_seed.items():
        found = splits[seed].apply(digits.take(np.arange(99, -1, -1)))
        for side in ("training", "test"):
            assert found[side].fingerprint == sides[side].fingerprint
        assert len(found["heldout"]) == len(found["unused"]) == 0

    path.write_text(path.read_text(), "utf-8-sig")  # as a spreadsheet saves it
    assert set(read_splits(path)) == {0, 1}
    rows = [r for r in csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))) if r["seed"] == "1"]
    path.write_text("side,hash\n" + "\n".join(f"{r['side']},{r['hash']}" for r in rows))
    found = read_splits(path)[None].apply(digits)
    assert found["test"].fingerprint == by_seed[1]["test"].fingerprint


def test_another_split_is_other_data(digits):
    """Data with a split has another fingerprint than with another split or with none."""
    nothing = digits.take([])
    tests = [None, digits.fingerprints[:20], digits.fingerprints[1:21]]
    assert len({Data(digits, nothing, test).fingerprint for test in tests}) == 3
    same = [Data(digits, nothing, test).fingerprint for test in (tests[1], tests[1][::-1])]
    assert same[0] == same[1]


def test_files_that_are_not_splits(tmp_path):
    """Each wrong file is one line with its path."""
    path = tmp_path / "split.csv"
    with pytest.raises(DataError, match=r"split\.csv: cannot be read: No such file"):
        read_splits(path)
    for text, words in (
        ("", "expected the columns"),
        ("a,b\n1,2\n", "expected the columns"),
        ("side,hash\n", "no images"),
        (f"side,hash\nvalidation,{HASH}\n", "line 2: expected a seed, one of training, test"),
        (f"seed,side,hash\n-1,test,{HASH}\n", "line 2: expected a seed"),
        ("side,hash\ntest,\n", "line 2: expected a seed"),
        ("side,hash\ntest\n", "line 2: expected a seed"),
        ("side,hash\ntest,é\n", "line 2: expected a seed"),
        (f"side,hash\ntest,{HASH}0\n", "line 2: expected a seed"),
        (f"side,hash\ntest,{HASH}\ntraining,{HASH}\n", "1 images are on two sides"),
        (f"side,hash\ntest,{HASH}\n", "no image is on the side 'training'"),
        ('side,hash\ntest,"a\n', "not a CSV file"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words) as error:
            read_splits(path)
        assert str(path) in str(error.value)


def test_a_split_of_other_images(tmp_path, digits):
    """If an image is missing on one side or the other, both numbers are named."""
    path = tmp_path / "split.csv"
    path.write_text(split_text({0: split(digits, 0)}, None))
    with pytest.raises(DataError, match="0 images here are not in it, 2 of its images are not"):
        read_splits(path)[0].apply(digits.take(np.arange(98)))
    with pytest.raises(DataError, match="1697 images here are not in it"):
        read_splits(path)[0].apply(sources.load("digits"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "drawn", [("--source", "digits"), ("--data", "mine"), ("--data", "mine", "--per-class", "9")]
)
@pytest.mark.usefixtures("without_figures")
def test_run_saves_and_takes_a_split(
    drawn, invoke, tmp_path, monkeypatch, write_images, write_experiment, digits
):
    """A run with the split of another run has its numbers, also after every file is renamed."""
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path, {"name": "a"}, epochs=1)
    write_images(tmp_path / "mine", digits.images[..., 0], digits.labels)
    np.savez(tmp_path / "mine.npz", x_train=digits.images, y_train=digits.labels)
    more = ("--seeds", 2, "--output")
    invoke("run", "short.toml", *drawn, "--save-split", "split.csv", *more, "a")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "split.csv").read_text())))
    assert {row["seed"] for row in rows} == {"0", "1"}
    if drawn[-1] == "mine.npz":
        assert {row["file"] for row in rows} == {f"x_train[{n}]" for n in range(100)}
    elif drawn[0] == "--data":
        assert all((tmp_path / "mine" / row["file"]).is_file() for row in rows)
        for number, path in enumerate(sorted((tmp_path / "mine").rglob("*.png"), reverse=True)):
            path.rename(path.with_name(f"{number}.png"))
    again = ("run", "short.toml", *drawn[:2], "--split", "split.csv")
    invoke(*again, *more, "b")
    one, two = (
        json.loads((tmp_path / name / "tables.json").read_text())["experiments"][0]["arms"][0]
        for name in "ab"
    )
    for quantity in ("loss", "test", "heldout"):
        assert one[quantity] == two[quantity]
    assert "split.csv: has no seed 2" in invoke(*again, "--seeds", 3, code=3).stderr


def test_one_split_cannot_serve_two_shares(invoke, tmp_path, write_experiment):
    """If arms ask for different splits, none is saved."""
    short = write_experiment(tmp_path, {"name": "a"}, {"name": "b", "validation_split": 0.3})
    options = ("--source", "digits", "--output", tmp_path / "out")
    result = invoke("run", short, *options, "--save-split", tmp_path / "split.csv", code=2)
    assert "the arms ask for different splits" in result.stderr
    assert not (tmp_path / "split.csv").exists()
