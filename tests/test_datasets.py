"""Splits, batches and Keras's directory loader, the same on every backend."""

import threading

import keras
import numpy as np
import pytest

from mnist_keras import Batches, image_dataset_from_directory
from mnist_keras.datasets import sources
from mnist_keras.datasets.augmentation import ELASTIC, warp
from mnist_keras.datasets.batches import WarpedBatches
from mnist_keras.datasets.image_folder.findings import ImageFolderError
from mnist_keras.datasets.splits import draw, split_indices
from mnist_keras.portable import FanInUniform


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.several_backends) for name in ("tf", "grain")]
)
def format(request):
    """The formats that need a package, as far as it is installed."""
    package = {"tf": "tensorflow", "grain": "grain"}[request.param]
    pytest.importorskip(package, reason=f"format={request.param!r} needs {package}")
    return request.param


def unsplit(directory, labels="inferred", **options):
    return image_dataset_from_directory(directory, labels, validation_split=None, **options)


def dense(units):
    """Return a small model of RGB images of 28×28 pixels."""
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(units)]
    model = keras.Sequential([keras.Input((28, 28, 3)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def arrays(dataset):
    """Return all images and labels of one pass as NumPy arrays."""
    batches = [tuple(map(keras.ops.convert_to_numpy, map(np.asarray, b))) for b in dataset]
    return tuple(map(np.concatenate, zip(*batches, strict=True)))


@pytest.fixture
def digits():
    """500 of scikit-learn's digits, 50 of each class."""
    return draw(sources.load("digits"), 50, seed=0)[0]


def test_splits_with_and_without_strata(digits):
    """By default 10 of the 50 images of a class are drawn; the original's split is of all 500."""
    training, validation = split_indices(digits, 0.2, seed=0)
    assert np.bincount(digits.labels[training]).tolist() == [40] * 10
    assert np.bincount(digits.labels[validation]).tolist() == [10] * 10
    assert sorted([*training, *validation]) == list(range(500))
    training, validation = split_indices(digits, 0.2, seed=0, stratify=False)
    assert (len(training), len(validation)) == (400, 100)
    assert len(set(np.bincount(digits.labels[validation], minlength=10))) > 1


def test_split_depends_on_contents_and_seed_alone(digits):
    """Another order of the images gives the same sides; another seed gives others."""
    order = np.random.default_rng(1).permutation(500)
    for stratify in (True, False):
        _, validation = split_indices(digits, 0.2, 3, stratify)
        _, shuffled = split_indices(digits.take(order), 0.2, 3, stratify)
        _, other = split_indices(digits, 0.2, 4, stratify)
        chosen = set(digits.fingerprints[validation])
        assert chosen == set(digits.take(order).fingerprints[shuffled])
        assert chosen != set(digits.fingerprints[other])


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, 0.0001])
def test_impossible_split(digits, share):
    """A share outside of (0, 1), or one that leaves a side empty, is refused."""
    with pytest.raises(ValueError, match="validation_split"):
        split_indices(digits, share, 0)


def test_batches_reshuffle_each_epoch_from_seed_and_epoch():
    """Each epoch has all images once, in its own order, which another object repeats."""
    x = np.arange(10.0)
    batches, again = (Batches(x, x.astype(int), 4, seed=5) for _ in range(2))
    epochs = [np.concatenate([b for b, _ in batches]) for _ in range(3)]

    assert len(batches) == 3
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), x)
        np.testing.assert_array_equal(epoch, np.concatenate([b for b, _ in again]))
    unshuffled = Batches(x, None, 4, shuffle=False)
    np.testing.assert_array_equal(np.concatenate([*unshuffled, *unshuffled]), [*x, *x])


def test_batches_out_of_range():
    """A batch after the last one is refused, and so are empty batches."""
    with pytest.raises(IndexError, match="batch 3 of 3"):
        _ = Batches(np.arange(10), None, 4)[3]
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        Batches(np.arange(10), None, 0)


