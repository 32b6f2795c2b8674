"""Training one run: what the record holds, and that the same run is the same numbers."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from mnist_keras import basic_net
from mnist_keras.datasets import sources
from mnist_keras.datasets.batches import WarpedBatches
from mnist_keras.datasets.splits import draw, split_indices
from mnist_keras.models.prediction import predict
from mnist_keras.training.data import Data
from mnist_keras.training.engine import train
from mnist_keras.training.networks import Networks, compiled_model
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

SHAPE = (28, 28, 3)


@pytest.fixture(scope="module")
def digits():
    """All digits with three channels."""
    return sources.load("digits", channels=3)


def data_of(digits, seed):
    return Data(*draw(digits, 20, seed))


def run_of(scored_at=(3,), seed=0, **settings):
    settings = {"model": "basic_net", "epochs": scored_at[-1], "batch_size": 40} | settings
    return Run(settings=Settings(**settings), seed=seed, scored_at=scored_at)


def test_record_of_a_run(digits):
    """Loss, accuracy and seconds of each epoch; predictions at the epochs asked for."""
    run, data = run_of(scored_at=(1, 3)), data_of(digits, 0)
    epochs = []
    trained = train(run, data, on_epoch=lambda epoch, loss: epochs.append((epoch, loss)))
    record, history = trained.record, trained.record.history

    assert record.data_name == "digits (scikit-learn)"
    assert len(history.loss) == len(history.training_accuracy) == len(history.seconds) == 3
    assert epochs == list(enumerate(history.loss, 1))
    assert list(record.scores) == [1, 3]
    assert np.bincount(record.test_labels).tolist() == [4] * 10
    assert len(record.heldout_labels) == 1597
    for score in record.scores.values():
        assert score.test.shape == record.test_labels.shape
        assert score.heldout.shape == record.heldout_labels.shape
    assert history.diverged is None


def test_first_loss_is_that_of_the_initial_weights(digits):
    """With one batch an epoch, the first loss is the loss before any step, computed here."""
    run = run_of(scored_at=(1,), batch_size=160, loss="crossentropy")
    record = train(run, data_of(digits, 0)).record

    images = data_of(digits, 0).images
    training_part, _ = split_indices(images, 0.2, 0)
    x = images.images[training_part].astype("float32") / 255
    logits = ops.convert_to_numpy(basic_net(seed=0)(x)).astype(float)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -log_p[np.arange(160), images.labels[training_part]].mean()
    assert record.history.loss[0] == pytest.approx(expected, abs=1e-5)


def test_images_are_scaled_to_one(digits, monkeypatch):
    """The network sees values from 0 to 1, each the image's own."""
    seen = []
    batches = WarpedBatches.__getitem__

    def note(self, index):
        x, y = batches(self, index)
        seen.append((self.x[self.order[:40]], x) if index == 0 else None)
        return x, y

    monkeypatch.setattr(WarpedBatches, "__getitem__", note)
    run = run_of(scored_at=(1,))
    train(run, data_of(digits, 0))
    images, x = next(filter(None, seen))
    assert x.max() == 1
    np.testing.assert_array_equal(x, images / np.float32(255))


def test_same_run_same_numbers_whatever_ran_before(digits):
    """A model that served other seeds gives the numbers of a new one, and so do more scores."""
    run, other = run_of(scored_at=(4,)), run_of(scored_at=(4,), seed=1)
    new = train(run, data_of(digits, 0)).record

    used = Networks()
    different = train(other, data_of(digits, 1), networks=used).record
    again = train(run_of(scored_at=(1, 2, 4)), data_of(digits, 0), networks=used).record

    assert again.history.loss == new.history.loss
    assert different.history.loss != new.history.loss
    np.testing.assert_array_equal(again.scores[4].heldout, new.scores[4].heldout)


def test_shorter_run_is_the_beginning_of_a_longer_one(digits):
    """The first epochs of a longer run are the shorter run, to the last bit."""
    short, long = run_of(scored_at=(2,)), run_of(scored_at=(2, 5))
    one, two = (train(run, data_of(digits, 0)).record for run in (short, long))
    assert two.history.loss[:2] == one.history.loss
    np.testing.assert_array_equal(two.scores[2].heldout, one.scores[2].heldout)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX compiles by default")
