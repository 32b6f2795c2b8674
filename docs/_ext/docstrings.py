"""Docstrings are Markdown, as Keras's are; Sphinx reads reStructuredText."""

import re
from typing import Any

from sphinx.application import Sphinx


def to_rst(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Turn the links and fenced blocks of a docstring into reStructuredText, in place."""
    text = re.sub(r"\[([^]]+)\]\((http[^)]+)\)", r"`\1 <\2>`__", "\n".join(lines))
    blocks = re.split(r"^```\w*\n", text, flags=re.MULTILINE)  # text, code, text, code, …
    for i in range(1, len(blocks), 2):
        blocks[i] = "::\n\n" + re.sub(r"^(?=.)", "    ", blocks[i], flags=re.MULTILINE) + "\n"
    lines[:] = "".join(blocks).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", to_rst, priority=400)
    return {"parallel_read_safe": True}