@pytest.mark.parametrize("built", [False, True])
def test_fit_sees_the_order_that_iteration_shows(built):
    """The epochs of a `fit` have the order of a loop, from the second one on."""
    seen = []

    class Note(Batches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            seen.append((self.epoch, x[:, 0]))
            return x, y

    x = np.arange(8, dtype="float32")[:, np.newaxis]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    if built:
        model.fit(x, x, verbose=0)
    model.fit(Note(x, x, 2, seed=1), epochs=3, shuffle=False, verbose=0)

    for epoch in (1, 2, 3):
        plain = Batches(x, x, 2, seed=1)
        plain.set_epoch(epoch)
        expected = np.concatenate([b[:, 0] for b, _ in plain])
        # Some backends read a batch or two more to learn the shape: the last ones are trained on.
        read = np.concatenate([values for e, values in seen if e == epoch])[-8:]
        np.testing.assert_array_equal(read, expected)


def test_heldout_beside_the_classes_is_not_a_class(image_folder, write_images, picture):
    """A heldout/ with class folders is left out, as by `run`; a class of this name is not."""
    write_images(image_folder / "heldout", [picture(n) for n in range(10)], range(10))
    assert unsplit(image_folder).class_names == list("0123456789")
    for number in range(10):
        (image_folder / "heldout" / str(number)).rename(image_folder / f".{number}")
    write_images(image_folder, [picture(n) for n in range(20, 23)], ["heldout"] * 3)
    assert unsplit(image_folder).class_names == [*"0123456789", "heldout"]


def test_default_is_a_split_in_two(image_folder):
    """By default there are two datasets, with classes, paths and arrays."""
    training, validation = image_dataset_from_directory(image_folder, validation_split=0.3)
    assert (len(training.x), len(validation.x)) == (20, 10)
    assert training.class_names == list("0123456789")
    assert not set(training.file_paths) & set(validation.file_paths)
    for dataset in (training, validation):
        paths = [str(image_folder / str(y)) for y in dataset.y]
        assert all(p.startswith(c) for p, c in zip(dataset.file_paths, paths, strict=True))
    np.testing.assert_array_equal(arrays(validation)[1], validation.y)


def test_subsets_are_the_sides_of_both(image_folder):
    """subset="training" and "validation" are the parts of "both"; without a split, all is one."""
    both = image_dataset_from_directory(image_folder, validation_split=0.3, seed=2)
    for side, subset in zip(both, ("training", "validation"), strict=True):
        options = {"validation_split": 0.3, "seed": 2, "subset": subset}
        one = image_dataset_from_directory(image_folder, **options)
        assert one.file_paths == side.file_paths
        np.testing.assert_array_equal(arrays(one)[0], arrays(side)[0])
    assert len(unsplit(image_folder).x) == 30


@pytest.mark.parametrize("color_mode", ["grayscale", "rgb"])
@pytest.mark.parametrize("size", [(28, 28), (20, 33)])
def test_equal_to_keras_on_plain_png(image_folder, format, color_mode, size):
    """On plain PNG the images, labels and order are Keras's own, bit for bit, resized or not."""
    options = {"color_mode": color_mode, "image_size": size, "batch_size": 7, "shuffle": False}
    theirs = keras.utils.image_dataset_from_directory(
        image_folder, format=format, verbose=False, **options
    )
    ours = unsplit(image_folder, **options)

    assert ours.class_names == theirs.class_names
    assert ours.file_paths == list(theirs.file_paths)
    for (x, y), (x_keras, y_keras) in zip(ours, theirs, strict=True):
        assert x.dtype == np.float32
        # Grain resizes with the backend's arithmetic, whose last bits differ.
        atol = 0 if format == "tf" or size == (28, 28) else 1e-3
        np.testing.assert_allclose(x, keras.ops.convert_to_numpy(x_keras), rtol=0, atol=atol)
        np.testing.assert_array_equal(y, keras.ops.convert_to_numpy(y_keras))
        assert y.dtype == keras.ops.convert_to_numpy(y_keras).dtype


@pytest.mark.filterwarnings(
    # Keras 3.15 warns of every Grain dataset in a `fit`, as it does not ask for the length.
    "ignore:Your input ran out of data:UserWarning",
)
def test_other_formats_give_the_same_batches(image_folder, format):
    """tf.data and Grain datasets give the batches of `Batches`, epoch by epoch, and fit."""
    assert unsplit(image_folder, None, batch_size=8).y is None
    plain, wrapped = (
        unsplit(image_folder, batch_size=8, seed=3, format=name) for name in (None, format)
    )
    assert wrapped.class_names == plain.class_names
    assert wrapped.file_paths == plain.file_paths
    for _ in range(3):
        for ours, theirs in zip(arrays(plain), arrays(wrapped), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype

    history = dense(10).fit(wrapped, epochs=2, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize(
    ("label_mode", "shape", "dtype"),
    [("int", (30,), "int32"), ("categorical", (30, 10), "float32")],
)
def test_label_modes(image_folder, label_mode, shape, dtype):
    """Labels have Keras's encodings."""
    dataset = unsplit(image_folder, label_mode=label_mode, shuffle=False)
    assert (dataset.y.shape, dataset.y.dtype) == (shape, dtype)
    classes = dataset.y if label_mode == "int" else dataset.y.argmax(1)
    np.testing.assert_array_equal(classes, np.repeat(np.arange(10), 3))


def test_binary_labels_and_chosen_classes(image_folder):
    """class_names picks and orders the classes; binary labels need two of them."""
    dataset = unsplit(image_folder, label_mode="binary", class_names=["7", "2"])
    assert (dataset.y.shape, dataset.y.dtype) == ((6, 1), "float32")
    assert dataset.class_names == ["7", "2"]
    assert dataset.y[[("/7/" in path) for path in dataset.file_paths]].max() == 0
    with pytest.raises(ValueError, match="needs exactly 2 classes"):
        image_dataset_from_directory(image_folder, label_mode="binary")
    with pytest.raises(ImageFolderError, match="ten: no such class folder"):
        image_dataset_from_directory(image_folder, class_names=["1", "ten"])


def test_given_labels_ignore_the_folders(image_folder):
    """Labels for the files, in the order of their paths, replace the folders' names."""
    labels = [0, 1, 2] * 10
    dataset = unsplit(image_folder, labels)
    np.testing.assert_array_equal(dataset.y, labels)
    assert dataset.class_names == ["0", "1", "2"]
    for bad in (labels[1:], [0.5] * 30, [-1] * 30):
        with pytest.raises(ValueError, match="`labels` must be one integer"):
            image_dataset_from_directory(image_folder, bad)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_given_labels_stay_with_their_files(image_folder, cache):
    """A file that is skipped takes its label with it."""
    labels = np.arange(30)
    (image_folder / "3" / "010.png").write_bytes(b"")
    with pytest.raises(ImageFolderError, match=r"3/010\.png: empty file"):
        image_dataset_from_directory(image_folder, labels)
    dataset = unsplit(image_folder, labels, on_bad="skip", cache=cache)
    assert dataset.y.tolist() == [*range(10), *range(11, 30)]
    assert [path[-7:-4] for path in dataset.file_paths] == [f"{y:03d}" for y in dataset.y]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("image_size", (0, 28)), ("on_bad", "ignore"), ("cache", "ram"), ("label_mode", "ints")),
        *(("color_mode", "gray"), ("interpolation", "cubic"), ("subset", "test")),
        *(("format", "pandas"), ("validation_split", 1.0), ("batch_size", 0), ("seed", -1)),
    ],
)
def test_bad_arguments(image_folder, argument, value):
    """A bad argument is a ValueError that names it."""
    with pytest.raises(ValueError, match=f"`{argument}"):
        image_dataset_from_directory(image_folder, **{argument: value})


