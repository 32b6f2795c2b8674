"""Experiments as data: a TOML file becomes an Experiment with its Arms, or an error naming it."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mnist_keras.runs import ExperimentError, Settings, check_number, check_word

# In the order of the report's sections; `mnist-keras run` without a name runs these.
REPORT_TABLES = ("epochs", "architecture", "loss", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of a table: its settings and what the report says about it.

    Attributes:
        name: As the table shows it.
        settings: What is trained.
        reported_accuracy: Percent of the report's 100 test images, or `None`.
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


def folder() -> Path:
    """Return the folder of the built-in experiments: in an installed wheel, or in the checkout."""
    installed = Path(__file__).parent / "experiments"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "experiments"


def built_in() -> dict[str, Path]:
    """Return the built-in experiments by name, the report's tables first."""
    paths = {path.stem: path for path in sorted(folder().glob("*.toml"))}
    return {name: paths[name] for name in dict.fromkeys([*REPORT_TABLES, *paths])}


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
    for name in list(names) or REPORT_TABLES:
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
    each with a `name`, the settings that differ, and what the report says of it.

    Raises:
        ExperimentError: If the file cannot be read, or has an unknown key or value.
    """
    try:
        return _experiment(path.stem, tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: not a TOML file: {error}") from error
    except ExperimentError as error:
        raise ExperimentError(f"{path}: {error}") from error


_SETTINGS = tuple(field.name for field in fields(Settings))


def _experiment(name: str, document: dict[str, Any]) -> Experiment:
    _check_keys(document, ("title", "section", "claim", "settings", "arms"))
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
    )


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
