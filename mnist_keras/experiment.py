"""Experiments as data: TOML files become Experiments, Arms and Runs, and a plan trains each Run once."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

# The words of a TOML file. `models.py`, `losses.py` and `optimizers.py` say what they mean.
MODELS = {"basic_net": "sigmoid", "cnn": "relu"}  # each with the activation of the report
LOSSES = ("crossentropy", "focal")
OPTIMIZERS = ("adam", "radam", "sgd")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid")

# In the order of the report's sections; `mnist-keras run` without a name runs these.
REPORT_TABLES = ("epochs", "architecture", "loss", "optimizer")


class ExperimentError(ValueError):
    """An experiment that is unknown or whose file is wrong. The message names the file."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides a training, apart from the data, the seed and the machine.

    Attributes:
        model: `"basic_net"` or `"cnn"`.
        activation: Activation of the hidden layers; `None` is the model's own.
        loss: `"crossentropy"` or `"focal"`.
        gamma: Focusing parameter of the focal loss; `None` for cross entropy.
        alpha: Scale of the focal loss; `None` for cross entropy.
        optimizer: `"adam"`, `"radam"` or `"sgd"`.
        learning_rate: Constant learning rate.
        epochs: Times the training images are seen.
        batch_size: Images a step.
        validation_split: Share of the images that is the test set.
        stratify: Whether the test set takes that share of each class.
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
        """Refuse what cannot be trained, and write defaults out, so that equal is equal."""
        _choice("model", self.model, tuple(MODELS))
        _choice("loss", self.loss, LOSSES)
        _choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.activation is None:
            object.__setattr__(self, "activation", MODELS[self.model])
        _choice("activation", self.activation, ACTIVATIONS)
        for name, default in (("gamma", 2.0), ("alpha", 1.0)):
            value = getattr(self, name)
            if self.loss == "focal":
                object.__setattr__(self, name, float(_number(name, default if value is None else value, 0)))
            elif value is not None:
                raise ExperimentError(f"`{name}` belongs to loss = 'focal'. Received: loss='{self.loss}'")
        object.__setattr__(self, "learning_rate", float(_number("learning_rate", self.learning_rate, 0)))
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ExperimentError(f"`{name}` must be an integer >= 1. Received: {name}={value!r}")
        if not 0 < _number("validation_split", self.validation_split, 0) < 1:
            raise ExperimentError(
                "`validation_split` must be between 0 and 1. "
                f"Received: validation_split={self.validation_split!r}"
            )
        if not isinstance(self.stratify, bool):
            raise ExperimentError(f"`stratify` must be true or false. Received: stratify={self.stratify!r}")


