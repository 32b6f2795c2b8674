"""Claims against measurements: one word for each, and the numbers behind it."""

import numpy as np
import pytest
from scipy import stats

from mnist_keras.experiments.experiment import Arm, Claim, Experiment
from mnist_keras.experiments.verdicts import verdicts
from mnist_keras.training.record import Mistakes, Record, Score
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

pytestmark = pytest.mark.any_backend

A, B = Settings(epochs=2), Settings(epochs=2, loss="crossentropy")
ARMS = (Arm(name="a", settings=A), Arm(name="b", settings=B))
LABELS = np.arange(1000) % 10


def record(settings, seed, accuracy, loss=(2.0, 1.0), heldout=1000):
    """A record that gets this share of the held-out images right, from the first on."""
    labels = LABELS[:heldout]
    right = np.arange(heldout) < round(accuracy * heldout)
    predicted = np.where(right, labels, (labels + 1) % 10)
    nothing = np.empty(0, np.int64)
    return Record(
        run=Run(settings=settings, seed=seed, scored_at=(2,)),
        data_name="x",
        data_fingerprint="x",
        class_names=tuple("0123456789"),
        n_training=400,
        n_unlabeled=0,
        test_labels=nothing,
        heldout_labels=labels,
        loss=loss,
        accuracy=(0.5, 0.5),
        losses={"crossentropy": loss, "focal": loss},
        seconds=(0.1, 0.1),
        cpu_seconds=(0.1, 0.1),
        peak_memory=0,
        scores={2: Score(test=nothing, heldout=predicted)},
        mistakes=Mistakes(np.empty((0, 1, 1, 1), np.uint8), nothing, nothing),
        diverged=None,
        fingerprints={},
        versions={},
    )


def verdict(a, b, losses=None, heldout=1000, **claim):
    """The verdict on a claim about arms of these accuracies, and first losses, seed by seed."""
    claim = Claim(text="a beats b.", arm="a", against="b", **claim)
    experiment = Experiment(name="x", title="x", section="", claim="", arms=ARMS, claims=(claim,))
    losses = losses or [(2.0, 2.0)] * len(a)
    done = [record(A, s, v, (losses[s][0], 1.0), heldout) for s, v in enumerate(a)]
    done += [record(B, s, v, (losses[s][1], 1.0), heldout) for s, v in enumerate(b)]
    (found,) = verdicts(experiment, {one.run: one for one in done})
    return found


BASE = [0.90, 0.91, 0.89, 0.92, 0.90, 0.88]


@pytest.mark.parametrize(
    ("shift", "expect", "margin", "word"),
    [
        (0.03, "higher", 0, "supported"),
        (-0.03, "higher", 0, "reversed"),
        (0.0, "higher", 0, "not supported"),
        (-0.03, "lower", 0, "supported"),
        (0.03, "lower", 0, "reversed"),
        (0.03, "no higher", 0.005, "reversed"),
        (-0.03, "no higher", 0.005, "supported"),
        (0.0, "no higher", 0.02, "supported"),
        (0.0, "no higher", 0.001, "not supported"),
    ],
)
def test_the_four_words(shift, expect, margin, word):
    """The interval of the paired differences decides, whichever way the claim points."""
    noise = [0.003, -0.002, 0.004, -0.004, 0.001, -0.002]
    ours = [value + shift + n for value, n in zip(BASE, noise, strict=True)]
    found = verdict(ours, BASE, expect=expect, margin=margin)
    assert found.verdict == word
    differences = np.subtract(ours, BASE)
    expected = stats.t.interval(0.95, 5, differences.mean(), stats.sem(differences))
    assert found.interval == pytest.approx(expected, abs=1e-9)


def test_fewer_than_five_seeds_tell_nothing():
    """Four seeds are too few, however far apart the arms are; so are none in common."""
    assert verdict([0.9] * 4, [0.1] * 4).verdict == "too few to tell"
    assert verdict([0.9, 0.91, 0.9, 0.92, 0.9], [0.1] * 5).verdict == "supported"
    nothing = verdict([0.9] * 6, [])
    assert nothing.verdict == "too few to tell"
    assert nothing.sentence == "No seed has both arms."


def test_only_common_seeds_are_compared():
    """A seed that one arm lacks is in no difference."""
    found = verdict(BASE, [value - 0.1 for value in BASE[:5]])
    assert found.seeds == (0, 1, 2, 3, 4)
    assert found.differences == pytest.approx((0.1,) * 5)


def test_the_sentence_has_the_numbers():
    """Means, difference, interval, seeds, p and McNemar's count stand in one line."""
    ours = [value + 0.03 for value in BASE]
    assert verdict(ours, BASE).sentence == (
        "Held-out accuracy: a 93.00, b 90.00; difference +3.00 points, 95 % interval "
        "[+3.00, +3.00], over 6 seeds (sign-flip p = 0.031). "
        "McNemar's test: better at 6 seeds, worse at 0, undecided at 0."
    )


def test_losses_are_compared_on_the_same_quantity():
    """A claim on a loss takes the quantity measured in both arms, at the epoch it names."""
    losses = [(1.8 + 0.01 * seed, 2.0 + 0.01 * seed) for seed in range(6)]
    claim = {"quantity": "crossentropy", "expect": "lower", "epoch": 1, "against_epoch": 1}
    found = verdict(BASE, BASE, losses, **claim)
    assert found.verdict == "supported"
    assert found.differences == pytest.approx((-0.2,) * 6)
    assert found.sentence.startswith(
        "Cross entropy in training: a (epoch 1) 1.8250, b (epoch 1) 2.0250; difference -0.2,"
    )
    assert "McNemar" not in found.sentence


def test_without_heldout_images_there_is_no_verdict():
    """The test images are too few to rank by: nothing is said."""
    found = verdict(BASE, [0.1] * 6, heldout=0)
    assert found.verdict == "too few to tell"
    assert found.sentence == "There are no held-out images."
