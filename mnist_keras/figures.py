"""Rows become pictures."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnist_keras.tables import Results, Row

# Okabe and Ito's colours, told apart by colour-blind readers; markers tell them apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"


def loss_figure(results: Results) -> bytes:
    """Return a PNG of the training loss by epoch, one panel for each experiment.

    Measured curves are solid, the mean over seeds in a band from the smallest to the largest;
    reported curves are dashed.
    """
    count = len(results.tables)
    columns = min(2, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(6.4 * columns, 4.2 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for axes, (experiment, rows) in zip(panels, results.tables, strict=False):
        _draw_panel(axes, rows)
        axes.set_title(f"{experiment.title}", fontsize=11)
    for axes in list(panels)[count:]:
        axes.set_axis_off()
    figure.suptitle(
        f"Training loss: measured (solid, band over seeds) and reported (dashed)\n"
        f"{results.data}, {results.versions['backend']}. {results.note}".strip(),
        fontsize=10,
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _draw_panel(axes: Axes, rows: Sequence[Row]) -> None:
    for number, row in enumerate(rows):
        style = {
            "color": _COLOURS[number % len(_COLOURS)],
            "marker": _MARKERS[number % len(_MARKERS)],
            "markersize": 4,
        }
        epochs = range(1, len(row.mean_loss) + 1)
        if row.loss:
            axes.plot(epochs, row.mean_loss, label=row.arm.name, **style)
            low, high = zip(*((min(v), max(v)) for v in zip(*row.loss, strict=True)), strict=True)
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if reported := row.arm.reported_loss:
            label = f"{row.arm.name}, reported"
            axes.plot(range(1, len(reported) + 1), reported, "--", label=label, **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
