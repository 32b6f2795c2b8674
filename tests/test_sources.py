"""Sources: IDX files, Keras's download, scikit-learn's digits, and folders of their images."""

import gzip
import os
import tracemalloc
from unittest import mock

import keras
import numpy as np
import pytest

from mnist_keras.datasets import sources, user_images
from mnist_keras.datasets.images import DataError
from mnist_keras.datasets.splits import draw

pytestmark = pytest.mark.any_backend


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_round_trip(tmp_path, digit_images, write_idx, zipped):
    """A folder of IDX files gives the images that were written, gzipped or not."""
    images, labels = digit_images
    folder = write_idx(tmp_path, images, labels, zipped=zipped)

    found = sources.load("mnist", folder, channels=3)

    assert found.name == "MNIST t10k"
    assert found.images.shape == (30, 28, 28, 3)
    for channel in range(3):
        np.testing.assert_array_equal(found.images[..., channel], images)
    np.testing.assert_array_equal(found.labels, labels)


def test_both_parts_train_first(tmp_path, digit_images, write_idx):
    """Train and t10k are joined, train first, and the name says so."""
    images, labels = digit_images
    write_idx(tmp_path, images, labels, "train")
    write_idx(tmp_path, images[::-1], labels[::-1], "t10k")

    found = sources.load("fashion_mnist", tmp_path)

    assert found.name == "Fashion-MNIST train + t10k"
    np.testing.assert_array_equal(found.images[..., 0], np.concatenate([images, images[::-1]]))


