"""Runs of several stages: what each stage sees, and what two arms share."""

from dataclasses import replace
from unittest.mock import Mock, patch

import numpy as np
import pytest

from mnist_keras.datasets import sources
from mnist_keras.datasets.images import DataError
from mnist_keras.datasets.splits import draw
from mnist_keras.experiments.results_folder import TrainingFiles
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training import engine, representation, stages
from mnist_keras.training.data import Data
from mnist_keras.training.networks import Networks, get_weights, one_cycle, set_weights
from mnist_keras.training.record import History, Training
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings
from mnist_keras.training.stages import Stages

pytestmark = pytest.mark.slow

ONE = Settings(
    model="small_cnn",
    width=4,
    loss="crossentropy",
    schedule="one_cycle",
    learning_rate=0.003,
    weight_decay=0.05,
    label_smoothing=0.1,
    epochs=2,
    batch_size=20,
    augmentation="elastic",
)
TRANSDUCTIVE = ONE.replace(members=2, views=1, self_training="transductive", self_training_epochs=1)
TWO_ROUNDS = TRANSDUCTIVE.replace(self_training_rounds=2)
INDUCTIVE = TRANSDUCTIVE.replace(self_training="inductive")
PROBE = ONE.replace(pretraining="simclr", pretraining_epochs=1, frozen=True)


@pytest.fixture(scope="module")
def data():
    """Fifty digits to train and test on, and sixty held out."""
    images, heldout = draw(sources.load("digits", channels=1), 5, seed=0)
    return Data(images, heldout.take(np.arange(60)))


@pytest.fixture(scope="module")
def networks():
    """The compiled model that all arms here have in common: it is made once."""
    return Networks()


@pytest.fixture
def train(data, networks):
    """The function that trains an arm, alone and on the same data by default."""

    def train_arm(settings, data=data, kept=None):
        return engine.train(Run.whole(settings, 0), data, kept=kept, networks=networks)

    return train_arm


@pytest.fixture
def stages_of(data, networks):
    """The function that returns the stages of an arm, not trained yet."""

    def make(settings):
        training, _ = data.split(settings, 0)
        return Stages(Run.whole(settings, 0), training, data.heldout, "", networks, {})

    return make


@pytest.fixture
def fit(monkeypatch):
    """The `fit` of stages with labels, which notes its calls."""
    monkeypatch.setattr(stages, "fit", Mock(wraps=stages.fit))
    return stages.fit


def assert_same_numbers(one, other):
    numbers = {"history": {"loss", "training_accuracy", "fingerprints"}, "scores": True}
    np.testing.assert_equal(one.model_dump(include=numbers), other.model_dump(include=numbers))


@pytest.mark.any_backend
def test_one_cycle():
    """Up in the first tenth, down to nearly 0, highest once, for long and for short trainings."""
    rates = [one_cycle(0.003, epoch, 100) for epoch in range(100)]
    assert rates[0] == pytest.approx(0.0003)
    assert max(rates) == rates[9] == 0.003
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 2e-6
    assert [one_cycle(1.0, epoch, 1) for epoch in range(1)] == [1.0]
    assert one_cycle(1.0, 1, 2) == pytest.approx(0.5)


@pytest.mark.any_backend
def test_what_arms_share_is_trained_once(fit, train):
    """Ensemble, student and ensemble with views train no model that another arm has trained."""
    kept, two = {}, ONE.replace(members=2)
    arms = (ONE, two, two.replace(views=1), TRANSDUCTIVE, TWO_ROUNDS)
    together = [train(settings, kept=kept).record for settings in arms]
    assert [call.args[3] for call in fit.call_args_list] == [(2,), (2,), (1,), (1,), (1,)]

    # Alone, each is the same to the last bit.
    for settings, record in zip(arms, together, strict=True):
        alone = train(settings).record
        assert len(alone.history.loss) == settings.all_epochs
        assert_same_numbers(alone, record)


@pytest.mark.any_backend
def test_trainings_survive_in_a_folder(tmp_path, monkeypatch, train):
    """A second process takes stages from there; one that is damaged is trained again."""
    settings = PROBE.replace(frozen=False)
    files = TrainingFiles(tmp_path / "trainings")
    assert len(files) == 0
    first = train(settings, kept=files).record
    assert len(files) == len(list(files)) == 2

    with monkeypatch.context() as without:
        without.setattr(stages, "fit", None)
        without.setattr(representation, "fit", None)
        again = train(settings, kept=TrainingFiles(files.path)).record
    assert_same_numbers(again, first)
    assert again.history.seconds == first.history.seconds

    for damage in (lambda content: content[:-40], lambda content: b"", lambda content: b"PK"):
        for name in files:
            path = files.path / f"{name}.npz"
            path.write_bytes(damage(path.read_bytes()))
            assert name not in files
        assert train(settings, kept=files).record.history.loss == first.history.loss
        assert len(files) == 2
    del files[next(iter(files))]
    assert len(files) == 1


def test_an_ensemble_is_the_mean_of_its_members(data, networks, stages_of, train):
    """It averages the probabilities of two models, or of an image and its views."""
    _, test = data.split(ONE, 0)
    both = stages_of(ONE.replace(members=2))
    model = networks.of(ONE, (28, 28, 1), 10)
    alone = []
    for member in both.members():
        set_weights(model, member.weights)
        alone.append(softmax(predict(model, test.images)))
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    assert train(both.settings).model is None
    np.testing.assert_allclose(both.probabilities(test), np.mean(alone, axis=0), atol=1e-6)
    viewed = stages_of(ONE.replace(views=2)).probabilities(test)
    assert np.abs(viewed - alone[0]).max() > 1e-4
    np.testing.assert_allclose(viewed, alone[0], atol=0.5)
    np.testing.assert_allclose(viewed.sum(axis=-1), 1)


