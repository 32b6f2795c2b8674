"""Splits, batches and Keras's directory loader, the same on every backend."""

import inspect
import itertools
import re
import shutil
import threading

import keras
import numpy as np
import pytest
from PIL import Image

from mnist_keras import Batches, image_dataset_from_directory
from mnist_keras.datasets import from_directory, sources
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


def load(directory, labels="inferred", **options):
    """Return `Batches` of the size of the files, unless the options say else."""
    plain = {"image_size": (28, 28), "seed": 0, "format": None, "verbose": False}
    return image_dataset_from_directory(directory, labels, **plain | options)


def split(directory, **options):
    return load(directory, validation_split=0.3, **{"subset": "both"} | options)


def dense(units):
    """Return a small model of RGB images of 28×28 pixels."""
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(units)]
    model = keras.Sequential([keras.Input((28, 28, 3)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def arrays(dataset):
    """Return all images, and labels if there are any, of one pass as NumPy arrays."""
    parts = [batch if isinstance(batch, tuple) else (batch,) for batch in dataset]
    columns = [map(keras.ops.convert_to_numpy, part) for part in zip(*parts, strict=True)]
    return tuple(np.concatenate([np.atleast_1d(array) for array in c]) for c in columns)


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
    single = Batches(x, x.astype(int), None, seed=5)
    assert (len(single), np.shape(single[0][0]), np.shape(single[0][1])) == (10, (), ())
    np.testing.assert_array_equal([image for image, _ in single], epochs[0])


def test_loops_do_not_disturb_each_other():
    """Two loops in step give the same batches, though one begins the next epoch first."""
    batches = Batches(np.arange(10.0), None, 4)
    first, second = zip(*zip(batches, batches, strict=True), strict=True)
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))
    assert batches.epoch == 1


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
    assert load(image_folder).class_names == list("0123456789")
    for number in range(10):
        (image_folder / "heldout" / str(number)).rename(image_folder / f".{number}")
    write_images(image_folder, [picture(n) for n in range(20, 23)], ["heldout"] * 3)
    assert load(image_folder).class_names == [*"0123456789", "heldout"]


def test_subset_both(image_folder):
    """There are two datasets, with classes, paths and arrays."""
    training, validation = split(image_folder)
    assert (len(training.x), len(validation.x)) == (20, 10)
    assert training.class_names == list("0123456789")
    assert not set(training.file_paths) & set(validation.file_paths)
    for dataset in (training, validation):
        paths = [str(image_folder / str(y)) for y in dataset.y]
        assert all(p.startswith(c) for p, c in zip(dataset.file_paths, paths, strict=True))
    np.testing.assert_array_equal(arrays(validation)[1], validation.y)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("stratify", [True, False])
def test_subsets_are_the_sides_of_both(image_folder, shuffle, stratify):
    """subset="training" and "validation" are the parts of "both"; without a split, all is one."""
    options = {"seed": 2 if shuffle else None, "shuffle": shuffle, "stratify": stratify}
    for side, subset in zip(
        split(image_folder, **options), ("training", "validation"), strict=True
    ):
        one = split(image_folder, subset=subset, **options)
        assert one.file_paths == side.file_paths
        np.testing.assert_array_equal(arrays(one)[0], arrays(side)[0])
    assert len(load(image_folder).x) == 30


def test_every_parameter_is_that_of_keras():
    """Keras's parameters come first, in its order, with its defaults; ours are keyword-only."""
    theirs, ours = (
        [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
        for function in (keras.utils.image_dataset_from_directory, image_dataset_from_directory)
    )
    assert ours[: len(theirs)] == theirs
    assert {kind for _, kind, _ in ours[len(theirs) :]} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.fixture
def what_keras_takes(tmp_path, write_images):
    """A folder of which Keras's loader takes files that ours refuses or leaves out."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 20, 24, 3), dtype=np.uint8)
    root = write_images(tmp_path / "all", images, ["1", "2", "9", "10", "11"] * 4)
    write_images(tmp_path / "linked", images[:1] // 2, ["below"])
    (root / "1" / "link").symlink_to(tmp_path / "linked")
    write_images(root / "9", images[:2] // 3, ["sub", "sub.d"])
    write_images(root / "heldout", images[:2] // 4, ["1", "2"])
    write_images(root, [images[0, :3, :5]], ["2"])
    write_images(root, images[:3, ..., 0] // 7, ["gray"] * 3)
    clear = np.dstack([images[1] // 5, images[2, ..., 0]])
    for path in ("2/b.BMP", "9/.hidden.png", "top.png"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / path)
    Image.fromarray(clear).save(root / "2" / "clear.png")
    (root / "9" / "notes.txt").touch()
    (root / "empty").mkdir()
    shutil.copy(root / "1" / "000.png", root / "2" / "same.png")  # also in class 1
    return root


OPTIONS = [
    *({}, {"labels": None}, {"label_mode": None}, {"label_mode": "categorical"}),
    *({"labels": [0, 5, 9] * 11}, {"labels": [0, 1, 1] * 11, "label_mode": "categorical"}),
    {"label_mode": "binary", "class_names": ["9", "1"]},
    {"color_mode": "grayscale", "class_names": ["gray"]},
    *({"follow_links": True}, {"color_mode": "rgba"}, {"image_size": 18}, {"seed": None}),
    *({"data_format": "channels_first"}, {"batch_size": None}),
    {"crop_to_aspect_ratio": True, "image_size": (30, 17)},
    *({"validation_split": 0.3, "subset": subset} for subset in ("training", "both")),
]
# Here Keras's own formats and backends differ from each other.
RESIZING = [
    {"pad_to_aspect_ratio": True, "image_size": (30, 17)},
    *({"interpolation": name} for name in ("Nearest", "bicubic", "area", "lanczos3", "lanczos5")),
    *({"interpolation": name, "image_size": (20, 24)} for name in ("gaussian", "mitchellcubic")),
]


@pytest.mark.several_backends
@pytest.mark.parametrize(
    ("format", "options"),
    [*itertools.product(("tf", "grain"), OPTIONS), *(("tf", options) for options in RESIZING)],
    indirect=["format"],
    ids=str,
)
def test_equal_to_keras_where_we_do_not_differ(what_keras_takes, format, options):
    """Classes, files, sides, images and labels are Keras's, with our differences switched off."""
    atol = 0 if format == "tf" and options.get("interpolation") in (None, "Nearest") else 0.002
    defaults = {"image_size": (18, 30), "batch_size": 7, "seed": 3, "verbose": False}
    for shuffle in (True, False):
        given = {"format": format, "shuffle": shuffle} | defaults | options
        np.random.seed(1)
        theirs = keras.utils.image_dataset_from_directory(what_keras_takes, **given)
        np.random.seed(1)
        given |= {"stratify": False, "on_bad": "keep"}
        ours = image_dataset_from_directory(what_keras_takes, **given)
        if options.get("subset") != "both":
            theirs, ours = [theirs], [ours]
        for one, other in zip(theirs, ours, strict=True):
            assert one.class_names == other.class_names
            assert list(one.file_paths) == other.file_paths
            if format == "tf":
                assert len(one) == len(other) == one.cardinality() == other.cardinality()
                if options.get("interpolation") != "Nearest":  # of which Keras returns uint8
                    assert one.element_spec == other.element_spec
    for one, other in zip(theirs, ours, strict=True):  # in one order
        first = [keras.tree.map_structure(type, next(iter(dataset))) for dataset in (one, other)]
        assert first[0] == first[1]
        for x, y in itertools.zip_longest(arrays(one), arrays(other)):
            assert x.shape == y.shape
            np.testing.assert_allclose(x, y, rtol=0, atol=atol)


@pytest.mark.filterwarnings(
    # Keras 3.15 warns of every Grain dataset in a `fit`, as it does not ask for the length.
    "ignore:Your input ran out of data:UserWarning",
)
def test_other_formats_give_the_same_batches(image_folder, format):
    """tf.data and Grain datasets give the batches of `Batches`, epoch by epoch, and fit."""
    assert load(image_folder, None).y is None
    plain, wrapped = (
        load(image_folder, batch_size=8, seed=3, format=name) for name in (None, format)
    )
    assert wrapped.class_names == plain.class_names
    assert wrapped.file_paths == plain.file_paths
    for _ in range(3):
        for ours, theirs in zip(arrays(plain), arrays(wrapped), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype

    history = dense(10).fit(wrapped, epochs=2, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_given_labels_stay_with_their_files(image_folder, cache):
    """A file that is skipped takes its label with it."""
    labels = np.arange(30)
    (image_folder / "3" / "010.png").write_bytes(b"")
    with pytest.raises(ImageFolderError, match=r"3/010\.png: empty file"):
        load(image_folder, labels)
    dataset = load(image_folder, labels, shuffle=False, on_bad="skip", cache=cache)
    assert dataset.y.tolist() == [*range(10), *range(11, 30)]
    assert [path[-7:-4] for path in dataset.file_paths] == [f"{y:03d}" for y in dataset.y]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("`labels` argument should be", {"labels": "other"}),
        ("`label_mode` argument must be", {"label_mode": "ints"}),
        ("`color_mode` must be one of", {"color_mode": "gray"}),
        ("Argument `interpolation` should be one of", {"interpolation": "cubic"}),
        ("Invalid `image_size` value. Expected", {"image_size": (8, 8, 3)}),
        ("`format` should be", {"format": "pandas"}),
        ("can only pass `class_names` if", {"labels": [0] * 30, "class_names": ["0"]}),
        ("`class_names` passed did not match", {"class_names": ["1", "ten"]}),
        ("there must be exactly 2", {"label_mode": "binary"}),
        ("`validation_split` must be between 0 and 1", {"validation_split": 2}),
        ("`subset` must be either", {"validation_split": 0.2, "subset": "test"}),
        ("`validation_split` must be set", {"subset": "training"}),
        ("`validation_split` must be set", {"validation_split": 0.2}),
        ("must provide a `seed`", {"validation_split": 0.2, "subset": "both", "seed": None}),
    ],
)
def test_errors_are_in_the_words_of_keras(image_folder, words, arguments):
    """What Keras refuses is refused with a ValueError that has its words."""
    for function in (keras.utils.image_dataset_from_directory, load):
        with pytest.raises(ValueError, match=re.escape(words)):
            function(image_folder, **arguments)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("image_size", {"image_size": (0, 28)}), ("labels", {"labels": [0.5] * 30})),
        ("labels` to match the number of files", {"labels": [0, 1]}),
        *((name, {name: "other"}) for name in ("on_bad", "cache", "data_format")),
        ("crop_to_aspect_ratio", {"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True}),
        ("batch_size", {"batch_size": 0}),
        ("validation_split", {"validation_split": 0.01, "subset": "both"}),
    ],
)
def test_bad_arguments(image_folder, name, arguments):
    """A bad argument is a ValueError that names it."""
    for stratify in (True, False):
        with pytest.raises(ValueError, match=f"`{name}"):
            load(image_folder, stratify=stratify, **arguments)


@pytest.mark.any_backend
def test_a_folder_without_images(tmp_path):
    """Empty class folders are refused in Keras's words, and so is a path that is not there."""
    (tmp_path / "a").mkdir()
    for options in ({}, {"labels": None}, {"on_bad": "keep"}):
        with pytest.raises(ValueError, match="No images found in directory"):
            load(tmp_path, **options)
        with pytest.raises(ImageFolderError, match=r"No such file|No images found"):
            load(tmp_path / "other", **options)


@pytest.mark.any_backend
def test_what_is_printed(image_folder, capsys):
    """The numbers of files are printed as Keras prints them, or not at all."""
    split(image_folder, verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        "Found 30 files belonging to 10 classes.",
        *("Using 20 files for training.", "Using 10 files for validation."),
    ]
    load(image_folder, None, verbose=True)
    split(image_folder)
    assert capsys.readouterr().out == "Found 30 files.\n"


@pytest.mark.parametrize(("name", "package"), [("tf", "tensorflow"), ("grain", "grain")])
def test_a_format_whose_package_is_missing(image_folder, monkeypatch, name, package):
    """The error names the package, and the format that does without."""
    monkeypatch.setattr(from_directory, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"needs {package}.*`format=None`"):
        load(image_folder, format=name)


def test_damaged_file_is_named_before_the_first_batch(image_folder):
    """The call, not the first epoch, raises an error that names a damaged file."""
    path = image_folder / "4" / "012.png"
    path.write_bytes(path.read_bytes()[:100])
    for on_bad in ("refuse", "keep"):
        with pytest.raises(ImageFolderError, match=r"4/012\.png: truncated image"):
            load(image_folder, on_bad=on_bad)


def test_fit_evaluate_and_predict_take_the_datasets(image_folder):
    """The methods of a Keras model take the datasets as they are."""
    training, validation = split(image_folder)
    model = dense(10)
    model.fit(training, validation_data=validation, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(model.evaluate(validation, verbose=0))
    assert model.predict(validation, verbose=0).shape == (10, 10)


def test_fit_trains_on_views(digit_images):
    """The loss of an epoch of warped batches follows from `warp` alone, and threads end with it."""
    others = set(threading.enumerate())  # of batches that another test has not used up
    images, y = digit_images[0][..., np.newaxis], digit_images[1]
    warped = WarpedBatches(images, y, ELASTIC, batch_size=4, seed=6, threads=2)
    units = keras.layers.Dense(10, kernel_initializer=FanInUniform(seed=0, path="kernel"))
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
    given = load(folder).class_names
    assert sorted(given) == sorted(names)
    again = load(folder, class_names=given[::-1])
    assert again.class_names == given[::-1]
