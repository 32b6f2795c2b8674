"""Arms of several trainings: what each stage sees, and what two arms share."""

from dataclasses import replace

import numpy as np
import pytest

from mnist_keras.datasets import sources
from mnist_keras.datasets.images import DataError
from mnist_keras.datasets.splits import draw
from mnist_keras.experiments.results_folder import TrainingFiles
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training import representation, stages
from mnist_keras.training.data import Data
from mnist_keras.training.engine import Trainer
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
TRANSDUCTIVE = replace(
    ONE, members=2, views=1, self_training="transductive", self_training_epochs=1
)
TWO_ROUNDS = replace(TRANSDUCTIVE, self_training_rounds=2)
INDUCTIVE = replace(TRANSDUCTIVE, self_training="inductive")
PROBE = replace(ONE, pretraining="simclr", pretraining_epochs=1, frozen=True)


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
        trainer = Trainer(kept)
        trainer.networks = networks
        return trainer.train(run_of(settings), data)

    return train_alone


def run_of(settings, seed=0):
    return Run(settings=settings, seed=seed, scored_at=(settings.all_epochs,))


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

    def note(*arguments, **options):
        fits.append(options["ends"])
        return fit(*arguments, **options)

    monkeypatch.setattr(stages, "fit", note)
    kept = {}
    two = replace(ONE, members=2)
    arms = (ONE, two, replace(two, views=1), TRANSDUCTIVE, TWO_ROUNDS)
    together = [train(settings, data, kept) for settings in arms]
    assert fits == [(2,), (2,), (1,), (1,), (1,)]

    # Alone, each is the same to the last bit.
    for settings, record in zip(arms, together, strict=True):
        alone = train(settings, data)
        assert alone.loss == record.loss
        assert len(alone.loss) == settings.all_epochs
        assert alone.fingerprints == record.fingerprints
        np.testing.assert_array_equal(classes(alone), classes(record))


@pytest.mark.any_backend
def test_trainings_survive_in_a_folder(data, tmp_path, monkeypatch, train):
    """A second process takes them from there; one that is damaged is trained again."""
    settings = replace(PROBE, frozen=False)
    files = TrainingFiles(tmp_path / "trainings")
    assert len(files) == 0
    first = train(settings, data, files)
    assert len(files) == len(list(files)) == 2

    with monkeypatch.context() as without:
        without.setattr(stages, "fit", None)
        without.setattr(representation, "fit", None)
        again = train(settings, data, TrainingFiles(files.path))
    assert again.loss == first.loss
    assert again.seconds == first.seconds
    assert again.fingerprints == first.fingerprints
    np.testing.assert_array_equal(again.accuracy, first.accuracy)
    np.testing.assert_array_equal(classes(again), classes(first))

    for damage in (lambda content: content[:-40], lambda content: b"", lambda content: b"PK"):
        for name in files:
            path = tmp_path / "trainings" / f"{name}.npz"
            path.write_bytes(damage(path.read_bytes()))
            assert name not in files
        assert train(settings, data, files).loss == first.loss
        assert len(files) == 2
    del files[next(iter(files))]
    assert len(files) == 1


def test_an_ensemble_is_the_mean_of_its_members(data, networks):
    """Of the probabilities of two networks, and of an image and its views."""
    training, test = data.split(ONE, 0)

    def stages_of(settings):
        return Stages(run_of(settings), training, data.heldout, "", networks, {})

    both = stages_of(replace(ONE, members=2))
    members = both.members()
    model = networks.of(ONE, (28, 28, 1), 10)
    alone = []
    for member in members:
        for variable in model.weights:
            variable.assign(member.weights[variable.path])
        alone.append(softmax(predict(model, test.images)))
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(both.probabilities(test), np.mean(alone, axis=0), atol=1e-6)
    viewed = stages_of(replace(ONE, views=2)).probabilities(test)
    assert np.abs(viewed - alone[0]).max() > 1e-4
    np.testing.assert_allclose(viewed, alone[0], atol=0.5)
    np.testing.assert_allclose(viewed.sum(axis=-1), 1)