def _choice(name: str, value: Any, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ExperimentError(f"unknown {name} {value!r}. {_nearest(value, choices)}")


def _number(name: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise ExperimentError(f"`{name}` must be a number >= {least}. Received: {name}={value!r}")
    return value


def _nearest(word: Any, known: Iterable[str]) -> str:
    """Return a sentence that points to the known word nearest to `word`."""
    known = list(known)
    near = difflib.get_close_matches(str(word), known, 1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of a table: its settings and what the report says about it.

    Attributes:
        reported_accuracy: Percent of the 100 test images, or `None`.
        reported_loss: Training loss of each epoch; empty where the report has none.
    """

    name: str
    settings: Settings
    reported_accuracy: float | None = None
    reported_loss: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One table of the report, or one question it left open."""

    name: str
    title: str
    section: str
    claim: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: everything that decides its numbers but the data and the versions.

    Attributes:
        settings: With as many epochs as the longest arm it serves.
        seed: Decides draw, split, initial weights, batch order and dropout.
        scored_at: Epochs after which the test and held-out images are classified.
    """

    settings: Settings
    seed: int
    scored_at: tuple[int, ...] = field(compare=False)

    def covers(self, arm: Arm) -> bool:
        """Whether the arm's training is the first epochs of this one."""
        epochs = arm.settings.epochs
        return epochs <= self.settings.epochs and arm.settings == replace(
            self.settings, epochs=epochs
        )


def plan(experiments: Iterable[Experiment], seeds: Iterable[int]) -> list[Run]:
    """Return each training once: equal arms share a Run, a shorter arm is part of a longer one.

    No setting changes during a training, so an arm of 20 epochs is the first 20 epochs of the same
    seed's 100. Runs of equal settings follow each other, so that one compilation serves all seeds.
    """
    epochs: dict[Settings, set[int]] = {}
    for experiment in experiments:
        for arm in experiment.arms:
            key = replace(arm.settings, epochs=1)
            epochs.setdefault(key, set()).add(arm.settings.epochs)
    return [
        Run(settings=replace(key, epochs=max(found)), seed=seed, scored_at=tuple(sorted(found)))
        for key, found in epochs.items()
        for seed in seeds
    ]


def fingerprint(run: Run, data: str, versions: Mapping[str, str]) -> str:
    """Return the name of a run: a hash of everything that decides its numbers."""
    decides = {"settings": asdict(run.settings), "seed": run.seed, "data": data, "versions": versions}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def folder() -> Path:
    """Return the folder of the built-in experiments: in an installed wheel, or in the checkout."""
    installed = Path(__file__).parent / "experiments"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "experiments"


def built_in() -> dict[str, Path]:
    """Return the built-in experiments by name, the report's tables first."""
    paths = {path.stem: path for path in sorted(folder().glob("*.toml"))}
    order = [*REPORT_TABLES, *(name for name in paths if name not in REPORT_TABLES)]
    return {name: paths[name] for name in order}


def find(names: Iterable[str]) -> list[Experiment]:
    """Return the experiments that the names ask for, each once.

    Args:
        names: Names of built-in experiments, `"all"` of them, or paths of TOML files. No
            name means the report's tables.

    Raises:
        ExperimentError: If a name is unknown or a file is wrong.
    """
    known = built_in()
    paths: list[Path] = []
    for name in list(names) or list(REPORT_TABLES):
        if name == "all":
            paths += known.values()
        elif name in known:
            paths.append(known[name])
        elif name.endswith(".toml"):
            paths.append(Path(name))
        else:
            raise ExperimentError(f"unknown experiment {name!r}. {_nearest(name, [*known, 'all'])}")
    experiments = [load(path) for path in dict.fromkeys(paths)]
    names = [experiment.name for experiment in experiments]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ExperimentError(f"two experiments are called {twice.pop()!r}; rename one of the files")
    return experiments


_EXPERIMENT_KEYS = ("title", "section", "claim", "settings", "arms")
_ARM_KEYS = ("name", "reported_accuracy", "reported_loss")
_SETTINGS_KEYS = tuple(f.name for f in fields(Settings))


def load(path: Path) -> Experiment:
    """Return the experiment of a TOML file.

    The file has `title`, `section`, `claim`, the `[settings]` all arms share, and `[[arms]]`,
    each with a `name`, the settings that differ, and what the report says of it.

    Raises:
        ExperimentError: If the file cannot be read, or has an unknown key or value.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
        return _experiment(path.stem, document)
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: not a TOML file: {error}") from error
    except ExperimentError as error:
        raise ExperimentError(f"{path}: {error}") from error


def _experiment(name: str, document: dict[str, Any]) -> Experiment:
    _known_keys(document, _EXPERIMENT_KEYS)
    shared = _get(document, "settings", dict, {})
    _known_keys(shared, _SETTINGS_KEYS, "[settings]: ")
    arms = [_arm(number, arm, shared) for number, arm in enumerate(_get(document, "arms", list), 1)]
    if not arms:
        raise ExperimentError("no [[arms]]")
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ExperimentError(f"two arms have one name: {', '.join(names)}")
    return Experiment(
        name=name,
        title=_get(document, "title", str),
        section=_get(document, "section", str, ""),
        claim=_get(document, "claim", str, ""),
        arms=tuple(arms),
    )


def _arm(number: int, arm: Any, shared: dict[str, Any]) -> Arm:
    where = f"arm {number}: "
    if not isinstance(arm, dict):
        raise ExperimentError(f"{where}expected a table. Received: {arm!r}")
    _known_keys(arm, (*_ARM_KEYS, *_SETTINGS_KEYS), where)
    try:
        reported = _get(arm, "reported_accuracy", float, None)
        if reported is not None and not 0 <= reported <= 100:
            raise ExperimentError(f"`reported_accuracy` is not a percentage: {reported}")
        loss = [_number("reported_loss", value, 0) for value in _get(arm, "reported_loss", list, [])]
        own = {key: value for key, value in arm.items() if key not in _ARM_KEYS}
        return Arm(
            name=_get(arm, "name", str),
            settings=Settings(**(shared | own)),
            reported_accuracy=reported,
            reported_loss=tuple(loss),
        )
    except ExperimentError as error:
        raise ExperimentError(f"{where}{error}") from error


def _known_keys(table: dict[str, Any], known: Iterable[str], where: str = "") -> None:
    for key in table:
        if key not in known:
            raise ExperimentError(f"{where}unknown key {key!r}. {_nearest(key, known)}")


_REQUIRED: Any = object()


def _get(table: dict[str, Any], key: str, kind: type, default: Any = _REQUIRED) -> Any:
    """Return a value of a TOML table, checked for its type; an integer counts as a float."""
    value = table.get(key, default)
    if value is _REQUIRED:
        raise ExperimentError(f"`{key}` is missing")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value is not default and not isinstance(value, kind):
        raise ExperimentError(f"`{key}` must be of type {kind.__name__}. Received: {value!r}")
    return value
