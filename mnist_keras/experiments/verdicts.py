"""Each claim of the report against what was measured, seed by seed: a verdict in one word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mnist_keras._foundations.statistics import mcnemar_p, sign_flip_p, t_interval
from mnist_keras.experiments.experiment import Arm, Claim, Experiment
from mnist_keras.training.record import Record
from mnist_keras.training.run import Run

# With fewer pairs even equal signs throughout are no rare chance: p is 0.125 at best.
LEAST_SEEDS = 5
TOO_FEW, SUPPORTED, UNSUPPORTED, REVERSED = (
    "too few to tell",
    "supported",
    "not supported",
    "reversed",
)

_NAMES = {
    "heldout_accuracy": "Held-out accuracy",
    "loss": "Training loss",
    "crossentropy": "Cross entropy in training",
    "focal": "Focal loss in training",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the measurements say of a claim.

    Attributes:
        claim: The claim.
        verdict: One of the four words above.
        sentence: The numbers behind it.
        seeds: Seeds at which both arms were measured.
        differences: Of each seed, the arm less the other; accuracies are between 0 and 1.
        interval: Student's t interval of the mean difference at 95 %, or `None` of fewer than two.
    """

    claim: Claim
    verdict: str
    sentence: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    interval: tuple[float, float] | None


def verdicts(experiment: Experiment, chosen: Mapping[Run, Record]) -> list[Verdict]:
    """Return the verdict on each claim of an experiment, from the record of each Run.

    A claim is tested on the differences of the same seeds: *supported* or *reversed* if the t
    interval of their mean lies on one side of 0 (or of the margin), *not supported* otherwise.
    """
    arms = {arm.name: arm for arm in experiment.arms}
    return [
        _verdict(claim, arms[claim.arm], arms[claim.against], chosen) for claim in experiment.claims
    ]


def _verdict(claim: Claim, arm: Arm, against: Arm, chosen: Mapping[Run, Record]) -> Verdict:
    ours, others = _finished(arm, chosen), _finished(against, chosen)
    seeds = tuple(sorted(set(ours) & set(others)))
    pairs = [
        (
            _value(claim.quantity, ours[seed], claim.epoch or arm.settings.all_epochs),
            _value(
                claim.quantity, others[seed], claim.against_epoch or against.settings.all_epochs
            ),
        )
        for seed in seeds
    ]
    differences = tuple(a - b for a, b in pairs if a is not None and b is not None)
    if len(differences) < len(pairs):
        return Verdict(
            claim=claim,
            verdict=TOO_FEW,
            sentence="There are no held-out images.",
            seeds=(),
            differences=(),
            interval=None,
        )
    interval = t_interval(differences)
    sentence = _sentence(claim, pairs, differences, interval)
    if claim.quantity == "heldout_accuracy" and differences:
        sentence += " " + _mcnemar(
            [(ours[s], others[s]) for s in seeds],
            arm.settings.all_epochs,
            against.settings.all_epochs,
        )
    return Verdict(
        claim=claim,
        verdict=_word(claim, differences, interval),
        sentence=sentence,
        seeds=seeds,
        differences=differences,
        interval=interval,
    )


def _finished(arm: Arm, chosen: Mapping[Run, Record]) -> dict[int, Record]:
    """Return the records that reached the end of an arm, by seed."""
    return {
        run.seed: record
        for run, record in chosen.items()
        if run.covers(arm.settings) and arm.settings.all_epochs in record.scores
    }


def _value(quantity: str, record: Record, epoch: int) -> float | None:
    if quantity == "loss":
        return record.loss[epoch - 1]
    if quantity != "heldout_accuracy":
        return record.losses[quantity][epoch - 1]
    if not len(record.heldout_labels):
        return None
    return float((record.scores[epoch].heldout == record.heldout_labels).mean())


def _word(claim: Claim, differences: Sequence[float], interval: tuple[float, float] | None) -> str:
    if len(differences) < LEAST_SEEDS or interval is None:
        return TOO_FEW
    low, high = interval
    if claim.expect == "lower":
        low, high = -high, -low
    if claim.expect == "no higher":
        if high <= claim.margin:
            return SUPPORTED
        return REVERSED if low > 0 else UNSUPPORTED
    if low > 0:
        return SUPPORTED
    return REVERSED if high < 0 else UNSUPPORTED


def _sentence(
    claim: Claim,
    pairs: Sequence[tuple[float | None, float | None]],
    differences: Sequence[float],
    interval: tuple[float, float] | None,
) -> str:
    """Return both means, their difference with its interval, the number of seeds, and p."""
    if not differences:
        return "No seed has both arms."
    points = claim.quantity == "heldout_accuracy"
    # A difference of losses may be far smaller than the losses: two of its own digits are shown.
    scale, digits, apart, unit = (
        (100, ".2f", "+.2f", " points") if points else (1, ".4f", "+.2g", "")
    )
    mean, other_mean = (
        fmean(scale * v for v in side if v is not None) for side in zip(*pairs, strict=True)
    )
    side, other = claim.sides
    words = (
        f"{_NAMES[claim.quantity]}: {side} {mean:{digits}}, "
        f"{other} {other_mean:{digits}}; "
        f"difference {scale * fmean(differences):{apart}}{unit}"
    )
    if interval:
        low, high = (scale * bound for bound in interval)
        words += f", 95 % interval [{low:{apart}}, {high:{apart}}]"
    count = len(differences)
    words += f", over {count} seed{'s' if count > 1 else ''}"
    if count >= LEAST_SEEDS:
        words += f" (sign-flip p = {sign_flip_p(differences):.2g})"
    return words + "."


def _mcnemar(pairs: Sequence[tuple[Record, Record]], epoch: int, against_epoch: int) -> str:
    """Say at how many seeds McNemar's test tells the two classifiers apart, and which is ahead."""
    better = worse = 0
    for record, other in pairs:
        right = record.scores[epoch].heldout == record.heldout_labels
        other_right = other.scores[against_epoch].heldout == other.heldout_labels
        only, only_other = int((right & ~other_right).sum()), int((other_right & ~right).sum())
        if mcnemar_p(only, only_other) <= 0.05:
            better += only > only_other
            worse += only < only_other
    undecided = len(pairs) - better - worse
    return f"McNemar's test: better at {better} seeds, worse at {worse}, undecided at {undecided}."
