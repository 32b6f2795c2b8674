"""Experiments as data: a TOML file becomes an Experiment with its Arms, or an error naming it."""

import codecs
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mnist_keras._foundations.files import escaped, reason
from mnist_keras.training.settings import (
    Count,
    ExperimentError,
    ExperimentFields,
    Number,
    Settings,
    check_word,
)

# In the order of the original's sections; `mnist-keras run` without a name runs these.
ORIGINAL_TABLES = ("epochs", "architecture", "loss", "optimizer")

# Text that stays on one line, in a terminal and in every kind of table.
Line = Annotated[str, AfterValidator(lambda text: escaped(" ".join(text.split())))]


class Arm(ExperimentFields):
    """One row of a table: its settings and what the original says about it.

    In a file, the settings stand beside the name.
    """

    name: Line
    """The row's name in the table."""
    settings: Settings
    """What is trained."""
    reported_accuracy: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percent of the original's 100 test images."""
    reported_loss: Annotated[tuple[Number, ...], Field(strict=False)] = ()
    """The original's training loss of each epoch."""

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, given: Any) -> Any:
        if not isinstance(given, dict) or isinstance(given.get("settings"), Settings):
            return given
        _check_keys(given, [*cls.model_fields, *Settings.model_fields], but="settings")
        settings = {key: given[key] for key in given if key in Settings.model_fields}
        own = {key: given[key] for key in given if key not in settings}
        return {**own, "settings": Settings(**settings)}

    @model_serializer(mode="wrap")
    def _to_file(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        own = dump(self)
        return {**own.pop("settings"), **own}


class Claim(ExperimentFields):
    """What the original says of two arms, in a form that can be tested seed by seed."""

    text: Line
    """The claim in words."""
    arm: Line
    """The name of the arm that the claim is about."""
    against: Line
    """The name of the arm that it is compared with; it may be the same."""
    quantity: Literal["heldout_accuracy", "loss", "crossentropy", "focal"] = "heldout_accuracy"
    """What is compared. loss is the training loss; crossentropy and focal are measured in training
    whatever the loss is."""
    expect: Literal["higher", "lower", "no higher"] = "higher"
    """What the arm is said to be."""
    epoch: Count | None = None
    """Epoch of the arm's loss; by default its last one."""
    against_epoch: Count | None = None
    """Epoch of the other arm's loss; by default its last one."""
    margin: Number = 0.0
    """How much higher still counts as "no higher"."""

    @model_validator(mode="after")
    def _check_epochs(self) -> Self:
        for name in ("epoch", "against_epoch"):
            if getattr(self, name) is not None and self.quantity == "heldout_accuracy":
                raise ValueError(f"`{name}` belongs to a loss, not to the held-out accuracy")
        return self

    @property
    def sentence(self) -> str:
        """The claim as a sentence, which ends in a full stop."""
        return self.text if self.text.endswith((".", "!", "?")) else f"{self.text}."

    @property
    def sides(self) -> tuple[str, str]:
        """What is compared, in words: both arms, each with its epoch if one is given."""

        def words(arm: str, epoch: int | None) -> str:
            return f"{arm} (epoch {epoch})" if epoch else arm

        return words(self.arm, self.epoch), words(self.against, self.against_epoch)


class Experiment(ExperimentFields):
    """One table of the original, or one question it left open."""

    name: Line
    """The name of its file."""
    title: Line
    """The heading of its table."""
    section: Line = ""
    """Where the original treats it."""
    claim: Line = ""
    """What the original says about it."""
    arms: Annotated[tuple[Arm, ...], Field(strict=False, min_length=1)]
    """The rows of the table."""
    claims: Annotated[tuple[Claim, ...], Field(strict=False)] = ()
    """What is tested on the arms."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        settings = {arm.name: arm.settings for arm in self.arms}
        names = [arm.name for arm in self.arms]
        if len(settings) < len(names):
            raise ValueError(f"expected [[arms]] of different names. Received: {names}")
        for claim in self.claims:
            for name, epoch in ((claim.arm, claim.epoch), (claim.against, claim.against_epoch)):
                check_word("arm", name, settings)
                of_arm = settings[name]
                if claim.quantity != "heldout_accuracy" and not of_arm.is_one_stage:
                    raise ValueError(
                        f"a claim asks for the loss of {name!r}, which is not one training"
                    )
                if epoch is not None and epoch > of_arm.epochs:
                    raise ValueError(
                        f"a claim asks for epoch {epoch} of {of_arm.epochs} of {name!r}"
                    )
        return self


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
        if name.endswith(".toml"):
            paths.append(Path(name))
        else:
            check_word("experiment", name, [*known, "all"])
            paths += known.values() if name == "all" else [known[name]]
    experiments = [load(path) for path in dict.fromkeys(paths)]
    found = [experiment.name for experiment in experiments]
    if twice := {name for name in found if found.count(name) > 1}:
        raise ExperimentError(f"two experiments are called {twice.pop()!r}; rename a file")
    return experiments


def load(path: Path) -> Experiment:
    """Return the experiment of a TOML file.

    The file has the fields of `Experiment` but its name, and the `[settings]` that all arms share.
    Each of its `[[arms]]` has the fields of `Arm`, with the settings that differ beside them.

    Raises:
        ExperimentError: If the file cannot be read, or has an unknown key or value.
    """
    try:
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ExperimentError("not a TOML file: it is in UTF-16; save it as UTF-8")
        text = content.decode("utf-8-sig")  # Windows writes a byte order mark
        if re.search(r"^\s*\[\[claim\]\]", text, re.MULTILINE):
            raise ExperimentError("[[claim]] is not a table; write [[claims]]")
        document = tomllib.loads(text)
        _check_keys(document, [*Experiment.model_fields, "settings"], but="name")
        shared, arms = document.pop("settings", {}), document.get("arms")
        if not isinstance(shared, dict):
            raise ExperimentError(f"`settings` must be a table. Received: settings={shared!r}")
        _check_keys(shared, Settings.model_fields)
        if isinstance(arms, list):
            document["arms"] = [shared | arm if isinstance(arm, dict) else arm for arm in arms]
        return Experiment(**document, name=path.stem)
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {reason(error)}") from error
    except ExperimentError as error:
        raise ExperimentError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ExperimentError(f"{path}: not an experiment: it is nested too deep") from error
    except ValueError as error:  # also numbers of more digits than Python reads
        raise ExperimentError(f"{path}: not a TOML file: {reason(error)}") from error


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of an experiment's file, for editors that complete and check it."""
    schema = Experiment.model_json_schema()
    arm, settings = (schema["$defs"][name] for name in ("Arm", "Settings"))
    arm["required"].remove("settings")
    del arm["properties"]["settings"]
    arm["properties"] |= settings["properties"]
    schema["required"].remove("name")
    del schema["properties"]["name"]
    schema["properties"]["settings"] = {
        "$ref": "#/$defs/Settings",
        "description": "The settings that all arms share.",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _check_keys(table: Iterable[str], known: Iterable[str], but: str = "") -> None:
    for key in table:
        check_word("key", key, [name for name in known if name != but])
