"""Directives that read the keys of an experiment's file, and the rules between them, off the code.

`{keys} Settings` makes a table of the settings: key, value, default and meaning.
`{rules} cnn` lists the rules between settings of a network, `{rules} svm` those of no network.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mnist_keras.experiments.experiment import json_schema
from mnist_keras.training import Settings

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _value(key: str, node: Mapping[str, Any]) -> str:
    """Say what a key may hold: tables, words, or a type with its bounds."""
    if "anyOf" in node:  # one kind of value, or null: the key is left out
        (node,) = (part for part in node["anyOf"] if part.get("type") != "null")
    if "$ref" in node:
        return f"table `[{key}]`"
    if "enum" in node:
        return ", ".join(f"`{json.dumps(word)}`" for word in node["enum"])
    if node["type"] == "array":
        items = node["items"]
        return f"tables `[[{key}]]`" if "$ref" in items else f"list of {_value(key, items)}"
    bounds = [f"{sign} {node[bound]:g}" for bound, sign in _BOUNDS.items() if bound in node]
    return " ".join([node["type"], " and ".join(bounds)]).strip()


def _default(node: Mapping[str, Any]) -> str:
    """Say what a key holds that is left out."""
    value = node.get("default")
    return "–" if value in (None, "", []) else f"`{json.dumps(value)}`"


def _rows(table: str) -> Iterator[list[str]]:
    schema = json_schema()
    node = schema if table == "Experiment" else schema["$defs"][table]
    own = node["properties"]
    if table == "Arm":  # in the file, the settings stand beside its own keys
        own = {key: own[key] for key in own if key not in Settings.model_fields}
    for key, of_key in own.items():
        default = "required" if key in node.get("required", ()) else _default(of_key)
        meaning = " ".join(of_key["description"].split())
        yield [f"`{key}`", _value(key, of_key), default, meaning]


class Keys(SphinxDirective):
    """A table of the keys that a part of an experiment's file may have."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        head = [["key", "value", "default", "meaning"], ["---"] * 4]
        rows = [*head, *_rows(self.arguments[0])]
        (table,) = self.parse_text_to_nodes("\n".join(f"| {' | '.join(row)} |" for row in rows))
        table["classes"].append("keys")
        return [table]


class Rules(SphinxDirective):
    """A list of the rules between the settings of a model."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rules = (rule for _, rule in Settings(model=self.arguments[0])._rules())
        return self.parse_text_to_nodes("\n".join(f"- {rule}." for rule in rules))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("keys", Keys)
    app.add_directive("rules", Rules)
    return {"parallel_read_safe": True}
