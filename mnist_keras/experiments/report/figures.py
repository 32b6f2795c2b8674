"""Rows become figures: curves, differences with their intervals, confusion matrices."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from mnist_keras._foundations.pictures import COLORS, MARKERS, canvas, draw_confusion, plain_names
from mnist_keras._foundations.statistics import t_interval
from mnist_keras.experiments.report.rows import Results, Row, distinct_curves


def all_figures(results: Results) -> dict[str, Figure]:
    """Return the figures that the results have numbers for, by name."""
    tables = results.tables
    with plain_names():
        figures: dict[str, Figure] = {}
        if any(table.has_curves for table in tables):
            figures |= {"loss": loss_figure(results), "accuracy": accuracy_figure(results)}
        if any(not table.has_curves for table in tables):
            figures["heldout"] = heldout_figure(results)
        if any(verdict.t_interval for table in tables for verdict in table.verdicts):
            figures["differences"] = difference_figure(results)
        if any(row.confusion for table in tables for row in table.rows):
            figures["confusion"] = confusion_figure(results)
    return figures


def loss_figure(results: Results) -> Figure:
    """Return the training loss by epoch, one panel for each experiment.

    Measured curves are solid: the mean over seeds, in a band from the least to the greatest.
    Reported curves are dashed.
    """

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        for number, row in enumerate(distinct_curves(rows)):
            _curve(axes, row.loss, row.arm.name, number)
            _curve(axes, [row.arm.reported_loss], f"{row.arm.name}, reported", number, "--")
        axes.set(xlabel="epoch", ylabel="training loss")
        axes.set_ylim(bottom=0)

    title = "Training loss: measured (solid, band over seeds) and reported (dashed)"
    return _curve_figure(results, title, draw)


def accuracy_figure(results: Results) -> Figure:
    """Return the accuracy on training images by epoch, and on held-out ones at each arm's end."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        shown = distinct_curves(rows)
        for number, row in enumerate(shown):
            curves = [[100 * value for value in curve] for curve in row.training_accuracy]
            _curve(axes, curves, row.arm.name, number)
        for row in rows:
            own = row.mean_loss
            # A shorter arm has the color of the training whose first epochs it is.
            number = next((n for n, r in enumerate(shown) if r.mean_loss[: len(own)] == own), 0)
            ends = [row.arm.settings.all_epochs] * len(row.heldout)
            values = [100 * value for value in row.heldout]
            axes.plot(ends, values, linestyle="none", markerfacecolor="none", **_style(number))
        axes.set(xlabel="epoch", ylabel="accuracy, %", ylim=(0, 102))

    title = "Accuracy: training (solid, band over seeds) and held-out (hollow, one per seed)"
    return _curve_figure(results, title, draw)


def _curve_figure(
    results: Results, title: str, draw: Callable[[Axes, Sequence[Row]], None]
) -> Figure:
    """Return a figure of one panel for each experiment whose arms have curves."""
    tables = [table for table in results.tables if table.has_curves]
    figure, panels = _panels(results, title, len(tables), width=6.4, height=4.2, columns=2)
    for axes, table in zip(panels, tables, strict=True):
        draw(axes, table.rows)
        axes.set_title(table.experiment.title, fontsize=11)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure


def _curve(
    axes: Axes, curves: Sequence[Sequence[float]], label: str, number: int, line: str = "-"
) -> None:
    """Draw the mean of curves; of several, in a band from the least to the greatest."""
    low, mean, high = (list(map(f, zip(*curves, strict=True))) for f in (min, fmean, max))
    if mean:
        epochs, style = range(1, len(mean) + 1), _style(number)
        every = max(1, len(mean) // 10)
        axes.plot(epochs, mean, line, markersize=4, markevery=every, label=label, **style)
        if len(curves) > 1:
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, lw=0)


