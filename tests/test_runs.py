"""Settings, Runs and the plan that trains each Run once."""

import pytest

from mnist_keras.experiment import find
from mnist_keras.runs import Run, fingerprint, plan
from mnist_keras.settings import ExperimentError, Settings

pytestmark = pytest.mark.any_backend


def test_defaults_are_written_out():
    """Equal trainings have equal settings, whether a default is written or left out."""
    assert Settings() == Settings(activation="relu", gamma=2, alpha=1, learning_rate=1e-3)
    assert Settings(model="basic_net").activation == "sigmoid"
    assert Settings(loss="crossentropy").gamma is None


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
        ({"validation_split": 1}, "`validation_split` must be between 0 and 1"),
        ({"epochs": 0}, "`epochs` must be an integer >= 1"),
        ({"batch_size": 1.5}, "`batch_size` must be an integer >= 1"),
        ({"epochs": True}, "`epochs` must be an integer >= 1"),
        ({"stratify": 1}, "`stratify` must be a bool"),
    ],
)
def test_bad_settings(settings, message):
    """A value that is unknown, out of range or of the wrong type is named."""
    with pytest.raises(ExperimentError) as error:
        Settings(**settings)
    assert message in str(error.value)


def test_the_reports_plan_is_130_cnn_epochs():
    """The report's ten CNN trainings of 221 epochs are four Runs of 130, and one of Basic Net."""
    arms = [arm.settings for experiment in find([]) for arm in experiment.arms]
    runs = plan(arms, [0])
    epochs = {"cnn": [], "basic_net": []}
    for run in runs:
        epochs[run.settings.model].append(run.settings.epochs)

    assert sorted(epochs["cnn"]) == [10, 10, 10, 100]
    assert epochs["basic_net"] == [10]
    longest = max(runs, key=lambda run: run.settings.epochs)
    assert longest.scored_at == (1, 10, 20, 50, 100)
    for settings in arms:
        assert sum(run.covers(settings) for run in runs) == 1


def test_seeds_of_one_arm_follow_each_other():
    """All seeds of an arm are together, so that its compiled model serves them."""
    runs = plan([Settings(), Settings(optimizer="sgd"), Settings(epochs=3)], range(3))
    assert [(run.settings.optimizer, run.seed) for run in runs] == [
        *(("adam", seed) for seed in range(3)),
        *(("sgd", seed) for seed in range(3)),
    ]


def test_covering():
    """A run covers shorter trainings of the same settings, and no others."""
    run = Run(settings=Settings(epochs=20), seed=0, scored_at=(20,))
    assert run.covers(Settings(epochs=20))
    assert run.covers(Settings(epochs=1))
    assert not run.covers(Settings(epochs=21))
    assert not run.covers(Settings(epochs=20, optimizer="sgd"))


def test_fingerprint_is_of_everything_that_decides():
    """Another setting, seed, data or version is another name; scoring more often is not."""
    run = Run(settings=Settings(), seed=0, scored_at=(10,))
    name = fingerprint(run, "data", {"keras": "1"})
    assert name == fingerprint(
        Run(settings=Settings(), seed=0, scored_at=(1, 10)), "data", {"keras": "1"}
    )
    others = [
        fingerprint(
            Run(settings=Settings(alpha=2), seed=0, scored_at=(10,)), "data", {"keras": "1"}
        ),
        fingerprint(Run(settings=Settings(), seed=1, scored_at=(10,)), "data", {"keras": "1"}),
        fingerprint(run, "other", {"keras": "1"}),
        fingerprint(run, "data", {"keras": "2"}),
    ]
    assert len({name, *others}) == 5
