"""A user's own images: the layouts and file formats that --data takes, and what it refuses."""

import gzip
import os
import struct

import numpy as np
import pytest

from mnist_keras.datasets import user_images
from mnist_keras.datasets.image_folder.findings import ImageFolderError

pytestmark = pytest.mark.any_backend


@pytest.fixture
def labeled(picture):
    """Twelve pictures of three classes."""
    return np.stack([picture(number) for number in range(12)]), np.repeat([0, 1, 2], 4)


@pytest.fixture
def train_and_test(tmp_path, labeled, write_images):
    """A folder with half of the pictures in train/ and half in test/."""
    images, labels = labeled
    write_images(tmp_path / "train", images[::2], labels[::2])
    return write_images(tmp_path / "test", images[1::2], labels[1::2]).parent


def refusal(path):
    with pytest.raises(ImageFolderError) as error:
        user_images.read(path).require()
    return str(error.value)


def test_class_folders_with_and_without_heldout(tmp_path, labeled, write_images, picture):
    """heldout/ is read beside the class folders or train-…, with the same classes."""
    images, labels = labeled
    others = np.stack([picture(number) for number in range(20, 32)])
    write_images(tmp_path / "plain", images, labels)
    assert len(user_images.read(tmp_path / "plain").require().heldout) == 0
    write_images(tmp_path / "plain" / "heldout", others, labels)
    for name in ("train-4", "heldout"):
        write_images(tmp_path / "both" / name, images if name == "train-4" else others, labels)

    for folder, name in (("plain", "plain"), ("both", "both/train-4")):
        audited = user_images.read(tmp_path / folder).require()
        assert audited.images.name == name
        assert (len(audited.images), len(audited.heldout)) == (12, 12)
        assert audited.images.class_names == audited.heldout.class_names == ("0", "1", "2")


def test_train_and_test(tmp_path, train_and_test):
    """train/ is trained on and test/ is held out; of equal images, the one in test/ is named."""
    audited = user_images.read(tmp_path).require()
    assert (len(audited.images), len(audited.heldout)) == (6, 6)
    leak = (tmp_path / "train" / "1" / "002.png").read_bytes()
    (tmp_path / "test" / "1" / "leak.png").write_bytes(leak)
    assert "test/1/leak.png: same image as train/1/002.png" in refusal(tmp_path)
    skipped = user_images.read(tmp_path).require("skip")
    assert (len(skipped.images), len(skipped.heldout)) == (6, 6)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("training", "testing"), ("Train", "Test"), ("TRAIN", "VAL"), ("train", "valid")),
        *(("train", "holdout"), ("trainingSet", "testSet"), ("train_images", "dev_images")),
        *(("train", "eval"), ("Training", "Validation"), ("train-4", "held-out")),
    ],
)
def test_other_words_for_sides(tmp_path, train_and_test, train, test):
    """Whatever the two folders are called, the test images are not trained on."""
    (tmp_path / "train").rename(tmp_path / train)
    (tmp_path / "test").rename(tmp_path / test)
    audited = user_images.read(tmp_path).require()
    assert {path.split("/")[-3] for path in audited.images.file_paths} == {train}
    assert {path.split("/")[-3] for path in audited.heldout.file_paths} == {test}


@pytest.mark.parametrize(
    ("aside", "chosen"), [("val", "test"), ("dev", "test"), ("heldout", "heldout")]
)
def test_of_several_sides_one_is_held_out(
    tmp_path, train_and_test, write_images, labeled, aside, chosen
):
    """Test images come before those to choose a model by; the others are left aside and named."""
    write_images(tmp_path / aside, 255 - labeled[0], labeled[1])
    audited = user_images.read(tmp_path)
    assert {path.split("/")[-3] for path in audited.heldout.file_paths} == {chosen}
    left = {"val": "val", "dev": "dev", "heldout": "test"}[aside]
    assert [f.path for f in audited.findings if f.kind == "left_aside"] == [left]


def test_a_class_of_folders_called_train_station(tmp_path, labeled, write_images):
    """A word that only begins like a side is a class, also if its images lie in folders."""
    images, labels = labeled
    write_images(tmp_path / "train-station", images[::2], labels[::2])
    write_images(tmp_path, images[1::2], ["test-tube"] * 6)
    assert user_images.read(tmp_path).require().images.class_names == ("test-tube", "train-station")


@pytest.mark.parametrize(
    "names", [("test", "train"), ("bus", "train-station"), ("dev", "training"), ("Train", "val")]
)
def test_classes_called_train_and_test(tmp_path, labeled, write_images, names):
    """Folders of images are classes if they hold no folders, whatever their names begin with."""
    write_images(tmp_path, labeled[0], names * 6)
    assert user_images.read(tmp_path).require().images.class_names == names


