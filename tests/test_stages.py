"""Arms of several trainings: what each stage sees, and what two arms share."""

from dataclasses import replace

import numpy as np
import pytest

from mnist_keras.datasets import sources
from mnist_keras.datasets.images import DataError
from mnist_keras.datasets.splits import draw
from mnist_keras.experiments.results_folder import TrainingFiles
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training import engine, representation, stages
from mnist_keras.training.data import Data
from mnist_keras.training.networks import Networks, get_weights, one_cycle
from mnist_keras.training.record import History, Training
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings
from mnist_keras.training.stages import Stages

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
    """The compiled network that all arms here have in common: it is made once."""
    return Networks()


@pytest.fixture
def train(networks):
    """The function that trains an arm in a trainer of its own."""

    def train_alone(settings, data, kept=None):
        run = Run.whole(settings, 0)
        return engine.train(run, data, kept=kept, networks=networks)

    return train_alone


def classes(record):
    score = record.scores[record.run.settings.all_epochs]
    return np.concatenate([score.test, score.heldout])


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
def test_what_arms_share_is_trained_once(data, monkeypatch, train):
    """Ensemble, student and ensemble with views train no network that another arm has trained."""
    fits = []
    fit = stages.fit

    def note(model, batches, learning_rate, ends, **options):
        fits.append(ends)
        return fit(model, batches, learning_rate, ends, **options)

    monkeypatch.setattr(stages, "fit", note)
    kept = {}
    two = ONE.replace(members=2)
    arms = (ONE, two, two.replace(views=1), TRANSDUCTIVE, TWO_ROUNDS)
    together = [train(settings, data, kept).record for settings in arms]
    assert fits == [(2,), (2,), (1,), (1,), (1,)]

    # Alone, each is the same to the last bit.
    for settings, record in zip(arms, together, strict=True):
        alone = train(settings, data).record
        assert alone.history.loss == record.history.loss
        assert len(alone.history.loss) == settings.all_epochs
        assert alone.history.fingerprints == record.history.fingerprints
        np.testing.assert_array_equal(classes(alone), classes(record))


@pytest.mark.any_backend
def test_trainings_survive_in_a_folder(data, tmp_path, monkeypatch, train):
    """A second process takes them from there; one that is damaged is trained again."""
    settings = PROBE.replace(frozen=False)
    files = TrainingFiles(tmp_path / "trainings")
    assert len(files) == 0
    first = train(settings, data, files).record
    assert len(files) == len(list(files)) == 2

    with monkeypatch.context() as without:
        without.setattr(stages, "fit", None)
        without.setattr(representation, "fit", None)
        again = train(settings, data, TrainingFiles(files.path)).record
    assert again.history.loss == first.history.loss
    assert again.history.seconds == first.history.seconds
    assert again.history.fingerprints == first.history.fingerprints
    np.testing.assert_array_equal(again.history.training_accuracy, first.history.training_accuracy)
    np.testing.assert_array_equal(classes(again), classes(first))

    for damage in (lambda content: content[:-40], lambda content: b"", lambda content: b"PK"):
        for name in files:
            path = tmp_path / "trainings" / f"{name}.npz"
            path.write_bytes(damage(path.read_bytes()))
            assert name not in files
        assert train(settings, data, files).record.history.loss == first.history.loss
        assert len(files) == 2
    del files[next(iter(files))]
    assert len(files) == 1


def test_an_ensemble_is_the_mean_of_its_members(data, networks):
    """Of the probabilities of two networks, and of an image and its views."""
    training, test = data.split(ONE, 0)

    def stages_of(settings):
        return Stages(Run.whole(settings, 0), training, data.heldout, "", networks, {})

    both = stages_of(ONE.replace(members=2))
    members = both.members()
    model = networks.of(ONE, (28, 28, 1), 10)
    alone = []
    for member in members:
        for variable in model.weights:
            variable.assign(member.weights[variable.path])
        alone.append(softmax(predict(model, test.images)))
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    assert engine.train(both.run, data, networks=networks).model is None
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
    shuffled = data.heldout.take(rng.permutation(60))
    wrong = replace(shuffled, labels=rng.integers(0, 10, 60))
    first = train(settings, data).record
    second = train(settings, replace(data, heldout=wrong)).record
    assert second.history.loss == first.history.loss
    order = [data.heldout.fingerprints.tolist().index(name) for name in wrong.fingerprints.tolist()]
    np.testing.assert_array_equal(
        second.scores[settings.all_epochs].heldout,
        first.scores[settings.all_epochs].heldout[order],
    )


