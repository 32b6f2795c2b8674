"""Settings, Runs and the plan that trains each Run once."""

import re
from dataclasses import replace

import pytest

from mnist_keras.experiments.experiment import find
from mnist_keras.experiments.plan import plan
from mnist_keras.training.run import Run
from mnist_keras.training.settings import ExperimentError, Settings

pytestmark = pytest.mark.any_backend


CYCLE = {"model": "small_cnn", "schedule": "one_cycle"}
WARPED = {"augmentation": "affine"}
SIMCLR = {"pretraining": "simclr", "pretraining_epochs": 1}


def test_defaults_are_written_out():
    """Equal trainings have equal settings, whether a default is written or left out."""
    assert Settings() == Settings(activation="relu", gamma=2, alpha=1, learning_rate=1e-3)
    assert Settings(model="basic_net").activation == "sigmoid"
    assert Settings(loss="crossentropy").gamma is None
    assert Settings(model="small_cnn").width == 16


def test_what_decides_nothing_is_no_setting():
    """Without a network, loss, epochs and the like are left at one value."""
    assert Settings(model="svm", epochs=50, loss="crossentropy", members=3) == Settings(model="svm")
    assert Settings(model="hog_svm", augmentation="elastic", copies=3) != Settings(model="hog_svm")


def test_epochs_of_all_stages():
    """Pretraining, members and students, one after the other; frozen features need no member."""
    stages = {**CYCLE, **SIMCLR, "epochs": 5, "self_training_epochs": 2}
    assert Settings(**CYCLE, epochs=5, members=3).all_epochs == 15
    assert Settings(**stages, self_training="transductive").all_epochs == 1 + 5 + 2
    assert Settings(**stages, self_training="inductive").all_epochs == 1 + 5 + 4
    rounds = {"self_training": "inductive", "self_training_rounds": 3, "members": 2}
    assert Settings(**stages, **rounds).all_epochs == 1 + 2 * 5 + 2 * (2 + 2 + 1) * 2
    assert Settings(**CYCLE, **SIMCLR, frozen=True).all_epochs == 1
    assert Settings(model="svm").all_epochs == 1
    assert Settings(epochs=7).all_epochs == 7


def test_a_cycle_is_no_beginning_of_a_longer_one():
    """Where the learning rate changes, 10 epochs are not the first of 20: each is a run."""
    arms = [Settings(**CYCLE, epochs=epochs) for epochs in (10, 20, 10)]
    assert [run.settings.epochs for run in plan(arms, [0])] == [10, 20]
    run = Run(settings=arms[1], seed=0, scored_at=(20,))
    assert run.covers(arms[1])
    assert not run.covers(arms[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "cnnn"}, "unknown model 'cnnn'. Did you mean 'cnn'?"),
        ({"loss": "hinge"}, "unknown loss 'hinge'. Known: crossentropy, focal"),
        ({"optimizer": "Adam"}, "unknown optimizer 'Adam'. Did you mean 'adam'?"),
        ({"activation": "rellu"}, "unknown activation 'rellu'. Did you mean 'relu'?"),
        ({"model": 3}, "unknown model 3"),
        ({"loss": "crossentropy", "gamma": 2.0}, "belong to loss = 'focal'"),
        ({"gamma": -1}, "`gamma` must be a number >= 0"),
        ({"alpha": "1"}, "`alpha` must be a number >= 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a number >= 0"),
        ({"learning_rate": True}, "`learning_rate` must be a number >= 0"),
        ({"validation_split": 1}, "`validation_split` must be a number between 0 and 1"),
        ({"epochs": 0}, "`epochs` must be an integer >= 1"),
        ({"batch_size": 1.5}, "`batch_size` must be an integer >= 1"),
        ({"epochs": True}, "`epochs` must be an integer >= 1"),
        ({"stratify": 1}, "`stratify` must be a bool"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine'. Known: constant, one_cycle"),
        ({"augmentation": "elastics"}, "Did you mean 'elastic'?"),
        ({"pretraining": "byol"}, "unknown pretraining 'byol'"),
        ({"self_training": "inductiv"}, "Did you mean 'inductive'?"),
        ({"label_smoothing": 1}, "`label_smoothing` must be a number between 0 and 1"),
        ({"weight_decay": -1}, "`weight_decay` must be a number >= 0"),
        ({"members": 0}, "`members` must be an integer >= 1"),
        ({"views": -1}, "`views` must be an integer >= 0"),
        ({"model": "small_cnn", "width": 0}, "`width` must be an integer >= 1"),
        ({"frozen": "yes"}, "`frozen` must be a bool"),
        ({"width": 16}, "`width` belongs to model = 'small_cnn'"),
        ({"copies": 2}, "`copies` belong to an SVM"),
        ({"model": "svm", "copies": 2}, "`copies` and `augmentation` need each other"),
        ({**WARPED, "model": "svm"}, "`copies` and `augmentation` need each"),
        ({**WARPED, "model": "nearest_neighbor", "copies": 1}, "`copies` are for SVMs"),
        ({**CYCLE, "views": 2}, "`views` need an augmentation"),
        ({**CYCLE, "model": "cnn", **SIMCLR}, "`pretraining` needs model = 'small_cnn'"),
        ({**CYCLE, "pretraining": "simclr"}, "`pretraining` and `pretraining_epochs` need each"),
        ({**CYCLE, "self_training_epochs": 1}, "`self_training` and `self_training_epochs` need"),
        ({**CYCLE, "self_training_rounds": 2}, "`self_training_rounds` needs `self_training`"),
        ({"self_training_rounds": 0}, "`self_training_rounds` must be an integer >= 1"),
        ({**CYCLE, "frozen": True}, "`frozen` needs a pretraining"),
        ({**CYCLE, **SIMCLR, "frozen": True, "members": 2}, "`frozen` needs members = 1"),
        ({"members": 2}, "need schedule = 'one_cycle'"),
        ({"model": "small_cnn", **SIMCLR}, "need schedule = 'one_cycle'"),
    ],
)
def test_bad_settings(settings, message):
    """A value that is unknown, out of range or of the wrong type is named."""
    with pytest.raises(ExperimentError, match=re.escape(message)):
        Settings(**settings)


