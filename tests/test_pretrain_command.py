"""`pretrain`, `train --from` and `train --best`: from images without labels to a model."""

import json
import shlex
import zipfile

import numpy as np
import pytest
from PIL import Image

from mnist_keras.datasets.images import FINGERPRINT
from mnist_keras.experiments import recipes as best
from mnist_keras.experiments.experiment import find
from mnist_keras.inference.model_card import Metrics
from mnist_keras.inference.model_file import CARD, ModelFileError, load_encoder, load_model
from mnist_keras.inference.trained_model import train_model
from mnist_keras.models.prediction import predict
from mnist_keras.training.networks import get_weights
from mnist_keras.training.representation import pretrain
from mnist_keras.training.settings import Settings

NOT_THERE = "No such file or directory"


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory, digits_data):
    """A folder of forty images whose subfolders mean nothing."""
    folder = tmp_path_factory.mktemp("unlabeled")
    for number, image in enumerate(digits_data.heldout.images[:40]):
        path = folder / f"camera {number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return folder


@pytest.fixture(scope="module")
def encoder_file(unlabeled, tmp_path_factory, invoke):
    """The file of an encoder that saw these images for one epoch."""
    path = tmp_path_factory.mktemp("encoders") / "encoder.keras"
    options = ("--epochs", 1, "--width", 4, "--seed", 3)
    result = invoke("pretrain", unlabeled, "-o", path, *options)
    assert "encoder, vicreg, 1 epochs of 40 images" in result.stdout
    return path


@pytest.mark.slow
def test_pretrain_is_the_library(encoder_file, digits_data):
    """The file holds the encoder that `pretrain` gives for these images, in any order."""
    loaded = load_encoder(encoder_file)
    images = digits_data.heldout.take(np.arange(40)).sorted_by_content().images
    expected, history = pretrain(images, "vicreg", 1, width=4, seed=3)
    np.testing.assert_array_equal(predict(loaded.model, images[:5]), predict(expected, images[:5]))
    card = loaded.card
    assert card.class_names == ()
    assert card.settings.pretraining == "vicreg"
    assert card.metrics == Metrics(training_loss=history.loss[0])
    assert len(card.trained_on) == 0
    assert card.input.background == "dark"


def test_encoders_and_models_are_not_interchangeable(encoder_file, model_file, invoke):
    """Each is refused in the other's place, and the message says what to do."""
    with pytest.raises(ModelFileError, match="`mnist-keras train --from` makes a model of it"):
        load_model(encoder_file)
    with pytest.raises(ModelFileError, match="not an encoder of `mnist-keras pretrain`"):
        load_encoder(model_file("basic_net"))
    invoke("predict", encoder_file, encoder_file, code=3)


@pytest.mark.slow
def test_train_from_an_encoder(encoder_file, tmp_path, invoke):
    """Training begins with the encoder's weights, and the card says where they come from."""
    path = tmp_path / "model.keras"
    common = ("--source", "digits", "--per-class", 5, "--epochs", 1)
    invoke("train", "--from", encoder_file, "-o", path, *common, "--learning-rate", 0)
    loaded, encoder = load_model(path), load_encoder(encoder_file)
    assert loaded.card.settings.width == 4
    assert loaded.card.pretraining.startswith("vicreg, 1 epochs of unlabeled")
    weights = get_weights(loaded.model)
    for name, expected in get_weights(encoder.model).items():
        if not name.startswith("norm"):  # averages go on, also at a rate of 0
            np.testing.assert_array_equal(weights[name], expected)


@pytest.mark.slow
@pytest.mark.any_backend
def test_train_best_learns_from_unlabeled_images(unlabeled, tmp_path, invoke):
    """--best says what to expect. With unlabeled images it trains a student on them."""
    path = tmp_path / "best.keras"
    common = ("--best", "-o", path, "--width", 4, "--epochs", 1, "--overwrite")
    source = ("--source", "digits", "--per-class", 5)
    result = invoke("train", *common, *source, "--unlabeled", unlabeled)
    assert "of the held-out images (mean of seeds 0 to 4, 95 % interval" in result.stderr
    assert f"{best.WITH_UNLABELED.accuracy:.2f} %" in result.stderr
    assert "learned from, without their labels" not in result.stdout
    assert load_model(path).card.settings.self_training == "transductive"

    # The user's own images, none of them held out.
    own = tmp_path / "own"
    invoke("data", "digits", own, "--per-class", 5)
    result = invoke("train", *common, "--data", own / "train-5")
    assert load_model(path).card.settings.self_training == "none"
    assert f"{best.LABELS_ALONE.accuracy:.2f} %" in result.stderr