@pytest.mark.any_backend
def test_inductive_students_never_see_what_they_are_scored_on(data, monkeypatch, train):
    """Each unlabeled image gets the class of the student that learned from the other half."""
    learned = []

    def note(self, members, unlabeled):
        learned.append(set(unlabeled.fingerprints.tolist()))
        # A student that says 0 or 1 of everything, to know who has spoken.
        bias = np.zeros(10, "float32")
        bias[len(learned) - 1] = 100
        blank = {path: np.zeros_like(weights) for path, weights in members[0].weights.items()}
        return Training(blank | {"logits/bias": bias}, History())

    monkeypatch.setattr(Stages, "_student", note)
    trained = train(INDUCTIVE, data)
    record = trained.record
    assert trained.model is None  # two networks answer
    assert len(learned[0]) == len(learned[1]) == 30
    assert not learned[0] & learned[1]
    given = record.scores[INDUCTIVE.all_epochs]
    for name, student in zip(data.heldout.fingerprints.tolist(), given.heldout, strict=True):
        assert name not in learned[student]
    assert set(given.test.tolist()) == {0}


@pytest.mark.any_backend
def test_a_student_learns_what_the_members_say(data, monkeypatch, train, networks):
    """Its targets are the sharpened mean of the members' probabilities, and the labels thrice."""
    seen = {}
    views = Stages._views

    def note(self, x, y, batch_size, seed):
        seen[len(x)] = y
        return views(self, x, y, batch_size, seed)

    monkeypatch.setattr(Stages, "_views", note)
    train(TRANSDUCTIVE, data)
    training, _ = data.split(ONE, 0)
    targets = seen[60 + 3 * len(training)]

    teacher = Stages(Run.whole(ONE.replace(members=2, views=1), 0), training, data.heldout, "",
                     networks, {})  # fmt: skip
    soft = teacher.probabilities(teacher.unlabeled) ** 3
    soft /= soft.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(targets[:60], 0.95 * soft + 0.005, atol=1e-5)
    one_hot = np.eye(10)[np.tile(training.labels, 3)]
    np.testing.assert_allclose(targets[60:], 0.9 * one_hot + 0.01, atol=1e-6)


@pytest.mark.any_backend
def test_the_next_round_is_labeled_by_all_students(data, monkeypatch, train):
    """Each member has a student; the last one goes on from the first of them."""
    taught, labeled_by = [], []
    teach, mean = Stages._taught, Stages._mean

    def note(self, teacher, number, unlabeled, soft):
        student = teach(self, teacher, number, unlabeled, soft)
        taught.append((teacher, student, soft))
        return student

    def listen(self, trainings, images):
        labeled_by.append(trainings)
        return mean(self, trainings, images)

    monkeypatch.setattr(Stages, "_taught", note)
    monkeypatch.setattr(Stages, "_mean", listen)
    record = train(TWO_ROUNDS, data).record
    assert len(record.history.loss) == TWO_ROUNDS.all_epochs == 2 * 2 + 2 + 1
    (one, first, soft), (two, second, same), (third, last, other) = taught
    assert [list(map(id, trainings)) for trainings in labeled_by] == [
        [id(one), id(two)],
        [id(first), id(second)],
        [id(last)],
    ]
    assert third is first
    assert soft is same
    assert np.abs(other - soft).max() > 1e-3
    views = [training.history.fingerprints["batches"] for training in (first, second, last)]
    assert len(set(views)) == 3


def test_frozen_features_stay(data, train):
    """Of a linear probe, the encoder is the pretrained one, and only the last layer was fitted."""
    weights = get_weights(train(PROBE, data).model)
    training, _ = data.split(PROBE, 0)
    everything = training.extended(data.heldout).sorted_by_content()
    encoder, _ = representation.pretrain(everything.images, "simclr", 1, width=4, seed=0)
    for path, expected in get_weights(encoder).items():
        np.testing.assert_array_equal(weights[path], expected)
    assert weights["logits/kernel"].any()


@pytest.mark.any_backend
def test_no_images_and_no_number(data, train):
    """Self-training needs images; a loss that is no number ends the run there, marked."""
    nothing = replace(data, heldout=data.heldout.take([]))
    with pytest.raises(DataError, match="self-training needs images without labels"):
        train(TRANSDUCTIVE, nothing)
    trained = train(TRANSDUCTIVE.replace(learning_rate=1e30), data)
    record, history = trained.record, trained.record.history
    assert trained.model is None
    assert history.diverged == len(history.loss) <= 2
    assert not np.isfinite(history.loss[-1])
    assert record.scores == {}


@pytest.mark.any_backend
def test_other_unlabeled_images(data, train):
    """Images without labels may be others than the held-out ones."""
    others = sources.load("digits", channels=1).take(np.arange(200, 230))
    record = train(TRANSDUCTIVE, replace(data, unlabeled=others)).record
    assert record.n_unlabeled == 30
    assert record.n_training == 40
    assert record.data_fingerprint != data.fingerprint
    assert train(ONE, data).record.n_unlabeled == 0
