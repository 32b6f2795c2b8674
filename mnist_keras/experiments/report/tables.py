"""Rows become tables of text: Markdown, which also lines up in a terminal, and LaTeX."""

import re
from collections.abc import Sequence
from statistics import fmean

from mnist_keras._foundations.statistics import mean_and_spread, t_interval, wilson_interval
from mnist_keras._foundations.texts import markdown_table, percent
from mnist_keras.experiments.experiment import Experiment
from mnist_keras.experiments.report.rows import REPORTED_N, Results, Row, distinct_curves

_NONE = "–"

LEGEND = (
    "Accuracy in percent, mean ± standard deviation over seeds. Brackets hold the 95 % interval: "
    "Wilson's for one set of n images at that accuracy; for held-out accuracy over several seeds, "
    "Student's t over the seeds."
)

COST_LEGEND = "Seconds and processor seconds of training, the mean over seeds."


def accuracy_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return header and rows: reported and measured accuracy in percent, with intervals.

    The reported column is left out if the original has no number for any row. If an arm learns
    from unlabeled images, each row says what its arm has seen.
    """
    columns = [["arm", *(row.arm.name for row in rows)]]
    if any(row.arm.settings.uses_unlabeled for row in rows):
        columns.append(["learned from", *map(_seen_cell, rows)])
    reported = [() if row.reported_accuracy is None else (row.reported_accuracy,) for row in rows]
    if any(reported):
        cells = [_accuracy_cell(share, REPORTED_N) for share in reported]
        columns.append([f"reported (n = {REPORTED_N})", *cells])
    test = [_accuracy_cell(row.test, row.n_test) for row in rows]
    held = [_accuracy_cell(row.heldout, row.n_heldout, t_interval(row.heldout)) for row in rows]
    n_test, n_heldout = max(row.n_test for row in rows), max(row.n_heldout for row in rows)
    for name, n, cells in (("test", n_test, test), ("held-out", n_heldout, held)):
        columns.append([f"{name} (n = {n:,})" if n else f"{name} ({_NONE})", *cells])
    columns.append(["seeds", *map(_seeds_cell, rows)])
    return list(map(list, zip(*columns, strict=True)))


def _seen_cell(row: Row) -> str:
    """Say which images an arm learned from, and whether it was told their labels."""
    if not row.seeds:
        return _NONE
    labels = f"{row.n_training:,} labels"
    if not row.n_unlabeled:
        return labels
    half = ", never the scored half" if row.arm.settings.self_training == "inductive" else ""
    return f"{labels} + {row.n_unlabeled:,} held-out images without labels{half}"


def _accuracy_cell(
    values: Sequence[float], n: int, interval: tuple[float, float] | None = None
) -> str:
    """Return mean ± standard deviation over seeds, and an interval, by default that of one run."""
    if not values:
        return _NONE
    mean, spread = mean_and_spread(values)
    low, high = interval or wilson_interval(mean * n, n)
    return percent(mean, (max(0.0, low), min(1.0, high)), spread=spread)


def _seeds_cell(row: Row) -> str:
    diverged = [f"seed {seed} diverged at epoch {epoch}" for seed, epoch in row.diverged.items()]
    missing = [f"missing: {', '.join(map(str, row.missing))}"] if row.missing else []
    return "; ".join([str(len(row.seeds)), *diverged, *missing])


def loss_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return header and rows: training loss of each epoch, the reported one beside ours.

    Beyond ten epochs, only those are shown at which an arm ends.
    """
    curves: dict[str, Sequence[float]] = {}
    for row in distinct_curves(rows):
        curves[f"{row.arm.name}, reported"] = row.arm.reported_loss
        curves[f"{row.arm.name}, measured"] = row.mean_loss
    curves = {title: curve for title, curve in curves.items() if curve}
    ends = {row.arm.settings.all_epochs for row in rows}
    longest = max(map(len, curves.values()), default=0)
    epochs = [epoch for epoch in range(1, longest + 1) if epoch <= 10 or epoch in ends]
    return [["epoch", *curves]] + [
        [str(e), *(f"{c[e - 1]:.4f}" if e <= len(c) else _NONE for c in curves.values())]
        for e in epochs
    ]


