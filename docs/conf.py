"""The docs site: `tox -e docs` builds it."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
os.environ.setdefault("KERAS_BACKEND", "jax")

project = author = "mnist-keras"
copyright = "the mnist-keras developers, Apache-2.0"
version = release = version_of("mnist-keras")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "docstrings",
    "experiment_keys",
]
html_theme = "furo"
html_title = f"mnist-keras {release}"
html_css_files = ["site.css"]
html_static_path = ["_static"]

myst_heading_anchors = 3
smartquotes = False  # quotes are often those of TOML and Python
# Notebooks: only the tutorial is one. It runs in a folder of its own, and a cell that fails ends
# the build. What commands write to stderr is their progress.
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_output_stderr = "remove"

# Docstrings are Keras's: Markdown, with Google's sections.
default_role = "code"
napoleon_custom_sections = [("Call arguments", "params_style")]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
