"""Rows become tables of text: Markdown, which also lines up in a terminal, and LaTeX."""

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


def accuracy_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return header and rows: reported and measured accuracy in percent, with intervals.

    The reported column is left out if the original has no number for any row. If an arm learns
    from unlabeled images, each row says what its arm has seen.
    """
    n_test = max(row.n_test for row in rows)
    n_heldout = max(row.n_heldout for row in rows)
    columns = [["arm", *(row.arm.name for row in rows)]]
    if any(row.arm.settings.uses_unlabeled for row in rows):
        columns.append(["learned from", *map(_seen_cell, rows)])
    if any(row.reported_accuracy is not None for row in rows):
        columns.append([f"reported ({_count(REPORTED_N)})", *map(_reported_cell, rows)])
    tested = [_accuracy_cell(row.test, row.n_test) for row in rows]
    columns.append([f"test ({_count(n_test)})", *tested])
    columns.append([f"held-out ({_count(n_heldout)})", *map(_heldout_cell, rows)])
    columns.append(["seeds", *map(_seeds_cell, rows)])
    return list(map(list, zip(*columns, strict=True)))


def _count(n: int) -> str:
    return f"n = {n:,}" if n else _NONE


def _seen_cell(row: Row) -> str:
    """Say which images an arm learned from, and whether it was told their labels."""
    if not row.seeds:
        return _NONE
    labels = f"{row.n_training:,} labels"
    if not row.n_unlabeled:
        return labels
    half = ", never the scored half" if row.arm.settings.self_training == "inductive" else ""
    return f"{labels} + {row.n_unlabeled:,} held-out images without labels{half}"


def _reported_cell(row: Row) -> str:
    share = row.reported_accuracy
    if share is None:
        return _NONE
    return percent(share, wilson_interval(share * REPORTED_N, REPORTED_N))


def _accuracy_cell(values: Sequence[float], n: int) -> str:
    """Return mean ± standard deviation over seeds, and the interval of one run of `n` images."""
    if not values:
        return _NONE
    mean, spread = mean_and_spread(values)
    return percent(mean, wilson_interval(mean * n, n), spread=spread)


def _heldout_cell(row: Row) -> str:
    """Return the same, but with the t interval over seeds if there are several."""
    over_seeds = t_interval(row.heldout)
    if over_seeds is None:
        return _accuracy_cell(row.heldout, row.n_heldout)
    mean, spread = mean_and_spread(row.heldout)
    low, high = over_seeds
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
    return f"Partial: {results.missing_runs} of {results.planned_runs} runs are missing."


def title(experiment: Experiment) -> str:
    """Return the heading of an experiment's table."""
    section = f" (section {experiment.section})" if experiment.section else ""
    return f"{experiment.title}{section}"


def markdown(results: Results) -> str:
    """Return the tables as Markdown."""
    lines = [sentence(results), "", LEGEND]
    for table in results.tables:
        experiment = table.experiment
        lines += ["", f"## {title(experiment)}", ""]
        claim = f"Claim: {experiment.claim} " if experiment.claim else ""
        lines += [f"{claim}Data: {results.plan.data_name}.", ""]
        lines += markdown_table(accuracy_table(table.rows))
        if table.verdicts:
            lines += ["", "Claims, tested on the differences of the same seeds:", ""]
            lines += [f"- **{v.verdict}**: {v.claim.text} {v.sentence}" for v in table.verdicts]
        if table.has_curves:
            lines += ["", "Training loss, mean over the seeds:", ""]
            lines += markdown_table(loss_table(table.rows))
    return "\n".join(lines) + "\n"


def costs(results: Results) -> str:
    """Return what the runs cost, as Markdown; apart from the tables, which time does not change."""
    lines = ["## Cost", "", "Seconds and processor seconds of training, the mean over seeds.", ""]
    lines += markdown_table(
        [["experiment", "arm", "seconds", "CPU seconds", "peak memory"]]
        + [
            [
                table.experiment.title,
                row.arm.name,
                f"{fmean(row.seconds):.1f}" if row.seconds else _NONE,
                f"{fmean(row.cpu_seconds):.1f}" if row.cpu_seconds else _NONE,
                f"{row.peak_memory / 1e9:.2f} GB" if row.peak_memory else _NONE,
            ]
            for table in results.tables
            for row in table.rows
        ]
    )
    return "\n".join(lines) + "\n"


def latex(results: Results) -> str:
    """Return the tables as LaTeX to `\\input`; they need no package."""
    origin = sentence(results)
    blocks = [f"% {origin}"]
    for table in results.tables:
        name = title(table.experiment)
        said = "".join(f" {v.claim.text} {v.verdict}: {v.sentence}" for v in table.verdicts)
        blocks.append(_latex_table(accuracy_table(table.rows), f"{name}. {LEGEND} {origin}{said}"))
        if table.has_curves:
            caption = f"{name}. Training loss by epoch. Data: {results.plan.data_name}."
            blocks.append(_latex_table(loss_table(table.rows), caption))
    return "\n".join(blocks)


def _latex_table(table: Sequence[Sequence[str]], caption: str) -> str:
    header, *body = (" & ".join(map(_tex, row)) + r" \\" for row in table)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}",
        *(r"\hline", header, r"\hline", *body, r"\hline"),
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_TEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "×": r"$\times$",
        "−": r"$-$",
    }
)


def _tex(text: str) -> str:
    return text.translate(_TEX)