def test_the_reports_plan_is_130_cnn_epochs():
    """The original's ten CNN trainings of 221 epochs are four Runs of 130, and one of Basic Net."""
    arms = [arm.settings for experiment in find([]) for arm in experiment.arms]
    runs = plan(arms, [0])
    epochs = sorted((run.settings.model, run.settings.epochs) for run in runs)
    assert epochs == [("basic_net", 10), *[("cnn", 10)] * 3, ("cnn", 100)]
    longest = max(runs, key=lambda run: run.settings.epochs)
    assert longest.scored_at == (1, 10, 20, 50, 100)
    for settings in arms:
        assert sum(run.covers(settings) for run in runs) == 1


def test_seeds_of_one_arm_follow_each_other():
    """All seeds of an arm are together, so that its compiled model serves them."""
    runs = plan([Settings(), Settings(optimizer="sgd"), Settings(epochs=3)], range(3))
    expected = [(optimizer, seed) for optimizer in ("adam", "sgd") for seed in range(3)]
    assert [(run.settings.optimizer, run.seed) for run in runs] == expected


def test_covering():
    """A run covers shorter trainings of the same settings, and no others."""
    run = Run(settings=Settings(epochs=20), seed=0, scored_at=(20,))
    assert run.covers(Settings(epochs=20))
    assert run.covers(Settings(epochs=1))
    assert not run.covers(Settings(epochs=21))
    assert not run.covers(Settings(epochs=20, optimizer="sgd"))


def test_fingerprint_is_of_everything_that_decides():
    """Another setting, seed, data or version is another name; scoring more often is not."""
    run, what = Run.whole(Settings(), 0), ("data", {"keras": "1"})
    name = run.fingerprint(*what)
    assert name == replace(run, scored_at=(1, 10)).fingerprint(*what)
    runs = Run.whole(Settings(alpha=2), 0), Run.whole(Settings(), 1)
    others = [other.fingerprint(*what) for other in runs]
    others += [run.fingerprint("other", what[1]), run.fingerprint("data", {"keras": "2"})]
    assert len({name, *others}) == 5


def test_replace_brings_the_defaults_of_what_changed():
    """Another model or loss brings its own defaults; what means nothing then is refused."""
    base = Settings(**CYCLE, loss="crossentropy", members=2)
    assert base.replace(width=24).width == 24
    assert Settings().replace(model="basic_net") == Settings(model="basic_net")
    assert base.replace(loss="focal").gamma == 2
    assert Settings(gamma=1).replace(loss="crossentropy").gamma is None
    assert base.replace() == base
    with pytest.raises(ExperimentError, match="need schedule = 'one_cycle'"):
        base.replace(schedule="constant")
