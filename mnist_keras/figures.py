"""Rows become pictures."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnist_keras.rows import Results, Row, distinct_curves

# Okabe and Ito's colours, told apart by colour-blind readers; the markers tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def loss_figure(results: Results) -> bytes:
    """Return a PNG of the training loss by epoch, one panel for each experiment.

    Measured curves are solid, the mean over seeds in a band from the least to the greatest;
    reported curves are dashed.
    """
    count = len(results.tables)
    columns = min(2, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(6.4 * columns, 4.2 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, (experiment, rows) in zip(panels, results.tables, strict=False):
        _draw_curves(axes, distinct_curves(rows))
        axes.set_title(experiment.title, fontsize=11)
    for axes in panels[count:]:
        axes.set_axis_off()
    figure.suptitle(
        "Training loss: measured (solid, band over seeds) and reported (dashed)\n"
        f"{results.data}, {results.versions['backend']}",
        fontsize=10,
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _draw_curves(axes: Axes, rows: Sequence[Row]) -> None:
    for number, row in enumerate(rows):
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number % len(MARKERS)]

        def draw(
            curve: Sequence[float],
            line: str,
            label: str,
            colour: str = colour,
            marker: str = marker,
        ) -> None:
            every = max(1, len(curve) // 10)
            axes.plot(
                range(1, len(curve) + 1),
                curve,
                linestyle=line,
                color=colour,
                marker=marker,
                markersize=4,
                markevery=every,
                label=label,
            )

        if row.loss:
            draw(row.mean_loss, "-", row.arm.name)
            low, high = (list(map(f, zip(*row.loss, strict=True))) for f in (min, max))
            epochs = range(1, len(low) + 1)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
        if row.arm.reported_loss:
            draw(row.arm.reported_loss, "--", f"{row.arm.name}, reported")
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
