"""`pretrain`, `train --from` and `train --best`: from images without labels to a model."""

import json
import zipfile

import numpy as np
import pytest

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


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory, digits_data):
    """A folder of forty images whose subfolders mean nothing."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("unlabeled")
    for number, image in enumerate(digits_data.heldout.images[:40]):
        path = folder / f"camera {number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return folder


@pytest.fixture(scope="module")
def encoder_file(unlabeled, tmp_path_factory):
    """The file of an encoder that saw them for an epoch."""
    from click.testing import CliRunner

    from mnist_keras.cli import cli

    path = tmp_path_factory.mktemp("encoders") / "encoder.keras"
    arguments = ["pretrain", unlabeled, "-o", path, "--epochs", 1, "--width", 4, "--seed", 3]
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "encoder, vicreg, 1 epochs of 40 images" in result.stdout
    return path


def test_pretrain_is_the_library(encoder_file, digits_data):
    """The file holds the encoder that `pretrain` gives for these images, in whatever order."""
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


def test_an_encoder_is_no_model_and_a_model_no_encoder(encoder_file, model_file, invoke):
    """Each is refused in the other's place, with what to do."""
    with pytest.raises(ModelFileError, match="`mnist-keras train --from` makes a model of it"):
        load_model(encoder_file)
    with pytest.raises(ModelFileError, match="not an encoder of `mnist-keras pretrain`"):
        load_encoder(model_file("basic_net"))
    assert invoke("predict", encoder_file, encoder_file).exit_code == 3


def test_train_from_an_encoder(encoder_file, tmp_path, invoke):
    """Training begins with the encoder's weights, and the card says where they come from."""
    path = tmp_path / "model.keras"
    common = ("--source", "digits", "--per-class", 5, "--epochs", 1)
    result = invoke("train", "--from", encoder_file, "-o", path, *common, "--learning-rate", 0)
    assert result.exit_code == 0, result.output
    loaded, encoder = load_model(path), load_encoder(encoder_file)
    assert loaded.card.settings.width == 4
    assert loaded.card.pretraining.startswith("vicreg, 1 epochs of unlabeled")
    weights = get_weights(loaded.model)
    for name, expected in get_weights(encoder.model).items():
        if not name.startswith("norm"):  # averages go on, also at a rate of 0
            np.testing.assert_array_equal(weights[name], expected)


@pytest.mark.any_backend
def test_train_best_learns_from_the_pool(unlabeled, tmp_path, invoke):
    """--best says what to expect; its student learns from what has no labels, or there is none."""
    path = tmp_path / "best.keras"
    common = ("--best", "-o", path, "--width", 4, "--epochs", 1, "--overwrite")
    source = ("--source", "digits", "--per-class", 5)
    result = invoke("train", *common, *source, "--unlabeled", unlabeled)
    assert result.exit_code == 0, result.output
    assert "of the held-out images (mean of seeds 0 to 4, 95 % interval" in result.stderr
    assert f"{best.WITH_UNLABELED.accuracy:.2f} %" in result.stderr
    assert "learned from, without their labels" not in result.stdout
    assert load_model(path).card.settings.self_training == "transductive"

    # Images of one's own, none of them held out.
    own = tmp_path / "own"
    assert invoke("data", "digits", own, "--per-class", 5).exit_code == 0
    result = invoke("train", *common, "--data", own / "train-5")
    assert result.exit_code == 0, result.output
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
    """Where several networks answer, nothing is trained for a file."""
    several = best.LABELS_ALONE.settings.replace(members=2, **more)
    with pytest.raises(ModelFileError, match="a file holds one network"):
        train_model(several, 0, digits_data)


@pytest.mark.any_backend
def test_the_card_is_of_the_network_alone(digits_data):
    """Where a run averages over views, the card says what the file's network gives without them."""
    settings = best.LABELS_ALONE.settings.replace(width=4, epochs=1, views=2)
    trained = train_model(settings, 0, digits_data)
    given = predict(trained.model, digits_data.heldout.images).argmax(axis=-1)
    right = int((given == digits_data.heldout.labels).sum())
    assert trained.card.metrics.heldout.accuracy == right / len(digits_data.heldout)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pretrain", "{tmp}/no", "-o", "{tmp}/e.keras"), 3, "No such file or directory"),
        (("pretrain", "{tmp}", "-o", "{tmp}/e.keras"), 3, "no images"),
        (("pretrain", "{tmp}"), 2, "Missing option '-o'"),
        (("pretrain", "", "-o", "{tmp}/e.keras"), 2, "the path is empty"),
        (("pretrain", "{tmp}", "-o", "{tmp}/e.h5"), 2, "has to end in .keras"),
        (("pretrain", "{tmp}", "-o", "{tmp}/e.keras", "--method", "byol"), 2, "'byol' is not one"),
        (("pretrain", "{tmp}", "-o", "{tmp}/e.keras", "--epochs", 0), 2, "0 is not in the range"),
        (("pretrain", "{tmp}", "-o", "{tmp}/e.keras", "--width", 9999), 2, "is not in the range"),
        (("train", "-o", "{tmp}/m.keras", "--from", "{tmp}/no.keras"), 3, "cannot be read"),
        (("train", "-o", "{tmp}/m.keras", "--from", "{tmp}/x", "--best"), 2, "leave one out"),
        (("train", "-o", "{tmp}/m.keras", "--unlabeled", "{tmp}"), 2, "goes with --best"),
        (
            ("train", "-o", "{tmp}/m.keras", "--best", "--source", "digits", "--unlabeled",
             "{tmp}/no"),
            3, "No such file or directory",
        ),
        (("train", "-o", "{tmp}/m.keras", "--width", 8), 2, "`width` belongs to model"),
        (("train", "-o", "{tmp}/m.keras", "--augmentation", "flips"), 2, "'flips' is not one of"),
        (("train", "-o", "{tmp}/m.keras", "--label-smoothing", 1), 2, "between 0 and 1"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(arguments, code, said, invoke, tmp_path):
    """Before anything is trained."""
    result = invoke(*(str(a).format(tmp=tmp_path) for a in arguments))
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.glob("*.keras"))


def test_an_encoder_of_other_images_is_refused(unlabeled, tmp_path, invoke):
    """Its first layer takes as many channels as it saw."""
    path = tmp_path / "gray.keras"
    options = ("--epochs", 1, "--width", 2, "--grayscale", "--method", "simclr")
    assert invoke("pretrain", unlabeled, "-o", path, *options).exit_code == 0
    result = invoke("train", "--from", path, "-o", tmp_path / "m.keras", "--source", "digits")
    assert result.exit_code == 3
    assert "the encoder takes 28×28×1, the images are 28×28×3" in result.stderr


@pytest.mark.any_backend
def test_a_forged_encoder_is_refused(encoder_file, tmp_path):
    """A card without classes has to be that of a small network's encoder."""
    forged = tmp_path / "forged.keras"
    with zipfile.ZipFile(encoder_file) as old, zipfile.ZipFile(forged, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == CARD:
                card = json.loads(content)
                card["settings"] = Settings().model_dump()
                content = json.dumps(card).encode()
            new.writestr(name, content)
    with pytest.raises(ModelFileError, match=r"its card cannot be read: .*an encoder of model"):
        load_encoder(forged)
    assert load_encoder(encoder_file).card.trained_on.dtype == FINGERPRINT