def test_names_with_a_dot(tmp_path, digit_images, write_idx):
    """Files with a dot, like t10k-images.idx3-ubyte in some archives, are found too."""
    write_idx(tmp_path, *digit_images)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(sources.load("mnist", tmp_path)) == 30


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"\x00\x00\x0d" + content[3:], "not an IDX file of bytes"),
        (lambda content: b"", "not an IDX file of bytes"),
        (lambda content: content[:7], "header is truncated"),
        (lambda content: content[:-1], r"promises 30×28×28 = 23520 bytes, the file holds 23519"),
        (lambda content: content + b"x", "the file holds more"),
        (lambda content: gzip.compress(content + bytes(2**16)), "the file holds more"),
        (lambda content: gzip.compress(content)[:-20], "cannot be read"),
        (lambda content: gzip.compress(content)[:40] + b"junk" * 9, "cannot be read"),
        (lambda content: content[:4] + b"\xff" * 12 + content[16:], "promises"),
    ],
    ids=["type", "empty", "header", "short", "long", "long_gzip", "cut_gzip", "bad_gzip", "huge"],
)
def test_damaged_idx_is_named(tmp_path, digit_images, write_idx, damage, message):
    """A damaged IDX file is refused with its path and what is wrong."""
    write_idx(tmp_path, *digit_images, zipped=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as error:
        sources.load("mnist", tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_more_is_read_than_the_header_says(tmp_path, digit_images, write_idx, zipped):
    """What follows the promised bytes is neither unpacked nor kept."""
    write_idx(tmp_path, *digit_images, zipped=zipped)
    path = tmp_path / f"t10k-images-idx3-ubyte{'.gz' if zipped else ''}"
    if zipped:
        path.write_bytes(path.read_bytes() + gzip.compress(bytes(2**26)))
    else:
        os.truncate(path, 2**34)  # a sparse file
    tracemalloc.start()
    with pytest.raises(DataError, match="the file holds more"):
        sources.load("mnist", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_idx_files_that_are_not_mnists(tmp_path, digit_images, write_idx):
    """There must be both files, with equal counts, and the sizes and labels of MNIST."""
    images, labels = digit_images
    cases = {
        "for 30 images": (images, labels[:-1]),
        "expected n×28×28": (images[:, :-1], labels),
        "label 10 is not a digit": (images, labels + 1),
    }
    for message, arrays in cases.items():
        with pytest.raises(DataError, match=message):
            sources.load("mnist", write_idx(tmp_path / message[:5], *arrays))
    with pytest.raises(DataError, match="no such folder"):
        sources.load("mnist", tmp_path / "nowhere")
    (file, _) = sorted((tmp_path / "expec").iterdir())
    with pytest.raises(DataError, match="no such folder of IDX files; it is an IDX file; name its"):
        sources.load("mnist", file)
    with pytest.raises(DataError, match="no IDX files"):
        sources.load("mnist", tmp_path)
    (tmp_path / "kmnist-train-images-idx3-ubyte.gz").touch()
    with pytest.raises(
        DataError, match=r"kmnist-train.*: an IDX file of another name; call images"
    ):
        sources.load("mnist", tmp_path)
    write_idx(tmp_path, *digit_images)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is missing"):
        sources.load("mnist", tmp_path)


def test_download_is_checked(monkeypatch):
    """Both parts of Keras's download are joined, and must be 70,000 images."""
    monkeypatch.delenv("MNIST_KERAS_IDX", raising=False)
    x, y = np.zeros((60_000, 28, 28), np.uint8), np.zeros(60_000, np.uint8)
    load = mock.Mock(return_value=((x, y), (x[:10_000] + 1, y[:10_000] + 9)))
    monkeypatch.setattr(keras.datasets.mnist, "load_data", load)
    found = sources.load("mnist")
    assert (found.name, len(found)) == ("MNIST", 70_000)
    assert found.images[-1].max() == 1

    load.return_value = (x, y), (x[:9_999], y[:9_999])
    with pytest.raises(DataError, match="expected 70,000 images"):
        sources.load("mnist")


@pytest.mark.usefixtures("offline")
def test_digits_replace_mnist_if_it_is_not_available(capsys):
    """Without files, cache and network the digits are used, and the reason is given."""
    images, reason = sources.default(None, channels=1)
    assert images.name == "digits (scikit-learn)"
    assert "no network. With --idx it is read from its IDX files" in reason
    assert capsys.readouterr().out == ""


def test_idx_from_the_environment(monkeypatch, tmp_path, digit_images, write_idx):
    """MNIST_KERAS_IDX names the folder, which must then hold MNIST."""
    monkeypatch.setenv("MNIST_KERAS_IDX", str(write_idx(tmp_path, *digit_images)))
    assert sources.default(None, channels=1)[0].name == "MNIST t10k"
    assert sources.load("mnist").name == "MNIST t10k"
    assert sources.load("digits").name == "digits (scikit-learn)"

    monkeypatch.setenv("MNIST_KERAS_IDX", str(tmp_path / "nowhere"))
    for load in (lambda: sources.default(None, channels=1), lambda: sources.load("mnist")):
        with pytest.raises(DataError, match="no such folder"):
            load()


def test_digits_are_scikit_learns_in_mnists_format(digits):
    """1,797 scans fill a 20×20 box in the middle of 28×28 pixels, and keep their ink."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    assert digits.images.shape == (1797, 28, 28, 1)
    np.testing.assert_array_equal(digits.labels, scans.target)
    frame = digits.images.copy()
    frame[:, 4:24, 4:24] = 0
    assert frame.max() == 0
    ink = digits.images[:, 4:24, 4:24, 0].mean((1, 2)) / 255
    np.testing.assert_allclose(ink, scans.images.mean((1, 2)) / 16, atol=0.03)


def test_draw_takes_as_many_of_each_class_and_the_rest(digits):
    """The drawn images and the rest are all images, each once; another seed draws others."""
    drawn, rest = draw(digits, 50, seed=0)
    assert np.bincount(drawn.labels).tolist() == [50] * 10
    assert sorted([*drawn.fingerprints, *rest.fingerprints]) == sorted(digits.fingerprints)
    again, other = (draw(digits, 50, seed)[0] for seed in (0, 1))
    np.testing.assert_array_equal(again.fingerprints, drawn.fingerprints)
    assert set(other.fingerprints) != set(drawn.fingerprints)


def test_no_duplicate_of_a_drawn_image_is_held_out(digits):
    """Duplicates are on one side of a draw, whatever the seed."""
    twice = digits.extended(digits.take(np.arange(0, 1797, 3)))
    for seed in range(5):
        drawn, rest = draw(twice, 50, seed)
        assert len(drawn) == 500
        assert not set(drawn.fingerprints) & set(rest.fingerprints)


def test_draw_of_too_many(digits):
    """A class with too few images is named."""
    with pytest.raises(DataError, match=r"class '8' has 174 images, fewer than the 175 to draw"):
        draw(digits, 175, seed=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_written_folders_are_what_was_drawn(tmp_path, channels):
    """The PNGs hold the images that a run of the same seed draws."""
    images = sources.load("digits", channels=channels)
    train, heldout = sources.write_folders(images, tmp_path / "out", per_class=5, seed=3)
    assert (train.name, heldout.name) == ("train-5", "heldout")

    drawn, rest = draw(sources.load("digits", channels=3), 5, seed=3)
    audited = user_images.read(tmp_path / "out").require()
    images, others = audited.images, audited.heldout

    assert images.fingerprint == drawn.fingerprint
    assert others.fingerprint == rest.fingerprint
    np.testing.assert_array_equal(images.canonical().images, drawn.canonical().images)


def test_written_folders_are_whole_or_not_there(tmp_path, monkeypatch, digits):
    """Existing folders are not touched, and a failure halfway leaves nothing behind."""
    sources.write_folders(digits, tmp_path / "a", per_class=5, seed=0)
    with pytest.raises(DataError, match=r"train-5: exists already"):
        sources.write_folders(digits, tmp_path / "a", per_class=5, seed=0)

    full = OSError(28, "No space left on device")
    png = mock.Mock(side_effect=[b"the first", full])
    monkeypatch.setattr(sources, "png", png)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        sources.write_folders(digits, tmp_path / "b", per_class=5, seed=0)
    assert png.call_count == 2
    assert list((tmp_path / "b").iterdir()) == []


def test_genuine_mnist(mnist_idx):
    """The genuine test set has 10,000 images with the published numbers of each class."""
    mnist = sources.load("mnist", mnist_idx)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.labels).tolist() == counts