@pytest.mark.any_backend
@pytest.mark.parametrize("settings", [TRANSDUCTIVE, INDUCTIVE, PROBE])
def test_labels_of_the_pool_decide_nothing(settings, data, train):
    """Held-out images with other labels, in another order, give the same classes."""
    rng = np.random.default_rng(0)
    shuffled = data.heldout.take(rng.permutation(60))
    wrong = replace(shuffled, labels=rng.integers(0, 10, 60))
    first = train(settings, data)
    second = train(settings, replace(data, heldout=wrong))
    assert second.loss == first.loss
    order = [data.heldout.fingerprints.tolist().index(name) for name in wrong.fingerprints.tolist()]
    np.testing.assert_array_equal(
        second.scores[settings.all_epochs].heldout,
        first.scores[settings.all_epochs].heldout[order],
    )


@pytest.mark.any_backend
def test_inductive_students_never_see_what_they_are_scored_on(data, monkeypatch, train):
    """Each image of the pool gets the class of the student that learned from the other half."""
    learned = []

    def note(self, members, pool):
        learned.append(set(pool.fingerprints.tolist()))
        # A student that says 0 or 1 of everything, to know who has spoken.
        bias = np.zeros(10, "float32")
        bias[len(learned) - 1] = 100
        blank = {path: np.zeros_like(weights) for path, weights in members[0].weights.items()}
        return Training(blank | {"logits/bias": bias}, History())

    monkeypatch.setattr(Stages, "_student", note)
    record = train(INDUCTIVE, data)
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

    teacher = Stages(run_of(replace(ONE, members=2, views=1)), training, data.heldout, "",
                     networks, {})  # fmt: skip
    soft = teacher.probabilities(teacher.pool) ** 3
    soft /= soft.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(targets[:60], 0.95 * soft + 0.005, atol=1e-5)
    one_hot = np.eye(10)[np.tile(training.labels, 3)]
    np.testing.assert_allclose(targets[60:], 0.9 * one_hot + 0.01, atol=1e-6)


@pytest.mark.any_backend
def test_the_next_round_is_labeled_by_all_students(data, monkeypatch, train):
    """Each member has a student; the last one goes on from the first of them."""
    taught, labeled_by = [], []
    teach, mean = Stages._taught, Stages._mean

    def note(self, teacher, number, pool, soft):
        student = teach(self, teacher, number, pool, soft)
        taught.append((teacher, student, soft))
        return student

    def listen(self, trainings, images):
        labeled_by.append(trainings)
        return mean(self, trainings, images)

    monkeypatch.setattr(Stages, "_taught", note)
    monkeypatch.setattr(Stages, "_mean", listen)
    record = train(TWO_ROUNDS, data)
    assert len(record.loss) == TWO_ROUNDS.all_epochs == 2 * 2 + 2 + 1
    (one, first, soft), (two, second, same), (third, last, other) = taught
    assert [list(map(id, trainings)) for trainings in labeled_by] == [
        [id(one), id(two)],
        [id(first), id(second)],
        [id(last)],
    ]
    assert third is first
    assert soft is same
    assert np.abs(other - soft).max() > 1e-3
    views = [training.history.batches for training in (first, second, last)]
    assert len(set(views)) == 3


def test_frozen_features_stay(data, train, networks):
    """Of a linear probe, the encoder is the pretrained one, and only the last layer was fitted."""
    train(PROBE, data)
    weights = get_weights(networks.of(PROBE, (28, 28, 1), 10))
    training, _ = data.split(PROBE, 0)
    everything = training.extended(data.heldout).sorted_by_content()
    encoder, _ = representation.pretrain(everything.images, "simclr", 1, width=4, seed=0)
    for path, expected in get_weights(encoder).items():
        np.testing.assert_array_equal(weights[path], expected)
    assert weights["logits/kernel"].any()


@pytest.mark.any_backend
def test_no_pool_and_no_number(data, train):
    """Self-training needs images; a loss that is no number ends the run there, marked."""
    nothing = replace(data, heldout=data.heldout.take([]))
    with pytest.raises(DataError, match="self-training needs images without labels"):
        train(TRANSDUCTIVE, nothing)
    record = train(replace(TRANSDUCTIVE, learning_rate=1e30), data)
    assert record.diverged == len(record.loss) <= 2
    assert not np.isfinite(record.loss[-1])
    assert record.scores == {}


@pytest.mark.any_backend
def test_another_pool(data, train):
    """Images without labels may be others than the held-out ones."""
    others = sources.load("digits", channels=1).take(np.arange(200, 230))
    record = train(TRANSDUCTIVE, replace(data, unlabeled=others))
    assert record.n_unlabeled == 30
    assert record.n_training == 40
    assert record.data_fingerprint != data.fingerprint
    assert train(ONE, data).n_unlabeled == 0
