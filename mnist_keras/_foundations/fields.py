"""Records with typed fields: pydantic checks them, and reads and writes them as JSON."""

import difflib
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from textwrap import shorten
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from mnist_keras._foundations.files import escaped


class Fields(BaseModel):
    """A frozen record: no value is converted, no unknown field is taken.

    The sentence below a field describes it, here and in JSON Schema, help texts and docs.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )

    def replace(self, **changes: Any) -> Self:
        """Return the record with some fields changed, checked like any other."""
        return type(self)(**{**dict(self), **changes})


def sentence(error: ValidationError, record: type[BaseModel]) -> str:
    """Return the first thing that is wrong with a record: place, value, and what is expected."""
    found = error.errors(include_url=False)[0]
    location, value = found["loc"], found["input"]
    if found["type"] == "value_error":  # a rule of ours, or a record within: they name the field
        return _place(location) + str(found["ctx"]["error"])
    if not location:  # not JSON at all
        return str(found["msg"])
    place = _place(location[:-1])
    name = next(part for part in reversed(location) if isinstance(part, str))
    match found["type"]:
        case "missing":
            return f"{place}`{name}` is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return place + unknown("key", name, record.model_fields if len(location) == 1 else ())
        case "literal_error":
            return place + unknown(name, value, re.findall("'([^']*)'", found["ctx"]["expected"]))
    expected = _expected(record.model_json_schema(), location)
    received = shorten(repr(value), 200, placeholder="…")
    return f"{place}`{name}` must be {expected}. Received: {name}={received}"


def unknown(what: str, value: Any, known: Iterable[str]) -> str:
    """Say that a word is not known, and which known one is nearest."""
    known = list(known)
    near = difflib.get_close_matches(str(value), known, 1)
    hint = f"Did you mean {near[0]!r}?" if near else escaped(f"Known: {', '.join(known)}")
    return f"unknown {what} {value!r}. {hint}" if known else f"unknown {what} {value!r}"


def _place(location: tuple[int | str, ...]) -> str:
    """Say in which of several records a field is: `("arms", 2, "epochs")` is in `arm 3`."""
    numbered = ((word, number) for word, number in pairwise(location) if isinstance(number, int))
    return "".join(f"{str(word).removesuffix('s')} {number + 1}: " for word, number in numbered)


_KINDS = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "a bool",
    "string": "a string",
    "array": "a list",
    "object": "a table",
}


def _expected(schema: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """Say what a JSON Schema expects at a place: the type and its bounds."""
    node: Mapping[str, Any] = schema
    for part in location:
        node = _resolved(schema, node)
        if isinstance(part, int):
            node = node["prefixItems"][part] if "prefixItems" in node else node["items"]
        else:
            node = node.get("properties", {}).get(part, {})
    node = _resolved(schema, node)
    kind = _KINDS.get(node.get("type", ""), "of another type")
    low, high = (node.get(f"exclusive{bound}") for bound in ("Minimum", "Maximum"))
    low, high = node.get("minimum", low), node.get("maximum", high)
    if low is not None:
        return f"{kind} >= {low:g}" if high is None else f"{kind} between {low:g} and {high:g}"
    if "maxLength" in node:
        return f"{kind} of {node.get('minLength', 0)} to {node['maxLength']} characters"
    return f"{kind}, not empty" if "minItems" in node else kind


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part of a schema that is neither a reference nor a choice with null."""
    if "anyOf" in node:
        node = next(part for part in node["anyOf"] if part.get("type") != "null")
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node