@pytest.mark.any_backend
@pytest.mark.parametrize("settings", [TRANSDUCTIVE, INDUCTIVE, PROBE])
def test_labels_of_unlabeled_images_decide_nothing(settings, data, train):
    """Held-out images with other labels, in another order, give the same classes."""
    rng = np.random.default_rng(0)
    wrong = replace(data.heldout.take(rng.permutation(60)), labels=rng.integers(0, 10, 60))
    first = train(settings).record
    second = train(settings, replace(data, heldout=wrong)).record
    assert second.history.loss == first.history.loss
    order = [data.heldout.fingerprints.tolist().index(name) for name in wrong.fingerprints.tolist()]
    expected, given = (record.scores[settings.all_epochs].heldout for record in (first, second))
    np.testing.assert_array_equal(given, expected[order])


@pytest.mark.any_backend
def test_inductive_students_never_see_what_they_are_scored_on(data, monkeypatch, train):
    """Each unlabeled image gets the class of the student that learned from the other half."""
    learned = []

    def note(self, members, unlabeled):
        learned.append(set(unlabeled.fingerprints.tolist()))
        # The first student answers 0 on all images, the second answers 1.
        bias = np.zeros(10, "float32")
        bias[len(learned) - 1] = 100
        blank = {path: np.zeros_like(weights) for path, weights in members[0].weights.items()}
        return Training(blank | {"logits/bias": bias}, History())

    monkeypatch.setattr(Stages, "_student", note)
    trained = train(INDUCTIVE)
    assert trained.model is None  # two models answer
    assert len(learned[0]) == len(learned[1]) == 30
    assert not learned[0] & learned[1]
    given = trained.record.scores[INDUCTIVE.all_epochs]
    for name, student in zip(data.heldout.fingerprints.tolist(), given.heldout, strict=True):
        assert name not in learned[student]
    assert set(given.test.tolist()) == {0}


@pytest.mark.any_backend
def test_a_student_learns_what_the_members_say(data, fit, train, stages_of):
    """Its targets are the sharpened mean of the members' probabilities, and the labels thrice."""
    train(TRANSDUCTIVE)
    training, _ = data.split(ONE, 0)
    batches = [call.args[1] for call in fit.call_args_list]
    targets = {len(seen.x): seen.y for seen in batches}[60 + 3 * len(training)]
    teacher = stages_of(ONE.replace(members=2, views=1))
    soft = teacher.probabilities(teacher.unlabeled) ** 3
    soft /= soft.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(targets[:60], 0.95 * soft + 0.005, atol=1e-5)
    one_hot = np.eye(10)[np.tile(training.labels, 3)]
    np.testing.assert_allclose(targets[60:], 0.9 * one_hot + 0.01, atol=1e-6)


@pytest.mark.any_backend
def test_the_next_round_is_labeled_by_all_students(monkeypatch, train):
    """Each member has a student; the last one goes on from the first of them."""
    taught = []
    teach = Stages._taught

    def note(self, teacher, number, unlabeled, soft):
        student = teach(self, teacher, number, unlabeled, soft)
        taught.append((teacher, student, soft))
        return student

    monkeypatch.setattr(Stages, "_taught", note)
    with patch.object(Stages, "_mean", autospec=True, side_effect=Stages._mean) as mean:
        record = train(TWO_ROUNDS).record
    assert len(record.history.loss) == TWO_ROUNDS.all_epochs == 2 * 2 + 2 + 1
    (one, first, soft), (two, second, same), (third, last, other) = taught
    labeled_by = [list(map(id, call.args[1])) for call in mean.call_args_list]
    assert labeled_by == [[id(one), id(two)], [id(first), id(second)], [id(last)]]
    assert third is first
    assert soft is same
    assert np.abs(other - soft).max() > 1e-3
    views = [training.history.fingerprints["batches"] for training in (first, second, last)]
    assert len(set(views)) == 3


def test_frozen_features_stay(data, train):
    """The encoder of a linear probe is the pretrained one; only the last layer is fitted."""
    weights = get_weights(train(PROBE).model)
    images = data.split(PROBE, 0)[0].extended(data.heldout).sorted_by_content().images
    encoder, _ = representation.pretrain(images, "simclr", 1, width=4, seed=0)
    for path, expected in get_weights(encoder).items():
        np.testing.assert_array_equal(weights[path], expected)
    assert weights["logits/kernel"].any()


@pytest.mark.any_backend
def test_no_images_and_no_number(data, train):
    """Self-training needs images; a loss that is not finite ends the run there, marked."""
    nothing = replace(data, heldout=data.heldout.take([]))
    with pytest.raises(DataError, match="self-training needs images without labels"):
        train(TRANSDUCTIVE, nothing)
    trained = train(TRANSDUCTIVE.replace(learning_rate=1e30))
    history = trained.record.history
    assert trained.model is None
    assert history.diverged == len(history.loss) <= 2
    assert not np.isfinite(history.loss[-1])
    assert trained.record.scores == {}


@pytest.mark.any_backend
def test_other_unlabeled_images(data, train):
    """The unlabeled images need not be the held-out ones."""
    others = sources.load("digits", channels=1).take(np.arange(200, 230))
    record = train(TRANSDUCTIVE, replace(data, unlabeled=others)).record
    assert record.n_unlabeled == 30
    assert record.n_training == 40
    assert record.data_fingerprint != data.fingerprint
    assert train(ONE).record.n_unlabeled == 0