def test_a_test_folder_without_classes(tmp_path, labeled, write_images):
    """train/ with class folders and test/ with loose images are not two classes."""
    images, labels = labeled
    write_images(tmp_path / "train", images[::2], labels[::2])
    (tmp_path / "test").mkdir()
    for number, path in enumerate((tmp_path / "train").rglob("*.png")):
        (tmp_path / "test" / f"{number}.png").write_bytes(path.read_bytes())
    expected = "test: expected one folder of images for each class; found 6 images and no folders"
    assert expected in refusal(tmp_path)


def test_both_sides_are_compared(tmp_path, train_and_test):
    """A folder beside train/ and test/ is named; a class that is only on one side is refused."""
    (tmp_path / "val" / "0").mkdir(parents=True)
    found = user_images.read(tmp_path).findings
    assert [(f.kind, f.path) for f in found] == [("left_aside", "val")]
    (tmp_path / "test" / "0").rename(tmp_path / "test" / "3")
    message = refusal(tmp_path)
    assert "test/3: no such class to train on" in message
    assert "test/0: no such class folder" in message


def test_two_training_folders_are_ambiguous(tmp_path, labeled, write_images):
    """With two train-… folders, none is chosen."""
    for name in ("train-3", "train-5"):
        write_images(tmp_path / name, *labeled)
    assert "more than one folder to train on: train-3, train-5" in refusal(tmp_path)


def test_idx_files(tmp_path, labeled, write_idx):
    """IDX files of any size: train is trained on, t10k held out; one part alone is trained on."""
    images, labels = labeled
    write_idx(tmp_path, images[:, :20], labels, "t10k")
    audited = user_images.read(tmp_path).require()
    assert audited.images.images.shape == (12, 20, 28, 3)
    assert len(audited.heldout) == 0
    write_idx(tmp_path, images[:, 8:], labels, "train")
    audited = user_images.read(tmp_path).require()
    np.testing.assert_array_equal(audited.images.images[..., 0], images[:, 8:])
    np.testing.assert_array_equal(audited.heldout.images[..., 2], images[:, :20])
    assert audited.images.file_paths[3] == "train/images[3]"


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_npz_with_keras_keys(tmp_path, labeled, channels):
    """x_train and y_train are trained on, x_test and y_test held out; leaks are named."""
    images, labels = labeled
    images = np.stack([images] * channels, axis=-1) if channels else images
    parts = {"x_train": images[::2], "y_train": labels[::2]}
    np.savez(tmp_path / "train.npz", **parts)
    assert len(user_images.read(tmp_path / "train.npz").require().images) == 6
    parts |= {"x_test": images[1::2], "y_test": labels[1::2, np.newaxis]}
    np.savez(tmp_path / "both.npz", **parts)
    audited = user_images.read(tmp_path / "both.npz").require()
    assert audited.images.images.shape == audited.heldout.images.shape == (6, 28, 28, 3)
    np.testing.assert_array_equal(audited.heldout.labels, labels[1::2])
    np.savez(tmp_path / "leak.npz", **parts | {"x_test": images[::2]})
    message = refusal(tmp_path / "leak.npz")
    assert "x_test[1]: same image as x_train[1]" in message
    assert len(user_images.read(tmp_path / "leak.npz").require("skip").heldout) == 0