def test_damaged_file_is_named_before_the_first_batch(image_folder):
    """The call, not the first epoch, raises an error that names a damaged file."""
    path = image_folder / "4" / "012.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageFolderError, match=r"4/012\.png: truncated image"):
        image_dataset_from_directory(image_folder)


def test_fit_evaluate_and_predict_take_the_datasets(image_folder):
    """The methods of a Keras model take the datasets as they are."""
    training, validation = image_dataset_from_directory(image_folder, validation_split=0.3)
    model = dense(10)
    model.fit(training, validation_data=validation, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(model.evaluate(validation, verbose=0))
    assert model.predict(validation, verbose=0).shape == (10, 10)


def test_fit_trains_on_views(digit_images):
    """The loss of an epoch of warped batches follows from `warp` alone, and threads end with it."""
    others = set(threading.enumerate())  # of batches that another test has not used up
    images, y = digit_images[0][..., np.newaxis], digit_images[1]
    warped = WarpedBatches(images, y, ELASTIC, batch_size=4, seed=6, threads=2)
    units = keras.layers.Dense(10, kernel_initializer=FanInUniform("kernel", seed=0))
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), units])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # With a learning rate of 0, the loss of an epoch is the mean loss of its views.
    model.compile(keras.optimizers.SGD(0.0), loss)
    start = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: warped.set_epoch(3))
    history = model.fit(warped, shuffle=False, verbose=0, callbacks=[start])

    x = images / np.float32(255)
    expected = model.evaluate(warp(x, np.arange(30), 3, 6, ELASTIC), y, verbose=0)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history.history["loss"][0] != pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-4)
    own = set(threading.enumerate()) - others
    assert not [thread for thread in own if thread.name.startswith("warps")]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "names",
    [("a\nb", r"a\nb"), ("می\u200cخوان", "日本\u3000語"), ("x\u202e", "\x1b[2J")],
)
def test_class_names_are_those_of_the_folders(tmp_path, write_images, picture, names):
    """Whatever signs they have, they can be given back, in any order."""
    folder = write_images(tmp_path / "data", [picture(n) for n in range(8)], names * 4)
    given = image_dataset_from_directory(folder, validation_split=None).class_names
    assert sorted(given) == sorted(names)
    again = image_dataset_from_directory(folder, class_names=given[::-1], validation_split=None)
    assert again.class_names == given[::-1]
