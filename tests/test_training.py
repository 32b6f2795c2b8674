"""Training one run: what the record holds, and that the same run is the same numbers."""

import functools
import math
from dataclasses import replace
from unittest.mock import patch

import keras
import numpy as np
import pytest
from keras import ops

from mnist_keras import basic_net
from mnist_keras.datasets import sources
from mnist_keras.datasets.splits import draw, split_indices
from mnist_keras.models.prediction import predict
from mnist_keras.training.data import Data
from mnist_keras.training.engine import train
from mnist_keras.training.networks import Networks, compiled_model
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings


@pytest.fixture(scope="module")
def data_of():
    """The function that returns a seed's two hundred digits, and four hundred that are held out."""
    digits = sources.load("digits", channels=3).take(np.arange(600))
    return functools.cache(lambda seed: Data(*draw(digits, 20, seed)))


@pytest.fixture(scope="module")
def middles():
    """Fifty digits to train and test on, and 550 held out: their middles, for a small CNN."""
    digits = sources.load("digits", channels=3).take(np.arange(600))
    return Data(*draw(replace(digits, images=digits.images[:, 8:20, 8:20]), 5, seed=0))


@pytest.fixture(scope="module")
def train_run(data_of):
    """The function that trains Basic Net, or other settings, until the last of some epochs."""

    def train_until(*scored_at, seed=0, networks=None, on_epoch=None, **settings):
        settings = {"model": "basic_net", "epochs": scored_at[-1], "batch_size": 40} | settings
        run = Run(settings=Settings(**settings), seed=seed, scored_at=scored_at)
        return train(run, data_of(seed), networks=networks, on_epoch=on_epoch)

    return train_until


@pytest.fixture
def initial_log_p(data_of):
    """Log-probability of each training image's class before any step, computed here."""
    images = data_of(0).images
    training, _ = split_indices(images, 0.2, 0)
    x = images.images[training].astype("float32") / 255
    logits = ops.convert_to_numpy(basic_net(seed=0)(x)).astype(float)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log_p[np.arange(160), images.labels[training]]


def test_record_of_a_run(train_run):
    """Loss, accuracy and seconds of each epoch; predictions at the epochs asked for."""
    epochs = []
    record = train_run(1, 3, on_epoch=lambda epoch, loss: epochs.append((epoch, loss))).record
    history = record.history

    assert record.data_name == "digits (scikit-learn)"
    assert len(history.loss) == len(history.training_accuracy) == len(history.seconds) == 3
    assert epochs == list(enumerate(history.loss, 1))
    assert list(record.scores) == [1, 3]
    assert np.bincount(record.test_labels).tolist() == [4] * 10
    assert len(record.heldout_labels) == 400
    for score in record.scores.values():
        assert score.test.shape == record.test_labels.shape
        assert score.heldout.shape == record.heldout_labels.shape
    assert history.diverged is None


