"""Results become one HTML page that needs nothing else: no network, no scripts."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from mnist_keras._foundations.files import escaped, shown_names
from mnist_keras._foundations.pictures import Gallery, encode
from mnist_keras.datasets.images import png
from mnist_keras.experiments.report import tables
from mnist_keras.experiments.report.rows import Results


def html(results: Results, figures: Mapping[str, Figure], gallery: Gallery | None = None) -> str:
    """Return the page: verdicts, tables, figures, mistakes, a model, environment and data."""
    samples = results.plan.samples
    return _page(
        heading=f"mnist-keras: {results.plan.data_name} on {results.plan.versions['backend']}",
        results=results,
        class_names=shown_names(results.class_names),
        samples=list(zip(shown_names(samples), samples.values(), strict=True)),
        figures={name: encode(figure, "svg") for name, figure in figures.items()},
        left_out=[(escaped(path), why) for path, why in results.plan.left_out.items()],
        gallery=gallery,
    )


def gallery_html(gallery: Gallery) -> str:
    """Return a page of the pictures of a model alone."""
    return _page(heading="mnist-keras: how a model decides", results=None, gallery=gallery)


def _page(**values: Any) -> str:
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters["png"] = png
    pages.filters["base64"] = lambda content: b64encode(content).decode("ascii")
    return pages.get_template("page.html").render(tables=tables, zip=zip, **values)