def _style(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


# What an arm learned from, from the least to the most.
_KINDS = ("labels, no network", "labels", "labels and images without labels")


def heldout_figure(results: Results) -> Figure:
    """Return the held-out accuracy of arms, colored by what they learned from.

    Dots are seeds, diamonds their means, lines the 95 % intervals. The axis shows errors in
    logarithms: halving them is the same distance everywhere.
    """
    title = "Held-out accuracy: seeds (dots), mean and 95 % interval, on an axis of errors"
    tables = [table for table in results.tables if not table.has_curves]
    heights = [2 + len(table.rows) for table in tables]
    height = (0.7 + 0.34 * sum(heights)) / len(tables)
    figure, panels = _panels(results, title, len(tables), height=height, ratios=heights)
    for axes, table in zip(panels, tables, strict=True):
        for line, row in enumerate(table.rows):
            if row.heldout:
                settings, interval = row.arm.settings, t_interval(row.heldout) or row.heldout * 2
                color = COLORS[settings.has_network + settings.uses_unlabeled]
                errors = [max(100 * (1 - value), 0.05) for value in row.heldout]
                ends = [max(100 * (1 - bound), 0.05) for bound in interval]
                axes.plot(errors, [line - 0.22] * len(errors), "o", color=color, ms=3, alpha=0.6)
                axes.plot(ends, [line, line], "-", color=color, lw=2)
                axes.plot([fmean(errors)], [line], "D", color=color, ms=5)
        for number, kind in enumerate(_KINDS):
            axes.plot([], [], "D", color=COLORS[number], label=kind)
        axes.set_yticks(range(len(table.rows)), [row.arm.name for row in table.rows], fontsize=8)
        axes.set(xscale="log", xlabel="held-out accuracy, %", ylim=(len(table.rows) - 0.4, -0.7))
        axes.invert_xaxis()
        axes.xaxis.set_major_locator(FixedLocator([50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda error, _: f"{100 - error:g}")
        axes.set_title(table.experiment.title, fontsize=11)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3)
    return figure


def difference_figure(results: Results) -> Figure:
    """Return a forest plot: each claim's differences by seed, their mean and its 95 % interval."""
    found = [v for table in results.tables for v in table.verdicts if v.t_interval]
    points = [v for v in found if v.claim.quantity == "heldout_accuracy"]
    losses = [v for v in found if v not in points]
    groups = [(points, 100, "held-out accuracy, points"), (losses, 1, "training loss")]
    groups = [group for group in groups if group[0]]
    title = "Differences by seed (dots), mean and 95 % interval"
    heights = [1 + len(group[0]) for group in groups]
    height = (0.7 + 0.8 * len(found)) / len(groups)
    figure, panels = _panels(results, title, len(groups), height=height, ratios=heights)
    for axes, (group, scale, unit) in zip(panels, groups, strict=True):
        for line, verdict in enumerate(group):
            values = [scale * value for value in verdict.differences]
            ends = [scale * bound for bound in verdict.t_interval or ()]
            # Above the line, so that a narrow interval is not hidden by its dots.
            axes.plot(values, [line - 0.2] * len(values), "o", color="#56B4E9", markersize=4)
            axes.plot(ends, [line] * len(ends), "-", color="#000000", lw=2)
            axes.plot([fmean(values)], [line], "D", color="#000000", markersize=6)
        axes.axvline(0, color="#D55E00", lw=1, linestyle="--")
        labels = [f"{' − '.join(verdict.claim.sides)}\n{verdict.verdict}" for verdict in group]
        axes.set_yticks(range(len(group)), labels, fontsize=8)
        axes.set(xlabel=f"difference in {unit}", ylim=(len(group) - 0.4, -0.6))
        axes.grid(alpha=0.3, axis="x")
    return figure


def confusion_figure(results: Results) -> Figure:
    """Return how often images of each class (row) were given each class (column), by arm."""
    shown: dict[Sequence[Sequence[int]], str] = {}
    for table in results.tables:
        for row in table.rows:
            if row.confusion:
                shown.setdefault(row.confusion, f"{table.experiment.title}: {row.arm.name}")
    title = "Confusion, % of each true class, all seeds"
    figure, panels = _panels(results, title, len(shown), width=4.2, height=4.3, columns=3)
    for axes, (confusion, name) in zip(panels, shown.items(), strict=True):
        draw_confusion(axes, confusion, results.class_names)
        axes.set_title(name, fontsize=8)
    return figure


def _panels(
    results: Results,
    title: str,
    count: int,
    *,
    width: float = 9,
    height: float,
    columns: int = 1,
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels of this size in inches, at most this many side by side."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = canvas(width * columns, height * lines + 0.5)
    panels = list(figure.subplots(lines, columns, squeeze=False, height_ratios=ratios).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    partial = ", partial" if results.missing_runs else ""
    origin = f"{results.plan.data_name}, {results.plan.versions['backend']}{partial}"
    figure.suptitle(f"{title}\n{origin}", fontsize=10)
    return figure, panels[:count]
