"""Claims against measurements: one word for each, and the numbers behind it."""

import numpy as np
import pytest
from scipy import stats

from mnist_keras.experiments.experiment import Arm, Claim, Experiment
from mnist_keras.experiments.verdicts import verdicts
from mnist_keras.training.settings import Settings

pytestmark = pytest.mark.any_backend

ARMS = (
    Arm(name="a", settings=Settings(epochs=2)),
    Arm(name="b", settings=Settings(epochs=2, loss="crossentropy")),
)


@pytest.fixture
def verdict(record):
    """The function that returns the verdict on two arms: accuracies and first losses by seed."""

    def of(a, b, losses=None, n_heldout=1000, **claim):
        claim = Claim(text="a beats b.", arm="a", against="b", **claim)
        experiment = Experiment(name="x", title="x", arms=ARMS, claims=(claim,))
        done = [
            record(seed, arm.settings, heldout=value, n_heldout=n_heldout, loss=(first, 1.0))
            for number, (arm, values) in enumerate(zip(ARMS, (a, b), strict=True))
            for seed, value in enumerate(values)
            for first in [losses[seed][number] if losses else 2.0]
        ]
        (found,) = verdicts(experiment, {one.run: one for one in done})
        return found

    return of


BASE = [0.90, 0.91, 0.89, 0.92, 0.90, 0.88]


@pytest.mark.parametrize(
    ("shift", "expect", "margin", "word"),
    [
        (0.03, "higher", 0, "supported"),
        (-0.03, "higher", 0, "reversed"),
        (0.0, "higher", 0, "not supported"),
        (-0.03, "lower", 0, "supported"),
        (0.03, "lower", 0, "reversed"),
        (0.0, "lower", 0, "not supported"),
        (0.03, "no higher", 0.005, "reversed"),
        (-0.03, "no higher", 0.005, "supported"),
        (0.0, "no higher", 0.02, "supported"),
        (0.0, "no higher", 0.001, "not supported"),
    ],
)
def test_the_four_words(verdict, shift, expect, margin, word):
    """The interval of the paired differences decides, whichever way the claim points."""
    noise = [0.003, -0.002, 0.004, -0.004, 0.001, -0.002]
    ours = [value + shift + n for value, n in zip(BASE, noise, strict=True)]
    found = verdict(ours, BASE, expect=expect, margin=margin)
    assert found.verdict == word
    differences = np.subtract(ours, BASE)
    expected = stats.t.interval(0.95, 5, differences.mean(), stats.sem(differences))
    assert found.t_interval == pytest.approx(expected, abs=1e-9)


def test_fewer_than_five_seeds_tell_nothing(verdict):
    """Four seeds are too few, however far apart the arms are; so are none in common."""
    assert verdict([0.9] * 4, [0.1] * 4).verdict == "too few to tell"
    assert verdict([0.9, 0.91, 0.9, 0.92, 0.9], [0.1] * 5).verdict == "supported"
    nothing = verdict([0.9] * 6, [])
    assert nothing.verdict == "too few to tell"
    assert nothing.sentence == "No seed has both arms."


def test_only_common_seeds_are_compared(verdict):
    """A seed that one arm lacks is in no difference."""
    found = verdict(BASE, [value - 0.1 for value in BASE[:5]])
    assert found.seeds == (0, 1, 2, 3, 4)
    assert found.differences == pytest.approx((0.1,) * 5)


def test_the_sentence_has_the_numbers(verdict):
    """Means, difference, interval, seeds, p and McNemar's count stand in one line."""
    ours = [value + 0.03 for value in BASE]
    assert verdict(ours, BASE).sentence == (
        "Held-out accuracy: a 93.00, b 90.00; difference +3.00 points, 95 % interval "
        "[+3.00, +3.00], over 6 seeds (sign-flip p = 0.031). "
        "McNemar's test: better at 6 seeds, worse at 0, undecided at 0."
    )


def test_one_seed_is_one(verdict):
    """Numbers and words agree, and a claim ends in a full stop."""
    found = verdict([0.9], [0.1])
    assert "over 1 seed. McNemar's test: better at 1 seed, worse at 0" in found.sentence
    assert found.claim.replace(text="a beats b").sentence == "a beats b."
    assert found.claim.sentence == "a beats b."


def test_losses_are_compared_on_the_same_quantity(verdict):
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


def test_without_heldout_images_there_is_no_verdict(verdict):
    """The test images are too few to rank by: nothing is said."""
    found = verdict(BASE, [0.1] * 6, n_heldout=0)
    assert found.verdict == "too few to tell"
    assert found.sentence == "There are no held-out images."


@pytest.mark.parametrize(
    ("expect", "margin", "shift"),
    [("higher", 0, 0.004), ("lower", 0, 0.004), ("no higher", 0.004, 0)],
)
def test_seeds_that_would_settle_it(verdict, expect, margin, shift):
    """As many seeds with like differences lead to another verdict, and one less does not."""
    noise = [0.012, -0.012, 0.006, -0.006, 0.0]

    def of(n):
        values = [0.8 + noise[seed % 5] for seed in range(n)]
        return verdict([value + shift for value in values], [0.8] * n, expect=expect, margin=margin)

    found = of(5)
    assert found.is_open
    needed = found.seeds_needed
    assert 5 < needed < 60
    assert not of(needed + 5 - needed % 5).is_open
    assert of(needed - 5 - needed % 5).is_open


def test_seeds_that_would_settle_nothing(verdict):
    """Equal arms, and a single seed, say nothing of how many."""
    assert verdict([0.8] * 5, [0.8] * 5).seeds_needed is None
    assert verdict([0.8], [0.7]).seeds_needed is None
    assert verdict([0.9, 0.91], [0.7, 0.71]).seeds_needed == 5