@pytest.mark.slow
def test_first_loss_is_that_of_the_initial_weights(train_run, initial_log_p):
    """With one batch an epoch, the first loss is the loss before any step."""
    history = train_run(1, batch_size=160, loss="crossentropy").record.history
    assert history.loss[0] == pytest.approx(-initial_log_p.mean(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["crossentropy", "focal"])
def test_runs_compare_on_hard_labels(loss, train_run, initial_log_p):
    """With smoothed labels, cross entropy and focal loss are those of the labels themselves."""
    history = train_run(1, batch_size=160, loss=loss, label_smoothing=0.3).record.history
    focal = -((1 - np.exp(initial_log_p)) ** 2 * initial_log_p).mean()
    assert history.crossentropy[0] == pytest.approx(-initial_log_p.mean(), abs=1e-5)
    assert history.focal[0] == pytest.approx(focal, abs=1e-5)
    assert history.loss[0] != pytest.approx(getattr(history, loss)[0], abs=2e-5)


def test_images_are_scaled_to_one(train_run):
    """The model sees values from 0 to 1, each the image's own."""
    with patch.object(keras.Model, "fit", autospec=True, side_effect=keras.Model.fit) as fit:
        train_run(1)
    batches = fit.call_args.args[1]
    x, _ = batches[0]
    assert x.max() == 1
    np.testing.assert_array_equal(x, batches.x[batches.order[:40]] / np.float32(255))


@pytest.mark.slow
def test_same_run_same_numbers_whatever_ran_before(train_run):
    """A model that served other seeds gives the numbers of a new one, and so do more scores."""
    new, used = train_run(4).record, Networks()
    different = train_run(4, seed=1, networks=used).record
    again = train_run(1, 2, 4, networks=used).record
    assert again.history.loss == new.history.loss
    assert different.history.loss != new.history.loss
    np.testing.assert_array_equal(again.scores[4].heldout, new.scores[4].heldout)


@pytest.mark.slow
def test_shorter_run_is_the_beginning_of_a_longer_one(train_run):
    """The first epochs of a longer run are the shorter run, to the last bit."""
    one, two = train_run(2).record, train_run(2, 5).record
    assert two.history.loss[:2] == one.history.loss
    np.testing.assert_array_equal(two.scores[2].heldout, one.scores[2].heldout)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX compiles by default")
def test_a_second_seed_compiles_nothing(train_run):
    """The compiled functions of an arm serve every seed."""
    import jax

    compilations = []

    def note(event, duration, **kwargs):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    networks = Networks()
    train_run(1, 2, networks=networks)
    first = len(compilations)
    train_run(1, 2, seed=1, networks=networks)
    assert first > 0
    assert len(compilations) == first


@pytest.mark.slow
def test_dropout_starts_anew_for_each_run(middles):
    """The CNN's dropout begins at the run's own first mask, also in a model used before."""
    run, networks = Run.whole(Settings(model="cnn", epochs=2, batch_size=20), seed=0), Networks()
    one, two = (train(run, middles, networks=networks).record for _ in range(2))
    assert one.history.loss == two.history.loss


@pytest.mark.slow
def test_run_learns(train_run):
    """Thirty epochs bring Basic Net far above chance on images it never saw."""
    record = train_run(30).record
    assert (record.scores[30].heldout == record.heldout_labels).mean() > 0.7
    assert record.history.loss[-1] < record.history.loss[0] / 2


def test_divergence_ends_the_run(train_run):
    """A loss that is not finite ends the run, which says at which epoch."""
    record = train_run(1, 5, optimizer="sgd", learning_rate=1e38, activation="relu").record
    history = record.history
    assert history.diverged == len(history.loss) <= 5
    assert not math.isfinite(history.loss[-1])
    assert all(epoch < history.diverged for epoch in record.scores)


@pytest.mark.parametrize("optimizer", ["adam", "radam", "sgd"])
@pytest.mark.parametrize("loss", ["crossentropy", "focal"])
def test_settings_decide_loss_and_optimizer(optimizer, loss):
    """Every word of the settings builds what it says."""
    settings = Settings(model="basic_net", loss=loss, optimizer=optimizer, learning_rate=0.5)
    model = compiled_model(settings, (28, 28, 3), 7)
    assert type(model.optimizer).__name__.lower() == optimizer
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) == 0.5
    expected = {"crossentropy": "SparseCategoricalCrossentropy", "focal": "FocalLoss"}[loss]
    assert type(model.loss).__name__ == expected
    assert model.output_shape == (None, 7)


@pytest.mark.slow
def test_nothing_reads_a_backends_generator(train_run):
    """Seeding every other generator differently changes no number."""
    losses = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        losses.append(train_run(2).record.history.loss)
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_model_is_what_the_record_describes(train_run, data_of):
    """The model of a plain run gave the record's classes, and no later run changes it."""
    trained = train_run(2)
    train_run(1, seed=1)
    given = predict(trained.model, data_of(0).heldout.images).argmax(axis=-1)
    np.testing.assert_array_equal(given, trained.record.scores[2].heldout)
