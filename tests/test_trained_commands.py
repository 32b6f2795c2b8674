"""`train`, `predict`, `evaluate` and `explain`: a model from its training to its pictures."""

import csv
import io
import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from mnist_keras.datasets.images import DataError, image_fingerprint
from mnist_keras.experiments.results_folder import ResultsFolder
from mnist_keras.explanations.maps import ExplanationError
from mnist_keras.inference import portrait
from mnist_keras.inference.classification import classify, image_files, labeled_images
from mnist_keras.inference.evaluation import split_seen
from mnist_keras.inference.model_file import load_model
from mnist_keras.models.prediction import predict, softmax


@pytest.fixture
def folder(digits_data, write_images, tmp_path):
    """Sixty held-out digits as class folders."""
    chosen = digits_data.heldout.take(np.arange(0, 1297, 21)[:60])
    return write_images(tmp_path / "sixty", chosen.images[..., 0], chosen.labels)


@pytest.fixture
def image(folder):
    """One of their files."""
    return next(folder.rglob("*.png"))


@pytest.mark.usefixtures("without_figures")
def test_train_is_the_run(invoke, tmp_path, write_experiment):
    """The model's accuracies are those that `run` gives the same settings and seed."""
    path = tmp_path / "mlp.keras"
    arguments = ("--source", "digits", "--per-class", 20)
    settings = ("--model", "basic_net", "--loss", "focal", "--gamma", 1, "--epochs", 2)
    result = invoke("train", "-o", path, *settings, "--seed", 1, *arguments)
    experiment, out = write_experiment(tmp_path, {"name": "a"}, gamma=1), tmp_path / "results"
    invoke("run", experiment, "--seeds", 2, *arguments, "--output", out)
    (record,) = [r for r in ResultsFolder(out).records()[0] if r.run.seed == 1]
    card = load_model(path).card
    assert card.settings == record.run.settings
    assert card.data_fingerprint == record.data_fingerprint
    assert card.metrics.training_loss == record.history.loss[-1]
    right = record.scores[2].heldout == record.heldout_labels
    assert card.metrics.heldout.accuracy == right.mean()
    assert f"held-out accuracy {100 * right.mean():.2f} % [" in result.stdout
    assert card.versions["backend"] == keras.backend.backend()
    assert card.input.background == "dark"
    assert not card.input.resized


@pytest.mark.parametrize("last", [(), ("--epochs", 1, "--batch-size", 1000)])
def test_a_diverged_training_writes_nothing(last, invoke, tmp_path):
    """Exit code 6, and the file that was there stays: also if the loss of the only step is finite
    and the weights after it are not."""
    path = tmp_path / "m.keras"
    path.write_bytes(b"old")
    result = invoke(
        *("train", "-o", path, "--overwrite", "--source", "digits", "--model", "basic_net", *last),
        *("--optimizer", "sgd", "--activation", "relu", "--learning-rate", 1e38),
        code=6,
    )
    assert "diverged at epoch" in result.stderr
    assert path.read_bytes() == b"old"


def test_predict_gives_the_models_probabilities(invoke, model_file, trained, digits_data, folder):
    """The CSV has one line for each file, in natural order, with its class and the runner-up."""
    result = invoke("predict", model_file("small_cnn"), folder, "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(result.stdout)))
    files = [Path(line["file"]) for line in lines]
    assert files == sorted(folder.rglob("*.png"), key=lambda p: (p.parent.name, p.name))
    images = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in files])
    expected = softmax(predict(trained("small_cnn").model, images))
    for line, row in zip(lines, expected, strict=True):
        second, first = np.sort(row)[-2:]
        assert float(line["probability"]) == pytest.approx(first, abs=2e-6)
        assert float(line["runner_up_probability"]) == pytest.approx(second, abs=2e-6)
        assert line["class"] == str(row.argmax())
        assert line["runner_up"] == str(row.argsort()[-2])


