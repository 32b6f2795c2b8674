"""Experiments as data: a TOML file becomes an Experiment with its Arms, or an error naming it."""

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mnist_keras.training.settings import ExperimentError, Settings, check_number, check_word

# In the order of the original's sections; `mnist-keras run` without a name runs these.
ORIGINAL_TABLES = ("epochs", "architecture", "loss", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of a table: its settings and what the report says about it.

    Attributes:
        name: As the table shows it.
        settings: What is trained.
        reported_accuracy: Percent of the original's 100 test images, or `None`.
        reported_loss: Training loss of each epoch; empty where the report has none.
    """

    name: str
    settings: Settings
    reported_accuracy: float | None = None
    reported_loss: tuple[float, ...] = ()


QUANTITIES = ("heldout_accuracy", "loss", "crossentropy", "focal")
EXPECTATIONS = ("higher", "lower", "no higher")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the report says of two arms, in a form that can be tested seed by seed.

    Attributes:
        text: The claim in words.
        arm, against: Names of the arms that are compared; they may be the same.
        quantity: `"heldout_accuracy"`, the training loss `"loss"`, or `"crossentropy"` or
            `"focal"`, which are measured in training whatever the loss is.
        expect: What `arm` is said to be: `"higher"`, `"lower"` or `"no higher"` than `against`.
        epoch, against_epoch: Epochs of a loss; by default the last one of the arm.
        margin: How much higher still counts as "no higher".
    """

    text: str
    arm: str
    against: str
    quantity: str = "heldout_accuracy"
    expect: str = "higher"
    epoch: int | None = None
    against_epoch: int | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_word("quantity", self.quantity, QUANTITIES)
        check_word("expect", self.expect, EXPECTATIONS)
        check_number("margin", self.margin)
        for name in ("text", "arm", "against"):
            if not isinstance(getattr(self, name), str):
                raise ExperimentError(f"`{name}` must be a str")
        for name in ("epoch", "against_epoch"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ExperimentError(f"`{name}` must be an integer >= 1. Received: {value!r}")
            if value is not None and self.quantity == "heldout_accuracy":
                raise ExperimentError(f"`{name}` belongs to a loss, not to the held-out accuracy")

    @property
    def sides(self) -> tuple[str, str]:
        """What is compared, in words: both arms, each with its epoch if one is given."""

        def words(arm: str, epoch: int | None) -> str:
            return f"{arm} (epoch {epoch})" if epoch else arm

        return words(self.arm, self.epoch), words(self.against, self.against_epoch)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One table of the report, or one question it left open."""

    name: str
    title: str
    section: str
    claim: str
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...] = ()


def folder() -> Path:
    """Return the folder of the built-in experiments: in an installed wheel, or in the checkout."""
    installed = Path(__file__).parent
    return installed if any(installed.glob("*.toml")) else installed.parents[1] / "experiments"


def built_in() -> dict[str, Path]:
    """Return the built-in experiments by name, the original's tables first."""
    paths = {path.stem: path for path in sorted(folder().glob("*.toml"))}
    return {name: paths[name] for name in dict.fromkeys([*ORIGINAL_TABLES, *paths])}


def find(names: Iterable[str]) -> list[Experiment]:
    """Return the experiments that the names ask for, each once.

    Args:
        names: Names of built-in experiments, `"all"` of them, or paths of TOML files. No
            name means the original's tables.

    Raises:
        ExperimentError: If a name is unknown or a file is wrong.
    """
    known = built_in()
    paths: list[Path] = []
    for name in list(names) or ORIGINAL_TABLES:
        if name == "all":
            paths += known.values()
        elif name.endswith(".toml"):
            paths.append(Path(name))
        else:
            check_word("experiment", name, [*known, "all"])
            paths.append(known[name])
    experiments = [load(path) for path in dict.fromkeys(paths)]
    found = [experiment.name for experiment in experiments]
    if twice := {name for name in found if found.count(name) > 1}:
        raise ExperimentError(f"two experiments are called {twice.pop()!r}; rename a file")
    return experiments


def load(path: Path) -> Experiment:
    """Return the experiment of a TOML file.

    The file has `title`, `section`, `claim`, the `[settings]` that all arms share, and `[[arms]]`,
    each with a `name`, the settings that differ, and what the report says of it. `[[claims]]` say
    which arms are tested against which (see `Claim`).

    Raises:
        ExperimentError: If the file cannot be read, or has an unknown key or value.
    """
    try:
        return from_document(path.stem, tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: not a TOML file: {error}") from error
    except ExperimentError as error:
        raise ExperimentError(f"{path}: {error}") from error


_SETTINGS = tuple(field.name for field in fields(Settings))
_CLAIM = tuple(field.name for field in fields(Claim))


def to_document(experiment: Experiment) -> dict[str, Any]:
    """Return what an equal experiment's file would hold."""

    def given(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value not in (None, ())}

    return {
        "title": experiment.title,
        "section": experiment.section,
        "claim": experiment.claim,
        "arms": [
            given(
                {
                    "name": arm.name,
                    **asdict(arm.settings),
                    "reported_accuracy": arm.reported_accuracy,
                    "reported_loss": list(arm.reported_loss),
                }
            )
            for arm in experiment.arms
        ],
        "claims": [given(asdict(claim)) for claim in experiment.claims],
    }


def from_document(name: str, document: dict[str, Any]) -> Experiment:
    """Return the experiment of a file's contents.

    Raises:
        ExperimentError: If there is an unknown key or value.
    """
    _check_keys(document, ("title", "section", "claim", "settings", "arms", "claims"))
    shared = _get(document, "settings", dict, {})
    _check_keys(shared, _SETTINGS)
    tables = _get(document, "arms", list)
    arms = []
    for number, table in enumerate(tables, 1):
        try:
            arms.append(_arm(table, shared))
        except ExperimentError as error:
            raise ExperimentError(f"arm {number}: {error}") from error
    names = [arm.name for arm in arms]
    if not arms or len(set(names)) < len(names):
        raise ExperimentError(f"expected [[arms]] of different names. Received: {names}")
    return Experiment(
        name=name,
        title=_get(document, "title", str),
        section=_get(document, "section", str, ""),
        claim=_get(document, "claim", str, ""),
        arms=tuple(arms),
        claims=tuple(_claim(table, arms) for table in _get(document, "claims", list, [])),
    )


def _claim(table: Any, arms: list[Arm]) -> Claim:
    if not isinstance(table, dict):
        raise ExperimentError(f"expected [[claims]] to be tables. Received: {table!r}")
    _check_keys(table, _CLAIM)
    for key in ("text", "arm", "against"):
        _get(table, key, str)
    claim = Claim(**table)
    by_name = {arm.name: arm.settings for arm in arms}
    for name, epoch in ((claim.arm, claim.epoch), (claim.against, claim.against_epoch)):
        check_word("arm", name, by_name)
        settings = by_name[name]
        if claim.quantity != "heldout_accuracy" and not settings.is_one_training:
            raise ExperimentError(
                f"a claim asks for the loss of {name!r}, which is not one training"
            )
        if epoch is not None and epoch > settings.epochs:
            raise ExperimentError(
                f"a claim asks for epoch {epoch} of {settings.epochs} of {name!r}"
            )
    return claim


def _arm(table: Any, shared: dict[str, Any]) -> Arm:
    if not isinstance(table, dict):
        raise ExperimentError(f"expected a table. Received: {table!r}")
    own = ("name", "reported_accuracy", "reported_loss")
    _check_keys(table, (*own, *_SETTINGS))
    accuracy = table.get("reported_accuracy")
    if accuracy is not None and check_number("reported_accuracy", accuracy) > 100:
        raise ExperimentError(f"`reported_accuracy` is in percent. Received: {accuracy}")
    losses = _get(table, "reported_loss", list, [])
    return Arm(
        name=_get(table, "name", str),
        settings=Settings(**(shared | {k: v for k, v in table.items() if k not in own})),
        reported_accuracy=accuracy,
        reported_loss=tuple(check_number("reported_loss", loss) for loss in losses),
    )


def _check_keys(table: dict[str, Any], known: Iterable[str]) -> None:
    for key in table:
        check_word("key", key, known)


_REQUIRED: Any = object()


def _get(table: dict[str, Any], key: str, kind: type, default: Any = _REQUIRED) -> Any:
    value = table.get(key, default)
    if value is _REQUIRED:
        raise ExperimentError(f"`{key}` is missing")
    if not isinstance(value, kind):
        raise ExperimentError(f"`{key}` must be of type {kind.__name__}. Received: {value!r}")
    return value
