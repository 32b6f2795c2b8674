"""What a training gave: plain numbers and arrays, made by whatever backend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

# Called with the epoch (from 1) and its training loss.
OnEpoch = Callable[[int, float], None]
# Of a network, by path.
Weights = Mapping[str, np.ndarray]


@dataclass
class History:
    """The epochs of a training; those of several, one after the other, are added by `+`.

    Attributes:
        loss: Training loss of each epoch, the mean over its steps.
        accuracy: Training accuracy, between 0 and 1; NaN where there are no labels.
        losses: The same of `"crossentropy"` and of `"focal"`; NaN where there are no labels.
        seconds: Wall-clock seconds, without scoring.
        cpu_seconds: Processor seconds, all threads together.
        initial: Digest of the initial weights; empty if they come from another training.
        masks: Digest of the first epoch's dropout masks.
        batches: Digest of the batches in their order.
        diverged: Whether the last epoch's loss is not finite.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(
        default_factory=lambda: {"crossentropy": [], "focal": []}
    )
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    initial: str = ""
    masks: str = ""
    batches: str = ""
    diverged: bool = False

    def __add__(self, other: "History") -> "History":
        def both(name: str) -> str:
            return "-".join(filter(None, (getattr(self, name), getattr(other, name))))

        return History(
            loss=self.loss + other.loss,
            accuracy=self.accuracy + other.accuracy,
            losses={name: values + other.losses[name] for name, values in self.losses.items()},
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            initial=both("initial"),
            masks=both("masks"),
            batches=both("batches"),
            diverged=self.diverged or other.diverged,
        )


@dataclass(frozen=True)
class Training:
    """One training: the weights its network ended with, and its epochs."""

    weights: Weights
    history: History
