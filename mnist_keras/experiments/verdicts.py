"""A verdict on each claim: one word for what was measured, and the numbers behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from mnist_keras._foundations.statistics import mcnemar_p, sign_flip_p, t_interval, values_needed
from mnist_keras.experiments.experiment import Arm, Claim, Experiment
from mnist_keras.training.record import Record
from mnist_keras.training.run import Run

# With fewer pairs, p is 0.125 at best: chance alone often gives all differences the same sign.
LEAST_SEEDS = 5
TOO_FEW = "too few to tell"
SUPPORTED = "supported"
UNSUPPORTED = "not supported"
REVERSED = "reversed"

_NAMES = {
    "heldout_accuracy": "Held-out accuracy",
    "loss": "Training loss",
    "crossentropy": "Cross entropy in training",
    "focal": "Focal loss in training",
}

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the measurements say of a claim.

    Attributes:
        claim: The claim.
        sentence: The numbers behind the verdict.
        verdict: One of the four words above.
        seeds: Seeds at which both arms were measured.
        differences: The arm less the other at each seed; accuracies are between 0 and 1.
        t_interval: Student's t interval of the mean difference at 95 %, or `None` for fewer than
            two seeds.
    """

    claim: Claim
    sentence: str
    verdict: str = TOO_FEW
    seeds: tuple[int, ...] = ()
    differences: tuple[float, ...] = ()
    t_interval: Interval | None = None

    @property
    def mean_difference(self) -> float | None:
        """Mean of the differences, or `None` without any."""
        return fmean(self.differences) if self.differences else None

    @property
    def is_open(self) -> bool:
        """Whether more seeds may lead to another verdict."""
        return self.verdict in (TOO_FEW, UNSUPPORTED)

    @property
    def seeds_needed(self) -> int | None:
        """How many seeds would decide, were all like these; `None` if over 100, or not known."""
        if self.mean_difference is None:
            return None
        distance = abs(self.mean_difference)
        if self.claim.expect == "no higher":
            distance = max(self.claim.margin - self.mean_difference, self.mean_difference)
        needed = values_needed(self.differences, distance)
        return needed and max(needed, LEAST_SEEDS)

    @property
    def sign_flip_p(self) -> float | None:
        """p-value of the differences if their signs were exchangeable, or `None` without any."""
        return sign_flip_p(self.differences) if self.differences else None


def verdicts(experiment: Experiment, chosen: Mapping[Run, Record]) -> list[Verdict]:
    """Return the verdict on each claim of an experiment, from the record of each run.

    A claim is tested on the differences at the same seeds: it is *supported* or *reversed* if the
    t interval of their mean lies on one side of 0 (or of the margin), else *not supported*.
    """
    arms = {arm.name: arm for arm in experiment.arms}
    return [
        _verdict(claim, arms[claim.arm], arms[claim.against], chosen) for claim in experiment.claims
    ]


def _verdict(claim: Claim, arm: Arm, against: Arm, chosen: Mapping[Run, Record]) -> Verdict:
    ours, others = _finished(arm, chosen), _finished(against, chosen)
    epoch = claim.epoch or arm.settings.all_epochs
    other_epoch = claim.against_epoch or against.settings.all_epochs
    seeds = tuple(sorted(set(ours) & set(others)))
    pairs, said = [(ours[seed], others[seed]) for seed in seeds], ""
    if claim.quantity == "heldout_accuracy":
        right = [(_right(mine, epoch), _right(other, other_epoch)) for mine, other in pairs]
        if not all(len(images) for pair in right for images in pair):
            return Verdict(claim=claim, sentence="There are no held-out images.")
        values = [(float(mine.mean()), float(other.mean())) for mine, other in right]
        said = f" {_mcnemar(right)}" if seeds else ""
    else:
        curves = [[getattr(record.history, claim.quantity) for record in pair] for pair in pairs]
        values = [(mine[epoch - 1], other[other_epoch - 1]) for mine, other in curves]
    differences = tuple(a - b for a, b in values)
    interval = t_interval(differences)
    return Verdict(
        claim=claim,
        sentence=_sentence(claim, values, differences, interval) + said,
        verdict=_word(claim, differences, interval),
        seeds=seeds,
        differences=differences,
        t_interval=interval,
    )


def _finished(arm: Arm, chosen: Mapping[Run, Record]) -> dict[int, Record]:
    """Return the records that reached the end of an arm, by seed."""
    return {
        run.seed: record
        for run, record in chosen.items()
        if run.covers(arm.settings) and arm.settings.all_epochs in record.scores
    }


def _right(record: Record, epoch: int) -> np.ndarray:
    """Return which held-out images were given their class."""
    return np.asarray(record.scores[epoch].heldout == record.heldout_labels)


def _word(claim: Claim, differences: Sequence[float], interval: Interval | None) -> str:
    if len(differences) < LEAST_SEEDS or interval is None:
        return TOO_FEW
    low, high = interval
    holds, opposite = {
        "higher": (low > 0, high < 0),
        "lower": (high < 0, low > 0),
        "no higher": (high <= claim.margin, low > 0),
    }[claim.expect]
    return SUPPORTED if holds else REVERSED if opposite else UNSUPPORTED


def _sentence(
    claim: Claim,
    values: Sequence[tuple[float, float]],
    differences: Sequence[float],
    interval: Interval | None,
) -> str:
    """Return both means, their difference with its interval, the number of seeds, and p."""
    if not differences:
        return "No seed has both arms."
    # A difference of losses may be far smaller than the losses: it gets two digits of its own.
    scale, digits, apart, unit = 1, ".4f", "+.2g", ""
    if claim.quantity == "heldout_accuracy":
        scale, digits, apart, unit = 100, ".2f", "+.2f", " points"
    mean, other_mean = (fmean(scale * v for v in side) for side in zip(*values, strict=True))
    side, other = claim.sides
    words = (
        f"{_NAMES[claim.quantity]}: {side} {mean:{digits}}, {other} {other_mean:{digits}}; "
        f"difference {scale * fmean(differences):{apart}}{unit}"
    )
    if interval:
        low, high = (scale * bound for bound in interval)
        words += f", 95 % interval [{low:{apart}}, {high:{apart}}]"
    count = len(differences)
    words += f", over {count} seed{'s' if count > 1 else ''}"
    if count >= LEAST_SEEDS:
        words += f" (sign-flip p = {sign_flip_p(differences):.2g})"
    return f"{words}."


def _mcnemar(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Say at how many seeds McNemar's test tells the two classifiers apart, and which is ahead."""
    better = worse = 0
    for right, other_right in pairs:
        only, only_other = int((right & ~other_right).sum()), int((other_right & ~right).sum())
        if mcnemar_p(only, only_other) <= 0.05:
            better += only > only_other
            worse += only < only_other
    undecided = len(pairs) - better - worse
    seeds = "seed" if better == 1 else "seeds"
    return (
        f"McNemar's test: better at {better} {seeds}, worse at {worse}, undecided at {undecided}."
    )
