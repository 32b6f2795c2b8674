"""Results become one HTML page that needs nothing else: no network, no scripts."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from matplotlib.figure import Figure

from mnist_keras._foundations.files import escaped
from mnist_keras._foundations.pictures import Gallery, encode
from mnist_keras.datasets.images import png
from mnist_keras.experiments.report.rows import Results, Table
from mnist_keras.experiments.report.tables import (
    LEGEND,
    accuracy_table,
    loss_table,
    sentence,
    title,
)
from mnist_keras.experiments.report.tables import costs as costs_text

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff;
       max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ccc; text-align: right;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
.partial { border: 2px solid #D55E00; padding: .5rem; font-weight: bold; }
.verdict { font-weight: bold; }
.samples { margin: .4rem 0; font-size: .85rem; }
.samples img { height: 56px; image-rendering: pixelated; border: 1px solid #ccc; }
.mistakes { display: flex; flex-wrap: wrap; gap: .6rem; }
.mistakes figure { margin: 0; text-align: center; font-size: .75rem; }
.mistakes img { width: 56px; height: 56px; image-rendering: pixelated; border: 1px solid #ccc; }
@media print { body { max-width: none; font-size: 10pt; } h2, tr, figure { break-inside: avoid; }
               .wide { overflow: visible; } td, th { white-space: normal; } }
"""
# Wrongly classified images of the first runs; more would only make the page heavy.
_RUNS_WITH_MISTAKES = 6


def html(results: Results, figures: Mapping[str, Figure], gallery: Gallery | None = None) -> str:
    """Return the page: verdicts, tables, figures, mistakes, a model, environment and data.

    Args:
        results: What to show.
        figures: The figures, by name.
        gallery: Pictures of how a model decides, if there are any.
    """
    heading = f"mnist-keras: {results.data} on {results.versions['backend']}"
    parts = [
        f"<h1>{escape(heading)}</h1>",
        f"<p>{escape(sentence(results))}</p>",
    ]
    if results.missing:
        parts.append(
            f'<p class="partial">Partial: {results.missing} of {results.planned} runs are missing.'
            "</p>"
        )
    for table in results.tables:
        parts += _section(table)
    parts.append("<h2>Figures</h2>")
    parts += [_picture(name, figure) for name, figure in figures.items()]
    parts += _samples(results)
    parts += _mistakes(results)
    if gallery:
        parts += _gallery(gallery)
    parts += _origin(results)
    return _document(heading, parts)


def gallery_html(gallery: Gallery) -> str:
    """Return a page of the pictures of a model alone."""
    return _document("mnist-keras: how a model decides", _gallery(gallery))


def _document(heading: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _section(table: Table) -> Iterator[str]:
    yield f"<h2>{escape(title(table.experiment))}</h2>"
    if table.experiment.claim:
        yield f"<p>Claim: {escape(table.experiment.claim)}</p>"
    if table.verdicts:
        yield "<ul>"
        for verdict in table.verdicts:
            yield (
                f'<li><span class="verdict">{escape(verdict.verdict)}</span>: '
                f"{escape(verdict.claim.text)} {escape(verdict.sentence)}</li>"
            )
        yield "</ul>"
    yield _html_table(accuracy_table(table.rows))
    if table.has_curves:
        yield "<details open><summary>Training loss by epoch, mean over the seeds</summary>"
        yield _html_table(loss_table(table.rows))
        yield "</details>"


def _html_table(table: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    head, *body = table
    lines = "\n".join(line(cells, "td") for cells in body)
    return (
        f'<div class="wide"><table>\n<thead>{line(head, "th")}</thead>\n'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def _picture(name: str, figure: Figure) -> str:
    return f'<p><img alt="{escape(name)}" src="{_data_url(encode(figure, "svg"), "svg+xml")}"></p>'


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _samples(results: Results) -> Iterator[str]:
    if not results.samples:
        return
    yield "<h2>Some images of each class</h2>"
    yield "<p>Whether the labels are right, only a look can tell.</p>"
    for name, strip in results.samples.items():
        yield (
            f'<p class="samples">{escape(name)}<br>'
            f'<img alt="{escape(name)}" src="data:image/png;base64,{escape(strip)}"></p>'
        )


def _mistakes(results: Results) -> Iterator[str]:
    if not results.mistakes:
        return
    yield "<h2>Some misclassified images</h2>"
    for run, mistakes in results.mistakes[:_RUNS_WITH_MISTAKES]:
        yield f'<p>{escape(run)}</p>\n<div class="mistakes">'
        for image, label, predicted in zip(
            mistakes.images, mistakes.labels, mistakes.predicted, strict=True
        ):
            true, given = (results.class_names[c] for c in (label, predicted))
            yield (
                f'<figure><img alt="{escape(true)}" src="{_data_url(png(image), "png")}">'
                f"<figcaption>{escape(true)} → {escape(given)}</figcaption></figure>"
            )
        yield "</div>"


def _gallery(gallery: Gallery) -> Iterator[str]:
    yield "<h2>How a model decides</h2>"
    yield f"<p>{escape(gallery.title)}</p>"
    for name, caption, svg in gallery.pictures:
        source = _data_url(svg, "svg+xml")
        yield f'<p><img alt="{escape(name)}" src="{source}"><br>{escape(caption)}</p>'


def _origin(results: Results) -> Iterator[str]:
    yield "<h2>Where this comes from</h2>"
    yield f"<p>{escape(LEGEND)}</p>"
    yield _html_table([["package", "version"], *([k, v] for k, v in results.versions.items())])
    yield _html_table(
        [["seed", "hash of the data"], *([str(s), h] for s, h in results.fingerprints.items())]
    )
    if results.left_out:
        left_out = [[escaped(path), why] for path, why in results.left_out.items()]
        yield _html_table([["file left out", "reason"], *left_out])
    yield f'<div class="wide"><pre>{escape(costs_text(results))}</pre></div>'