def sentence(results: Results) -> str:
    """Say which data the numbers are of, what they were made with, and what is missing."""
    plan = results.plan
    made = [f"{name} {version}" for name, version in plan.versions.items() if name != "backend"]
    words = [f"Data: {plan.data_name}.", f"Made with {', '.join(made)}.", plan.note]
    if results.missing_runs:
        words.append(partial(results))
    return " ".join(filter(None, words))


def partial(results: Results) -> str:
    """Say how many runs are missing."""
    return f"Partial: {results.missing_runs} of {len(results.plan.runs)} runs are missing."


def title(experiment: Experiment) -> str:
    """Return the heading of an experiment's table."""
    section = f" (section {experiment.section})" if experiment.section else ""
    return f"{experiment.title}{section}"


def markdown(results: Results, *, brief: bool = False) -> str:
    """Return the tables as Markdown; if `brief`, verdicts first and without losses by epoch."""
    lines = [sentence(results), "", LEGEND]
    for table in results.tables:
        experiment = table.experiment
        lines += ["", f"## {title(experiment)}", ""]
        claim = f"Claim: {experiment.claim} " if experiment.claim else ""
        lines += [f"{claim}Data: {results.plan.data_name}."]
        parts = [list(markdown_table(accuracy_table(table.rows)))]
        if table.verdicts:
            said = [f"- **{v.verdict}**: {v.claim.sentence} {v.sentence}" for v in table.verdicts]
            parts.append(["Claims, tested on the differences of the same seeds:", "", *said])
        for part in reversed(parts) if brief else parts:
            lines += ["", *part]
        if table.has_curves and not brief:
            lines += ["", "Training loss, mean over the seeds:", ""]
            lines += markdown_table(loss_table(table.rows))
    return "\n".join(lines) + "\n"


def cost_table(results: Results) -> list[list[str]]:
    """Return header and rows: what the runs of each arm cost."""
    table = [["experiment", "arm", "seconds", "CPU seconds", "peak memory"]]
    for experiment, row in ((t.experiment, row) for t in results.tables for row in t.rows):
        seconds = [f"{fmean(s):.1f}" if s else _NONE for s in (row.seconds, row.cpu_seconds)]
        memory = f"{row.peak_memory / 1e9:.2f} GB" if row.peak_memory else _NONE
        table.append([experiment.title, row.arm.name, *seconds, memory])
    return table


def costs(results: Results) -> str:
    """Return what the runs cost, as Markdown; apart from the tables, which time does not change."""
    lines = ["## Cost", "", COST_LEGEND, ""]
    return "\n".join([*lines, *markdown_table(cost_table(results))]) + "\n"


def latex(results: Results) -> str:
    """Return the tables as LaTeX to `\\input`; they need no package."""
    origin = sentence(results)
    blocks = [f"% {origin}"]
    for table in results.tables:
        name = title(table.experiment)
        said = "".join(f" {v.claim.sentence} {v.verdict}: {v.sentence}" for v in table.verdicts)
        blocks.append(_latex_table(accuracy_table(table.rows), f"{name}. {LEGEND} {origin}{said}"))
        if table.has_curves:
            caption = f"{name}. Training loss by epoch. Data: {results.plan.data_name}."
            blocks.append(_latex_table(loss_table(table.rows), caption))
    return "\n".join(blocks)


def _latex_table(table: Sequence[Sequence[str]], caption: str) -> str:
    header, *body = (" & ".join(map(_tex, row)) + r" \\" for row in table)
    columns = "l" + "r" * (len(table[0]) - 1)
    lines = [
        *(r"\begin{table}", rf"\caption{{{_tex(caption)}}}", rf"\begin{{tabular}}{{{columns}}}"),
        *(r"\hline", header, r"\hline", *body, r"\hline"),
        *(r"\end{tabular}", r"\end{table}"),
    ]
    return "\n".join(lines) + "\n"


_TEX = str.maketrans(
    {
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"±": r"$\pm$", "–": "--", "×": r"$\times$", "−": r"$-$"},
    }
)


def _tex(text: str) -> str:
    # LaTeX makes one sign of "--", "''" or "?`", and takes "[" or "*" after a row for arguments.
    parts = re.split(r"(?<=[-`'?!,])(?=[-`',])|^(?=[\[*])", text)
    return "{}".join(part.translate(_TEX) for part in parts)