def test_files_that_are_not_labeled_images(tmp_path, labeled, write_idx):
    """Each wrong array file is one line that says what was expected."""
    images, labels = labeled
    good = {"x_train": images, "y_train": labels}
    for number, (arrays, words) in enumerate(
        [
            ({"x": images}, "expected the arrays x_train, y_train, x_test, y_test; found x"),
            ({"x_train": images}, "found x_train"),
            (good | {"x_test": images}, "found x_train, y_train, x_test"),
            (good | {"x_train": images / 255}, "expected 8-bit images"),
            (good | {"x_train": images[0]}, "expected 8-bit images"),
            (good | {"y_train": labels[1:]}, "expected one label >= 0 for each of the 12 images"),
            (good | {"y_train": labels - 1}, "expected one label >= 0"),
            (good | {"y_train": np.eye(12)}, "expected one label >= 0"),
            (good | {"y_train": np.array([object()] * 12)}, "cannot be read"),
            (good | {"x_test": images[:, 1:], "y_test": labels}, "different sizes"),
            (good | {"y_train": labels + 1}, "class 0 has no image to train on"),
            (good | {"y_train": labels * 0}, "all labels are 0"),
            (good | {"y_train": labels + 50_000_000}, "label 50000002 of 12 images"),
            (good | {"y_train": np.full(12, 2**64 - 1, "u8")}, "label 18446744073709551615 of"),
            (good | {"x_train": images[:, :1]}, "expected at least 8 pixels per side"),
        ]
    ):
        path = tmp_path / f"{number}.npz"
        np.savez(path, **arrays)
        assert words in refusal(path), number
    np.save(tmp_path / "one.npy", images)
    one = (tmp_path / "one.npy").read_bytes()
    for content, words in ((b, "cannot be read") for b in (b"", b"PK\3\4junk", one, one[:50])):
        (tmp_path / "bad.npz").write_bytes(content)
        assert words in refusal(tmp_path / "bad.npz")
    assert "No such file" in refusal(tmp_path / "none.npz")

    write_idx(tmp_path / "idx", images, labels)
    (tmp_path / "idx" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\3"))
    assert "not an IDX file of bytes" in refusal(tmp_path / "idx")
    (tmp_path / "huge").mkdir()
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / "huge" / name).write_bytes(struct.pack(">HBB3I", 0, 8, 3, *[2**31] * 3))
    assert "header promises" in refusal(tmp_path / "huge")


def test_arrays_are_audited_too(tmp_path, labeled):
    """In arrays, too, duplicates under two labels and small classes are refused."""
    images, labels = labeled
    images[5] = images[0]
    np.savez(tmp_path / "two.npz", x_train=images, y_train=labels)
    message = refusal(tmp_path / "two.npz")
    assert "x_train[0]: same image as x_train[5], class '1'" in message
    skipped = user_images.read(tmp_path / "two.npz").require("skip")
    assert np.bincount(skipped.images.labels).tolist() == [3, 3, 4]
    few = user_images.read(tmp_path / "two.npz", per_class=4)
    assert {f.path for f in few.findings if f.kind == "too_few"} == {"0", "1"}


OTHER_SETS = {
    "emnist-letters-train-images-idx3-ubyte.gz": "an IDX file of another name; call images and",
    "emnist-balanced-test-labels-idx1-ubyte": "swap rows and columns of EMNIST's images",
    "qmnist-test-labels-idx2-int.gz": "of QMNIST's labels, keep the first column",
    "MNIST-train-images.idx3-ubyte": "an IDX file of another name",
    "digits.zip": "an archive; unpack it",
    "Digits.TAR.GZ": "an archive; unpack it",
    "digits.7z": "an archive; unpack it",
    "train.csv": "a table; save its images",
    "train-00000-of-00001.parquet": "a table; save its images",
    "emnist-letters.mat": "a table; save its images",
    "mnist.pkl.gz": "a table; save its images",
    "train-images-idx3-ubyte.xz": "an archive; unpack it",
}


@pytest.mark.parametrize("name", OTHER_SETS)
def test_a_file_in_place_of_a_folder(tmp_path, name):
    """An archive, a table or an IDX file is told what to do, alone or in a folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(b"x")
    (folder / "README.md").touch()
    assert OTHER_SETS[name] in refusal(folder / name)
    found = refusal(folder)
    assert f"expected one folder of images for each class; found {name}: " in found
    assert OTHER_SETS[name] in found


def test_idx_files_elsewhere(tmp_path, labeled, write_idx):
    """An IDX file is told its folder, and the folder above theirs is told which is meant."""
    write_idx(tmp_path / "MNIST" / "raw", *labeled, "train")
    (file, *_) = (tmp_path / "MNIST" / "raw").glob("*images*")
    assert "an IDX file; name its folder" in refusal(file)
    assert f"holds 2 IDX files; did you mean {file.parent}?" in refusal(tmp_path / "MNIST")


def test_an_npz_file_is_to_be_named_itself(tmp_path, labeled):
    """A folder that holds an .npz file alone is told to name the file."""
    np.savez(tmp_path / "mnist.npz", x_train=labeled[0], y_train=labeled[1])
    assert "found mnist.npz: arrays; name the file itself" in refusal(tmp_path)


def test_class_folders_beside_an_archive(two_classes):
    """An archive beside the class folders is left alone."""
    (two_classes / "all.zip").touch()
    assert len(user_images.read(two_classes).require().images) == 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_odd_paths(tmp_path):
    """A pipe, a file and a missing path are refused without waiting."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for name in ("pipe", "file", "no"):
        assert "cannot be read" in refusal(tmp_path / name)