@pytest.mark.any_backend
def test_predict_formats(invoke, model_file, image):
    """Table and JSON lines say what the CSV says."""
    table = invoke("predict", model_file("basic_net"), image)
    header, line = table.stdout.splitlines()
    assert header.split() == ["file", "class", "probability", "runner-up", "probability"]
    # Each cell stands below its heading.
    starts = [[cell.start() for cell in re.finditer(r"\S+", row)] for row in (header, line)]
    assert starts[0] == starts[1]
    said = json.loads(invoke("predict", model_file("basic_net"), image, "--format", "jsonl").stdout)
    cells = [f"{cell:.6f}" if isinstance(cell, float) else cell for cell in said.values()]
    assert line.split() == cells
    assert list(said) == ["file", "class", "probability", "runner_up", "runner_up_probability"]
    assert said["file"] == str(image)


@pytest.mark.any_backend
def test_bad_images_are_named_and_skipped(invoke, model_file, image, tmp_path):
    """The others are classified nevertheless; the exit code is 3."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(image.read_bytes()[:-20])
    files = bad, image, tmp_path / "none.png"
    result = invoke("predict", model_file("basic_net"), *files, "--format", "csv", code=3)
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["file", str(image)]
    assert f"{bad}: truncated image: the PNG has no end" in result.stderr
    assert "none.png: cannot be read: No such file" in result.stderr
    assert "2 of 3 images skipped" in result.stderr


@pytest.mark.any_backend
def test_an_image_on_stdin(model_file, image, invoke):
    """`-` is one image, and its name is `-`."""
    arguments = ("predict", model_file("basic_net"), "--format", "jsonl")
    result, named = invoke(*arguments, "-", input=image.read_bytes()), invoke(*arguments, image)
    assert json.loads(result.stdout) == json.loads(named.stdout) | {"file": "-"}


def test_dark_ink_on_light_paper(invoke, model_file, folder, tmp_path):
    """An inverted copy has the class of the image; with --invert no, it has not."""
    images = list(folder.rglob("*.png"))[:40]
    copies = [tmp_path / f"{number:02}.png" for number in range(len(images))]
    for path, copy in zip(images, copies, strict=True):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(copy)

    def classes(*arguments):
        result = invoke("predict", model_file("small_cnn"), *arguments, "--format", "jsonl")
        return [json.loads(line)["class"] for line in result.stdout.splitlines()]

    expected = classes(*images)
    assert classes(*copies) == expected
    assert classes(*copies, "--invert", "yes") == expected
    assert classes(*copies, "--invert", "no") != expected


def page(image, size=(150, 120), place=(30, 25), times=3):
    """Return a drawing of a digit somewhere on light paper, larger."""
    paper = np.full((*size, 3), 230, np.uint8)
    ink = np.kron(image.astype(float), np.ones((times, times)))
    rows, columns = (slice(at, at + 28 * times) for at in place)
    paper[rows, columns] -= (0.8 * ink)[..., np.newaxis].astype(np.uint8)
    return paper


@pytest.fixture
def photos(folder, write_images, tmp_path):
    """The sixty digits as drawings on light paper."""
    files = sorted(folder.rglob("*.png"))
    pages = [page(np.asarray(Image.open(path))) for path in files]
    return write_images(tmp_path / "photos", pages, [path.parent.name for path in files])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("photos", ""),
        ("photos", "--fit resize"),
        ("folder", "--fit ink --invert no"),
        ("folder", "--invert yes"),
    ],
)
def test_images_are_brought_to_the_model_in_one_way(request, invoke, model_file, kind, options):
    """`evaluate` counts what `predict` prints, whatever the size and background of the images."""
    directory, options = request.getfixturevalue(kind), shlex.split(options)
    arguments = (model_file("basic_net"), directory, *options, "--format")
    lines = list(csv.DictReader(io.StringIO(invoke("predict", *arguments, "csv").stdout)))
    confusion = np.zeros((10, 10), int)
    for line in lines:
        confusion[int(Path(line["file"]).parent.name), int(line["class"])] += 1
    document = json.loads(invoke("evaluate", *arguments, "json", "--on-bad", "skip").stdout)
    assert document["confusion"] == confusion.tolist()
    assert document["n"] == 60


@pytest.mark.any_backend
def test_photos_are_recognized(trained, folder, photos):
    """Drawings on light paper are worth as much to `evaluate` and `explain` as the digits."""
    found, plain = (labeled_images(path, trained("basic_net").card) for path in (photos, folder))
    right = [
        (predict(trained("basic_net").model, x.images).argmax(1) == x.labels).mean()
        for x in (found, plain)
    ]
    assert min(right) > 0.6
    resized = labeled_images(photos, trained("basic_net").card, fit="resize")
    assert not np.array_equal(resized.images[:], found.images[:])


@pytest.mark.any_backend
def test_arrays_are_brought_alike(trained, folder, tmp_path):
    """Images in an .npz file are inverted like those in files, and an empty one is refused."""
    card = trained("basic_net").card
    plain = labeled_images(folder, card)
    images, labels = 255 - plain.images[:].astype(np.uint8), plain.labels
    np.savez(tmp_path / "inverted.npz", x_train=images, y_train=labels)
    found = labeled_images(tmp_path / "inverted.npz", card)
    assert sorted(found.fingerprints) == sorted(plain.fingerprints)
    images[7] = 255
    np.savez(tmp_path / "inverted.npz", x_train=images, y_train=labels)
    with pytest.raises(DataError, match=r"x_train\[7\]: nothing is drawn"):
        labeled_images(tmp_path / "inverted.npz", card)


@pytest.mark.any_backend
def test_images_trained_on_are_brought_as_in_training(invoke, trained, tmp_path, write_images):
    """An odd training image, such as an empty or inverted one, has its class and is recognized."""
    rng = np.random.default_rng(0)
    empty, inverted = np.full((28, 28, 3), 255, np.uint8), np.full((28, 28, 3), 250, np.uint8)
    inverted[8:20, 8:20] = rng.integers(0, 100, (12, 12, 1))
    known = np.array([image_fingerprint(x) for x in (empty, inverted)], "S32")
    card = trained("basic_net").card.model_copy(update={"trained_on": known})
    odd = replace(trained("basic_net"), card=card)
    folder = write_images(tmp_path / "odd", [empty, inverted], ["3", "4"])
    found = labeled_images(folder, odd.card)
    assert split_seen(found, known, unseen=False)[1] == 2
    assert all(one.probabilities is not None for one in classify(odd, image_files(folder)))
    with pytest.raises(DataError, match="nothing is drawn"):
        labeled_images(folder, odd.card, invert="no")


EMPTY = {
    "white": lambda: np.full((300, 200, 3), 255),
    "black": lambda: np.zeros((28, 28, 3)),
    "colored": lambda: np.full((64, 64, 3), (200, 120, 40)),
    "slanted light": lambda: np.linspace(120, 220, 90).reshape(-1, 1, 1) + np.zeros((90, 90, 3)),
    "grain": lambda: np.random.default_rng(0).normal(230, 6, (120, 160, 3)),
    "grain, small": lambda: np.random.default_rng(0).normal(230, 1, (28, 28, 3)),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_page_has_no_class(invoke, model_file, photos, case):
    """`predict` names and skips it, as `evaluate` does on demand and otherwise refuses it."""
    (photos / "3").mkdir(exist_ok=True)
    path = photos / "3" / "empty.png"
    Image.fromarray(EMPTY[case]().clip(0, 255).astype(np.uint8)).save(path)
    result = invoke("predict", model_file("basic_net"), photos, "--format", "csv", code=3)
    assert len(result.stdout.splitlines()) == 1 + 60
    assert f"{path}: nothing is drawn" in result.stderr
    arguments = ("evaluate", model_file("basic_net"), photos, "--format", "json")
    assert "3/empty.png: nothing is drawn" in invoke(*arguments, code=3).stderr
    assert json.loads(invoke(*arguments, "--on-bad", "skip").stdout)["n"] == 60


@pytest.mark.any_backend
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_every_file_that_is_left_out_is_named(invoke, model_file, image, tmp_path):
    """Whatever keeps a file below a folder from being classified, it is named; the code is 3."""
    place = tmp_path / "place"
    (place / "folder.png").mkdir(parents=True)
    (place / "deeper").mkdir()
    good = ("1.png", "deeper/2.jfif", "3.tga")
    for name in good:
        Image.open(image).convert("RGB").save(place / name, "PNG" if "png" in name else "JPEG")
    for name in ("scan.tiff", "moving.avif", "deeper/modern.jxl", "notes.txt", "IMG_0001"):
        (place / name).write_bytes(b"II*\0")
    (place / "broken.gif").symlink_to("nowhere")
    (place / "again").symlink_to(".")
    os.mkfifo(place / "pipe.bmp")
    (place / ".DS_Store").touch()
    result = invoke("predict", model_file("basic_net"), place, "--format", "csv", code=3)
    lines = result.stdout.splitlines()[1:]
    assert {line.split(",")[0] for line in lines} == {str(place / name) for name in good}
    left_out = {
        *("scan.tiff", "moving.avif", "deeper/modern.jxl", "notes.txt", "IMG_0001"),
        *("broken.gif", "again", "pipe.bmp", "folder.png"),
    }
    named = {line.split(": ")[0] for line in result.stderr.splitlines() if line.startswith("/")}
    assert named == {str(place / name) for name in left_out}
    assert f"{len(left_out)} of {len(left_out) + 3} images skipped" in result.stderr
    for name in good:
        (place / name).unlink()
    result = invoke("predict", model_file("basic_net"), place, code=3)
    assert f"{place / 'scan.tiff'}: " in result.stderr


@pytest.mark.any_backend
def test_turned_photos_are_classified_upright(trained, photos, tmp_path):
    """A photo that lies on its side by its EXIF data has the probabilities of the upright one."""
    path = next(photos.rglob("*.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png", exif=exif)
    files = image_files(path) + image_files(tmp_path / "side.png")
    upright, turned = classify(trained("basic_net"), files)
    np.testing.assert_array_equal(upright.probabilities, turned.probabilities)


@pytest.mark.any_backend
def test_what_does_not_look_like_one_digit_is_remarked_on(invoke, model_file, image, tmp_path):
    """Two digits on a page, and an animated PNG, have a row each and a line on stderr."""
    digit = np.asarray(Image.open(image))
    two = np.concatenate([page(digit), page(digit)], axis=1)
    frames = [Image.fromarray(page(digit, place=(30, x))) for x in (20, 30)]
    place = tmp_path / "place"
    place.mkdir()
    Image.fromarray(two).save(place / "two.png")
    frames[0].save(place / "moving.png", save_all=True, append_images=frames[1:])
    frames[0].save(place / "one.png")
    result = invoke("predict", model_file("basic_net"), place, "--format", "csv")
    rows = {
        Path(line.split(",")[0]).name: line.split(",")[1:] for line in result.stdout.splitlines()
    }
    assert rows["moving.png"] == rows["one.png"]
    assert set(rows) == {"file", "two.png", "moving.png", "one.png"}
    assert f"{place / 'two.png'}: it looks like several digits" in result.stderr
    assert f"{place / 'moving.png'}: animated" in result.stderr
    assert "one.png" not in result.stderr


@pytest.mark.any_backend
def test_classify_with_many_bad_ones(trained, folder, tmp_path):
    """Whatever the share of bad images, each result belongs to its image."""
    (tmp_path / "bad.png").touch()
    (broken,) = image_files(tmp_path / "bad.png")
    files = image_files(folder)
    alone = {found.name: found for found in classify(trained("basic_net"), files)}
    mixed = [source for file in files[:7] for source in (broken, file)] + [broken] * 3
    for source, found in zip(mixed, classify(trained("basic_net"), mixed), strict=True):
        assert found.name == source.name
        if source is broken:
            assert found.reason == "empty file"
        else:
            expected = alone[source.name].probabilities
            np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert [found.reason for found in classify(trained("basic_net"), [broken])] == ["empty file"]
    assert list(classify(trained("basic_net"), [])) == []


def test_a_model_without_finite_answers(trained, folder):
    """If weights are so large that logits overflow, the reason is given in place of a class."""
    model = trained("basic_net").untrained()
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 1e30, np.float32))
    spoilt = replace(trained("basic_net"), model=model)
    for found in classify(spoilt, image_files(folder)):
        assert found.reason == "the model's probabilities are not finite numbers"
    images = labeled_images(folder, spoilt.card)
    with pytest.raises(ExplanationError, match="not finite"):
        next(portrait.draw(spoilt, images))


def test_evaluate_command(invoke, model_file, trained, folder, tmp_path):
    """JSON, text and files say the same about the model's answers."""
    out = tmp_path / "out"
    result = invoke("evaluate", model_file("small_cnn"), folder, "--format", "json", "-o", out)
    document = json.loads(result.stdout)
    assert document == json.loads((out / "evaluation.json").read_text())
    images = labeled_images(folder, trained("small_cnn").card)
    given = predict(trained("small_cnn").model, images.images).argmax(1)
    assert document["n"] == 60
    assert document["accuracy"] == (given == images.labels).mean()
    assert document["trained_on"] == 0
    text = invoke("evaluate", model_file("small_cnn"), folder).stdout
    assert f" {100 * document['accuracy']:.2f} |" in text
    assert f"{100 * document['calibration_error']:.2f}" in text
    for name in ("reliability", "confusion"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.format == "PNG"
        assert (out / f"{name}.svg").read_text().startswith("<?xml")


def test_seen_images_are_counted(invoke, model_file, digits_data, trained, tmp_path, write_images):
    """Images of the training set are counted, and left out on demand."""
    images = digits_data.images
    folder = write_images(tmp_path / "train", images.images[..., 0], images.labels)
    result = invoke("evaluate", model_file("basic_net"), folder, "--format", "json")
    assert json.loads(result.stdout)["trained_on"] == 400
    assert "trained on 400 of these 500 images" in result.stderr
    unseen = invoke("evaluate", model_file("basic_net"), folder, "--format", "json", "--unseen")
    document = json.loads(unseen.stdout)
    assert (document["n"], document["trained_on"]) == (100, 0)
    assert document["accuracy"] == trained("basic_net").card.metrics.test.accuracy


@pytest.mark.any_backend
def test_held_out_images_are_taken(trained, digits_data, write_images, tmp_path):
    """Only the held-out images of a folder are taken; classes are matched by name, not position."""
    images = digits_data.heldout.take(np.arange(200))
    write_images(tmp_path / "data" / "heldout", images.images[:100, ..., 0], images.labels[:100])
    write_images(tmp_path / "data", images.images[100:, ..., 0], images.labels[100:])
    found = labeled_images(tmp_path / "data", trained("small_cnn").card, on_bad="skip")
    assert len(found) == 100
    assert set(found.fingerprints) == set(images.fingerprints[:100])
    few = images.labels >= 7
    some = write_images(tmp_path / "some", images.images[few][..., 0], images.labels[few])
    labels = labeled_images(some, trained("small_cnn").card).labels
    assert set(labels.tolist()) == set(images.labels[few].tolist())


@pytest.mark.any_backend
def test_other_classes_and_sizes_are_refused(trained, digits_data, write_images, tmp_path):
    """Classes that the model lacks, and arrays of another size, are named."""
    images = digits_data.heldout.images[:4, ..., 0]
    folder = write_images(tmp_path / "other", images, ["cat", "cat", "dog", "dog"])
    with pytest.raises(DataError, match=r"not know class 'cat'\. Known: 0, 1"):
        labeled_images(folder, trained("small_cnn").card)
    archive = tmp_path / "large.npz"
    large = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    np.savez(archive, x_train=large, y_train=np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match="32×32×3; the model takes 28×28×3"):
        labeled_images(archive, trained("small_cnn").card, on_bad="skip")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [pytest.param("basic_net", marks=pytest.mark.any_backend), "small_cnn"]
)
@pytest.mark.usefixtures("without_figures")
def test_explain_command(
    model, invoke, model_file, digits_data, write_images, write_experiment, tmp_path
):
    """All pictures are drawn, each with what it measures; a report in the folder shows them."""
    shown = digits_data.heldout.take(np.arange(0, 1297, 43))
    folder = write_images(tmp_path / "thirty", shown.images[..., 0], shown.labels)
    experiment, results = write_experiment(tmp_path, {"name": "a"}, epochs=1), tmp_path / "results"
    invoke("run", experiment, "--source", "digits", "--seeds", 1, "--output", results)
    out = results / "explanations"
    result = invoke("explain", model_file(model), folder, "-o", out)
    names = {"maps", "mistakes", "tsne", "filters"}
    index = json.loads((out / "gallery.json").read_text())
    assert set(index["pictures"]) == names
    assert "features after training" in index["pictures"]["tsne"]
    assert ("Grad-CAM" in index["pictures"]["maps"]) == (model == "small_cnn")
    for name in names:
        assert np.asarray(Image.open(out / f"{name}.png")).std() > 5
        assert index["pictures"][name] in result.stdout
    assert (out / "index.html").read_text().count("<img") == 4
    invoke("report", results)
    assert "How a model decides" in (results / "report.html").read_text()
    before = [(out / f"{name}.svg").read_bytes() for name in names]
    invoke("explain", model_file(model), folder, "-o", out)
    assert [(out / f"{name}.svg").read_bytes() for name in names] == before


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("train", 2, "Missing option '-o'"),
        ("train -o {tmp}/model.h5", 2, "has to end in .keras"),
        ("train -o {tmp}/no/model.keras", 2, "no such folder"),
        ("train -o ''", 2, "the path is empty"),
        ("train -o {tmp}/" + "a" * 300 + ".keras", 2, "File name too long"),
        ("train -o {tmp}/there.keras", 2, "--overwrite replaces it"),
        ("{new} --model lenet", 2, "'lenet' is not one of"),
        ("{new} --epochs 0", 2, "`epochs` must be an integer >= 1"),
        ("{new} --learning-rate -1", 2, "`learning_rate` must be a number"),
        ("{new} --learning-rate nan", 2, "`learning_rate` must be a number"),
        ("{new} --loss crossentropy --gamma 2", 2, "`gamma` and `alpha` belong to loss = 'focal'"),
        ("{new} --validation-split 1", 2, "between 0 and 1"),
        ("{new} --seed -1", 2, "-1 is not in the range"),
        ("{new} --data {tmp}/no", 3, "No such file or directory"),
        ("{new} --data {tmp} --source digits", 2, "leave out --source"),
        ("evaluate {model}", 2, "Missing argument 'DIR'"),
        ("evaluate {tmp}/none.keras {folder}", 3, "none.keras: cannot be read"),
        ("evaluate {model} {tmp}/none", 3, "No such file or directory"),
        ("evaluate {model} ''", 2, "the path is empty"),
        ("evaluate {model} {folder} -o {tmp}/file/x", 2, "cannot be written"),
        ("predict {model}", 2, "Missing argument"),
        ("predict {model} {tmp}/empty", 3, "no images"),
        ("predict {folder} {folder}", 3, "not a regular file"),
        ("predict {model} '' {folder}", 2, "the path is empty"),
        ("predict {model} {folder} --invert maybe", 2, "'maybe' is not one of"),
        ("predict {model} {folder} --max-files 3", 3, "more than 3 files"),
        ("explain {model} {folder} --layer conv9", 2, "unknown convolution 'conv9'"),
        ("explain {model} {folder} --class x", 2, "unknown class 'x'"),
        ("explain {model} {folder} --images 0", 2, "0 is not in the range"),
        ("explain {model} {tmp}/few", 3, "pictures need at least 10"),
        ("explain {model} {folder} -o {tmp}/file/x", 2, "cannot be written"),
        ("explain {mlp} {folder} --layer fc1", 2, "unknown convolution 'fc1'"),
        ("export {model} --format coreml", 2, "'coreml' is not one of"),
    ],
)
def test_wrong_input_is_one_line(command, code, said, invoke, model_file, folder, tmp_path):
    """Each wrong input has its exit code and one line, before anything is trained or printed."""
    (tmp_path / "empty").mkdir()
    for name in ("file", "there.keras"):
        (tmp_path / name).touch()
    for path in list(folder.rglob("*.png"))[::12]:
        copy = tmp_path / "few" / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    names = {"mlp": model_file("basic_net"), "model": model_file("small_cnn")}
    names |= {"new": f"train -o {tmp_path}/m.keras", "folder": folder, "tmp": tmp_path}
    result = invoke(*shlex.split(command.format(**names)), code=code)
    assert said in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "m.keras").exists()