@pytest.mark.any_backend
def test_the_recipes_are_arms_of_the_experiment():
    """What --best trains is what the table measured."""
    (experiment,) = find(["representation"])
    arms = {arm.name: arm.settings for arm in experiment.arms}
    for recipe in (best.LABELS_ALONE, best.WITH_UNLABELED):
        assert arms[recipe.arm] == recipe.settings
        assert recipe.settings.is_one_network
        assert recipe.interval[0] < recipe.accuracy < recipe.interval[1]


@pytest.mark.any_backend
@pytest.mark.parametrize("more", [{}, {"self_training": "inductive", "self_training_epochs": 1}])
def test_a_file_holds_one_network(more, digits_data):
    """Settings of several networks train nothing for a file."""
    several = best.LABELS_ALONE.settings.replace(members=2, **more)
    with pytest.raises(ModelFileError, match="a file holds one network"):
        train_model(several, 0, digits_data)


@pytest.mark.slow
@pytest.mark.any_backend
def test_the_card_is_of_the_model_alone(digits_data):
    """If a run averages over views, the card says what the file's model gives without them."""
    settings = best.LABELS_ALONE.settings.replace(width=4, epochs=1, views=2)
    trained = train_model(settings, 0, digits_data)
    heldout = digits_data.heldout
    given = predict(trained.model, heldout.images).argmax(axis=-1)
    assert trained.card.metrics.heldout.accuracy == (given == heldout.labels).mean()


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("pretrain {}/no -o {}/e.keras", 3, NOT_THERE),
        ("pretrain {}/empty -o {}/e.keras", 3, ".png) (check the path)"),
        ("pretrain {}", 2, "Missing option '-o'"),
        ("pretrain '' -o {}/e.keras", 2, "the path is empty"),
        ("pretrain {}/empty -o {}/e.h5", 2, "has to end in .keras"),
        ("pretrain {} -o {}/e.keras --method byol", 2, "'byol' is not one"),
        ("pretrain {} -o {}/e.keras --epochs 0", 2, "0 is not in the range"),
        ("pretrain {} -o {}/e.keras --width 9999", 2, "is not in the range"),
        ("train -o {}/m.keras --from {}/no.keras", 3, "cannot be read"),
        ("train -o {}/m.keras --from {}/x --best", 2, "leave one out"),
        ("train -o {}/m.keras --unlabeled {}/empty", 2, "goes with --best"),
        ("train -o {}/m.keras --best --source digits --unlabeled {}/no", 3, NOT_THERE),
        ("train -o {}/m.keras --width 8", 2, "`width` belongs to model"),
        ("train -o {}/m.keras --augmentation flips", 2, "'flips' is not one of"),
        ("train -o {}/m.keras --label-smoothing 1", 2, "between 0 and 1"),
    ],
)
def test_wrong_input_is_one_line(line, code, said, invoke, tmp_path):
    """It is refused before anything is trained."""
    (tmp_path / "empty").mkdir()
    result = invoke(*(part.format(tmp_path) for part in shlex.split(line)), code=code)
    assert said in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.glob("*.keras"))


@pytest.mark.slow
def test_an_encoder_of_other_images_is_refused(unlabeled, tmp_path, invoke):
    """Its first layer takes as many channels as it saw."""
    path = tmp_path / "gray.keras"
    options = ("--epochs", 1, "--width", 2, "--grayscale", "--method", "simclr")
    invoke("pretrain", unlabeled, "-o", path, *options)
    arguments = ("--from", path, "-o", tmp_path / "m.keras", "--source", "digits")
    result = invoke("train", *arguments, code=3)
    assert "the encoder takes 28×28×1, the images are 28×28×3" in result.stderr


@pytest.mark.any_backend
def test_a_forged_encoder_is_refused(encoder_file, tmp_path):
    """A card without classes must belong to an encoder of small_cnn."""
    forged = tmp_path / "forged.keras"
    with zipfile.ZipFile(encoder_file) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    parts[CARD] = json.dumps(json.loads(parts[CARD]) | {"settings": Settings().model_dump()})
    with zipfile.ZipFile(forged, "w") as new:
        for name, content in parts.items():
            new.writestr(name, content)
    with pytest.raises(ModelFileError, match=r"its card cannot be read: .*an encoder of model"):
        load_encoder(forged)
    assert load_encoder(encoder_file).card.trained_on.dtype == FINGERPRINT
