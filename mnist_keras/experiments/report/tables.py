"""Rows become tables of text: Markdown, which also lines up in a terminal, and LaTeX."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from mnist_keras._foundations.statistics import mean_and_spread, t_interval, wilson_interval
from mnist_keras.experiments.experiment import Arm, Experiment
from mnist_keras.experiments.report.rows import REPORTED_N, Results, Row, distinct_curves

_NONE = "–"


def _percent(accuracy: float, low: float, high: float, spread: float | None = None) -> str:
    plus_minus = "" if spread is None else f" ± {100 * spread:.2f}"
    return f"{100 * accuracy:.2f}{plus_minus} [{100 * low:.1f}, {100 * high:.1f}]"


def _reported_cell(arm: Arm) -> str:
    if arm.reported_accuracy is None:
        return _NONE
    interval = wilson_interval(arm.reported_accuracy * REPORTED_N / 100, REPORTED_N)
    return _percent(arm.reported_accuracy / 100, *interval)


def _accuracy_cell(values: Sequence[float], n: int) -> str:
    """Mean ± standard deviation over seeds, and the interval one run of `n` images has there."""
    if not values:
        return _NONE
    mean, spread = mean_and_spread(values)
    return _percent(mean, *wilson_interval(mean * n, n), spread)


def _heldout_cell(row: Row) -> str:
    """As the accuracy, but with the t interval over seeds where there are several."""
    over_seeds = t_interval(row.heldout)
    if over_seeds is None:
        return _accuracy_cell(row.heldout, row.n_heldout)
    mean, spread = mean_and_spread(row.heldout)
    low, high = over_seeds
    return _percent(mean, max(0.0, low), min(1.0, high), spread)


def _seeds_cell(row: Row) -> str:
    diverged = [f"seed {seed} diverged at epoch {epoch}" for seed, epoch in row.diverged.items()]
    missing = [f"missing: {', '.join(map(str, row.missing))}"] if row.missing else []
    return "; ".join([str(len(row.seeds)), *diverged, *missing])


def _count(n: int) -> str:
    return f"n = {n:,}" if n else _NONE


def accuracy_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return header and rows: reported and measured accuracy in percent, with intervals.

    Where the report has no number, nothing is said to be reported; where an arm learns from
    images without labels, each row says what it has seen.
    """
    n_test = max(row.n_test for row in rows)
    n_heldout = max(row.n_heldout for row in rows)
    columns = [["arm", *(row.arm.name for row in rows)]]
    if any(row.arm.settings.uses_heldout for row in rows):
        columns.append(["learned from", *map(_seen_cell, rows)])
    if any(row.arm.reported_accuracy is not None for row in rows):
        reported = [_reported_cell(row.arm) for row in rows]
        columns.append([f"reported ({_count(REPORTED_N)})", *reported])
    tested = [_accuracy_cell(row.test, row.n_test) for row in rows]
    columns.append([f"test ({_count(n_test)})", *tested])
    columns.append([f"held-out ({_count(n_heldout)})", *map(_heldout_cell, rows)])
    columns.append(["seeds", *map(_seeds_cell, rows)])
    return list(map(list, zip(*columns, strict=True)))


def _seen_cell(row: Row) -> str:
    """Say which images an arm learned from, and whether it was told their labels."""
    if not row.seeds:
        return _NONE
    said = f"{row.n_training:,} labels"
    unlabeled = f"{row.n_unlabeled:,} held-out images without labels"
    if row.arm.settings.self_training == "inductive":
        return f"{said} + {unlabeled}, never the scored half"
    return f"{said} + {unlabeled}" if row.n_unlabeled else said


def loss_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return header and rows: training loss of each epoch, the reported one beside ours.

    Of more than ten epochs, those are shown at which an arm ends.
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
    made = [f"{name} {v}" for name, v in results.versions.items() if name != "backend"]
    words = [f"Data: {results.data}.", f"Made with {', '.join(made)}.", results.note]
    if results.missing:
        words.append(f"Partial: {results.missing} of {results.planned} runs are missing.")
    return " ".join(filter(None, words))


LEGEND = (
    "Accuracy in percent, mean ± standard deviation over seeds. In brackets the 95 % interval: "
    "Wilson's for one set of n images at that accuracy; for held-out accuracy over several seeds, "
    "Student's t over the seeds."
)


def markdown(results: Results) -> str:
    """Return the tables as Markdown whose columns line up in a terminal, too."""
    lines = [sentence(results), "", LEGEND]
    for table in results.tables:
        experiment = table.experiment
        lines += ["", f"## {title(experiment)}", ""]
        claim = f"Claim: {experiment.claim} " if experiment.claim else ""
        lines += [f"{claim}Data: {results.data}.", ""]
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


def title(experiment: Experiment) -> str:
    section = f" (section {experiment.section})" if experiment.section else ""
    return f"{experiment.title}{section}"


def markdown_table(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table whose columns line up in a terminal, too."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in table]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*cells, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    yield line(cells[0])
    rules = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    yield f"|{'|'.join(rules)}|"
    yield from map(line, cells[1:])


def latex(results: Results) -> str:
    """Return the tables as LaTeX to `\\input`; they need no package."""
    blocks = [f"% {sentence(results)}"]
    for table in results.tables:
        name = title(table.experiment)
        said = "".join(f" {v.claim.text} {v.verdict}: {v.sentence}" for v in table.verdicts)
        blocks.append(
            _latex_table(accuracy_table(table.rows), f"{name}. {LEGEND} {sentence(results)}{said}")
        )
        if table.has_curves:
            blocks.append(
                _latex_table(
                    loss_table(table.rows), f"{name}. Training loss by epoch. Data: {results.data}."
                )
            )
    return "\n".join(blocks)


def _latex_table(table: Sequence[Sequence[str]], caption: str) -> str:
    header, *body = (" & ".join(map(_tex, line)) + r" \\" for line in table)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_tex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}",
            r"\hline",
            header,
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
    "−": r"$-$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)
