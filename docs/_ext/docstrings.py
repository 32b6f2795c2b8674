"""Docstrings are Markdown, as Keras's are; Sphinx reads reStructuredText."""

import inspect
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature


def to_rst(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Turn the links and fenced blocks of a docstring into reStructuredText, in place."""
    text = re.sub(r"\[([^]]+)\]\((http[^)]+)\)", r"`\1 <\2>`__", "\n".join(lines))
    blocks = re.split(r"^```\w*\n", text, flags=re.MULTILINE)  # text, code, text, code, …
    for i in range(1, len(blocks), 2):
        blocks[i] = "::\n\n" + re.sub(r"^(?=.)", "    ", blocks[i], flags=re.MULTILINE) + "\n"
    lines[:] = "".join(blocks).split("\n")
    if what in ("attribute", "property"):  # napoleon takes a first line up to a colon for a type
        lines[:0] = ["..", ""]  # an empty comment


def signature(
    app: Sphinx, what: str, name: str, of: Any, options: Any, arguments: str, returns: str
) -> tuple[str, str] | None:
    """Take a class's arguments from `__init__` where Keras's `__new__` hides them."""
    if what != "class" or arguments != "(*args, **kwargs)":
        return None
    of_init = inspect.signature(of.__init__)
    without_self = of_init.replace(parameters=list(of_init.parameters.values())[1:])
    return stringify_signature(without_self, show_annotation=False), returns


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", to_rst, priority=400)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True}
