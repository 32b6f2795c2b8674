"""Settings and Runs: what decides a training, and a plan that trains each Run once."""

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

# The words of an experiment's file; `training.compiled_model` says what they build.
MODELS = {"basic_net": "sigmoid", "cnn": "relu"}  # each with the report's activation
LOSSES = ("crossentropy", "focal")
OPTIMIZERS = ("adam", "radam", "sgd")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid")


class ExperimentError(ValueError):
    """An experiment that is unknown, or whose file or settings are wrong."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides a training, apart from the data, the seed and the machine.

    Arguments left out are written out, so that equal trainings have equal settings.

    Attributes:
        model: `"basic_net"` or `"cnn"`.
        activation: Of the hidden layers. Defaults to the model's own.
        loss: `"crossentropy"` or `"focal"`.
        gamma: Focusing parameter of the focal loss, 2 by default; `None` with cross entropy.
        alpha: Scale of the focal loss, 1 by default; `None` with cross entropy.
        optimizer: `"adam"`, `"radam"` or `"sgd"`.
        learning_rate: Constant learning rate.
        epochs: How often the training images are seen.
        batch_size: Images a step.
        validation_split: Share of the images that is the test set.
        stratify: Whether the test set takes that share of each class.

    Raises:
        ExperimentError: If a value is unknown, out of range or of the wrong type.
    """

    model: str = "cnn"
    activation: str | None = None
    loss: str = "focal"
    gamma: float | None = None
    alpha: float | None = None
    optimizer: str = "adam"
    learning_rate: float = 0.001
    epochs: int = 10
    batch_size: int = 100
    validation_split: float = 0.2
    stratify: bool = True

    def __post_init__(self) -> None:
        for name, known in (("model", MODELS), ("loss", LOSSES), ("optimizer", OPTIMIZERS)):
            check_word(name, getattr(self, name), known)
        self._default("activation", MODELS[self.model])
        check_word("activation", self.activation, ACTIVATIONS)
        if self.loss == "focal":
            self._default("gamma", 2.0)
            self._default("alpha", 1.0)
        elif self.gamma is not None or self.alpha is not None:
            raise ExperimentError("`gamma` and `alpha` belong to loss = 'focal'")
        for name in ("gamma", "alpha", "learning_rate", "validation_split"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_number(name, value))
        if not 0 < self.validation_split < 1:
            raise ExperimentError(
                "`validation_split` must be between 0 and 1. "
                f"Received: validation_split={self.validation_split!r}"
            )
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ExperimentError(
                    f"`{name}` must be an integer >= 1. Received: {name}={value!r}"
                )
        if type(self.stratify) is not bool:
            raise ExperimentError(
                f"`stratify` must be a bool. Received: stratify={self.stratify!r}"
            )

    def _default(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)


def check_word(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse a word that is not known, and point to the nearest one that is."""
    known = list(known)
    if value in known:
        return
    near = difflib.get_close_matches(str(value), known, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}"
    raise ExperimentError(f"unknown {name} {value!r}. {hint}")


def check_number(name: str, value: Any) -> float:
    """Return a finite number >= 0 as a float, or refuse it."""
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ExperimentError(f"`{name}` must be a number >= 0. Received: {name}={value!r}")
    return float(value)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: everything that decides its numbers but the data and the versions.

    Attributes:
        settings: What is trained.
        seed: Decides draw, split, initial weights, batch order and dropout.
        scored_at: Epochs after which the test and held-out images are classified, ascending.
    """

    settings: Settings
    seed: int
    scored_at: tuple[int, ...] = field(compare=False)

    @property
    def title(self) -> str:
        """The run in a few words, with the settings that are not the report's."""
        s = self.settings
        words = [s.model, s.activation, s.loss, s.optimizer, f"{s.epochs} epochs"]
        usual = Settings(**{name: getattr(s, name) for name in ("model", "loss")})
        for name in ("gamma", "alpha", "learning_rate", "batch_size", "validation_split"):
            if (value := getattr(s, name)) != getattr(usual, name):
                words.append(f"{name} {value:g}")
        if not s.stratify:
            words.append("not stratified")
        return f"{' '.join(map(str, words))} seed {self.seed}"

    def covers(self, settings: Settings) -> bool:
        """Whether a training of `settings` is the first epochs of this one."""
        epochs = settings.epochs
        same = replace(self.settings, epochs=epochs) == settings
        return same and epochs <= self.settings.epochs


def plan(arms: Iterable[Settings], seeds: Iterable[int]) -> list[Run]:
    """Return the Runs that cover the settings of all arms, each training once.

    Equal arms share a Run. No setting changes during a training, so an arm of 20 epochs is the
    first 20 epochs of the same seed's 100. Runs of one arm follow each other: one compilation
    serves all seeds.
    """
    ends: dict[Settings, set[int]] = {}
    for settings in arms:
        ends.setdefault(replace(settings, epochs=1), set()).add(settings.epochs)
    seeds = list(seeds)
    return [
        Run(
            settings=replace(settings, epochs=max(epochs)),
            seed=seed,
            scored_at=tuple(sorted(epochs)),
        )
        for settings, epochs in ends.items()
        for seed in seeds
    ]


def fingerprint(run: Run, data: str, versions: Mapping[str, str]) -> str:
    """Return the name of a run: a hash of everything that decides its numbers."""
    decides = {
        "settings": asdict(run.settings),
        "seed": run.seed,
        "data": data,
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