def test_a_second_seed_compiles_nothing(digits):
    """The compiled functions of an arm serve every seed."""
    import jax

    compilations = []

    def note(event, duration, **kwargs):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    networks = Networks()
    train(run_of(scored_at=(1, 2)), data_of(digits, 0), networks=networks)
    first = len(compilations)
    train(run_of(scored_at=(1, 2), seed=1), data_of(digits, 1), networks=networks)

    assert first > 0
    assert len(compilations) == first


@pytest.mark.slow
def test_dropout_starts_anew_for_each_run(digits):
    """The CNN's dropout begins at the run's own first mask, also in a model used before."""
    run = run_of(model="cnn", scored_at=(2,))
    networks = Networks()
    losses = [
        train(run, data_of(digits, 0), networks=networks).record.history.loss for _ in range(2)
    ]
    assert losses[0] == losses[1]


def test_run_learns(digits):
    """Thirty epochs bring Basic Net far above chance on images it never saw."""
    run = run_of(scored_at=(30,))
    record = train(run, data_of(digits, 0)).record
    assert (record.scores[30].heldout == record.heldout_labels).mean() > 0.7
    assert record.history.loss[-1] < record.history.loss[0] / 2


def test_divergence_ends_the_run(digits):
    """A loss that is not finite ends the run, which says at which epoch."""
    run = run_of(scored_at=(1, 5), optimizer="sgd", learning_rate=1e38, activation="relu")
    record = train(run, data_of(digits, 0)).record
    history = record.history
    assert history.diverged == len(history.loss) <= 5
    assert not math.isfinite(history.loss[-1])
    assert all(epoch < history.diverged for epoch in record.scores)


@pytest.mark.parametrize("optimizer", ["adam", "radam", "sgd"])
@pytest.mark.parametrize("loss", ["crossentropy", "focal"])
def test_settings_decide_loss_and_optimizer(optimizer, loss):
    """Every word of the settings builds what it says."""
    model = compiled_model(
        Settings(model="basic_net", loss=loss, optimizer=optimizer, learning_rate=0.5), SHAPE, 7
    )
    assert type(model.optimizer).__name__.lower() == optimizer
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) == 0.5
    expected = {"crossentropy": "SparseCategoricalCrossentropy", "focal": "FocalLoss"}[loss]
    assert type(model.loss).__name__ == expected
    assert model.output_shape == (None, 7)


def test_nothing_reads_a_backends_generator(digits):
    """Seeding every other generator differently changes no number."""
    run = run_of(scored_at=(2,))
    losses = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        losses.append(train(run, data_of(digits, 0)).record.history.loss)
    assert losses[0] == losses[1]


def test_the_model_is_what_the_record_describes(digits):
    """Of a plain run it is the network that gave the classes, and no later run changes it."""
    run, data = run_of(scored_at=(2,)), data_of(digits, 0)
    trained = train(run, data)
    train(run_of(scored_at=(1,), seed=1), data_of(digits, 1))
    given = predict(trained.model, data.heldout.images).argmax(axis=-1)
    np.testing.assert_array_equal(given, trained.record.scores[2].heldout)


@pytest.mark.parametrize("loss", ["crossentropy", "focal"])
def test_runs_compare_on_hard_labels(loss, digits):
    """With smoothed labels, cross entropy and focal loss are those of the labels themselves."""
    run = run_of(scored_at=(1,), batch_size=160, loss=loss, label_smoothing=0.3)
    history = train(run, data_of(digits, 0)).record.history
    training_part, _ = data_of(digits, 0).split(run.settings, 0)
    logits = predict(basic_net(seed=0), training_part.images).astype(float)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    log_p = log_p[np.arange(160), training_part.labels]
    assert history.crossentropy[0] == pytest.approx(-log_p.mean(), abs=1e-5)
    assert history.focal[0] == pytest.approx(-((1 - np.exp(log_p)) ** 2 * log_p).mean(), abs=1e-5)
    assert history.loss[0] != pytest.approx(getattr(history, loss)[0], abs=2e-5)
