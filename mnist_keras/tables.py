"""Records become rows, and rows become tables: Markdown (also for the terminal), CSV, LaTeX, JSON."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from mnist_keras.experiment import Arm, Experiment
from mnist_keras.records import Record
from mnist_keras.statistics import mean_and_spread, t_interval, wilson_interval

REPORTED_N = 100  # test images of the report
_NONE = "–"


@dataclass(frozen=True)
class Row:
    """One arm: what the report says and what was measured, seed by seed.

    Accuracies are between 0 and 1. Diverged runs are counted, and are in no other number.

    Attributes:
        arm: The arm.
        seeds: Seeds of the runs that reached the arm's last epoch.
        test: Accuracy on the test images, one a seed.
        n_test: Test images of one run.
        heldout: Accuracy on the held-out images, one a seed; empty without any.
        n_heldout: Held-out images of one run.
        loss: Training loss of each epoch, one sequence a seed.
        seconds: Seconds of training up to the arm's last epoch, one a seed.
        diverged: The epoch whose loss was not finite, by seed.
    """

    arm: Arm
    seeds: tuple[int, ...]
    test: tuple[float, ...]
    n_test: int
    heldout: tuple[float, ...]
    n_heldout: int
    loss: tuple[tuple[float, ...], ...]
    seconds: tuple[float, ...]
    diverged: Mapping[int, int]

    @property
    def mean_loss(self) -> list[float]:
        """Training loss of each epoch, averaged over the seeds."""
        return [fmean(values) for values in zip(*self.loss, strict=True)]


@dataclass(frozen=True)
class Results:
    """All rows of a run of the program, and where they come from.

    Attributes:
        tables: The rows of each experiment.
        data: Name of the data.
        versions: Versions of what decides the numbers; `"backend"` names the backend.
        note: Said above the tables, e.g. that the data is not the report's; may be empty.
    """

    tables: Sequence[tuple[Experiment, Sequence[Row]]]
    data: str
    versions: Mapping[str, str]
    note: str = ""


def row(arm: Arm, records: Iterable[Record]) -> Row:
    """Return the row of an arm from the records of all runs."""
    epochs = arm.settings.epochs
    own = sorted((r for r in records if r.run.covers(arm)), key=lambda record: record.run.seed)
    done = [record for record in own if epochs in record.scores]
    scored = [record for record in done if len(record.heldout_labels)]
    return Row(
        arm=arm,
        seeds=tuple(record.run.seed for record in done),
        test=tuple(float((r.scores[epochs].test == r.test_labels).mean()) for r in done),
        n_test=len(done[0].test_labels) if done else 0,
        heldout=tuple(
            float((r.scores[epochs].heldout == r.heldout_labels).mean()) for r in scored
        ),
        n_heldout=len(scored[0].heldout_labels) if scored else 0,
        loss=tuple(record.loss[:epochs] for record in done),
        seconds=tuple(sum(record.seconds[:epochs]) for record in done),
        diverged={r.run.seed: r.diverged for r in own if r.diverged and r.diverged <= epochs},
    )


# Cells


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
    return "; ".join([str(len(row.seeds)), *diverged])


# Tables of text


def _count(n: int) -> str:
    return f"n = {n:,}" if n else _NONE


def accuracy_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return header and rows: reported and measured accuracy in percent, with intervals."""
    n_test = max(row.n_test for row in rows)
    n_heldout = max(row.n_heldout for row in rows)
    header = [
        "arm",
        f"reported ({_count(REPORTED_N)})",
        f"test ({_count(n_test)})",
        f"held-out ({_count(n_heldout)})",
        "seeds",
        "seconds",
    ]
    return [header] + [
        [
            row.arm.name,
            _reported_cell(row.arm),
            _accuracy_cell(row.test, row.n_test),
            _heldout_cell(row),
            _seeds_cell(row),
            f"{fmean(row.seconds):.1f}" if row.seconds else _NONE,
        ]
        for row in rows
    ]


def loss_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return header and rows: training loss of each epoch, the reported one beside ours.

    Arms that are parts of one training share its column; of more than ten epochs, those at
    which an arm ends are shown.
    """
    curves = _curves(rows)
    longest = max((len(curve) for _, _, curve in curves), default=0)
    ends = {row.arm.settings.epochs for row in rows}
    epochs = [e for e in range(1, longest + 1) if e <= 10 or e in ends]
    header, columns = ["epoch"], []
    for name, reported, measured in curves:
        for title, curve in ((f"{name}, reported", reported), (f"{name}, measured", measured)):
            if curve:
                header.append(title)
                columns.append(curve)
    return [header] + [
        [str(e), *(f"{c[e - 1]:.4f}" if e <= len(c) else _NONE for c in columns)] for e in epochs
    ]


def _curves(rows: Sequence[Row]) -> list[tuple[str, Sequence[float], Sequence[float]]]:
    """Return name, reported and measured curve of each training behind the rows."""
    curves: list[tuple[str, Sequence[float], Sequence[float]]] = []
    for row in sorted(rows, key=lambda row: -len(row.mean_loss)):
        measured = row.mean_loss
        if not row.arm.reported_loss and any(m[: len(measured)] == measured for _, _, m in curves):
            continue
        curves.append((row.arm.name, row.arm.reported_loss, measured))
    order = {row.arm.name: place for place, row in enumerate(rows)}
    return sorted(curves, key=lambda curve: order[curve[0]])


# Formats


def _sentence(results: Results) -> str:
    made = [f"{name} {v}" for name, v in results.versions.items() if name != "backend"]
    note = f" {results.note}" if results.note else ""
    return f"Data: {results.data}. Made with {', '.join(made)}.{note}"


_LEGEND = (
    "Accuracy in percent, mean ± standard deviation over seeds. In brackets the 95 % interval: "
    "Wilson's for one set of n images at that accuracy; for held-out accuracy over several seeds, "
    "Student's t over the seeds. Seconds are those of training, a seed."
)


def markdown(results: Results) -> str:
    """Return the tables as Markdown whose columns line up in a terminal, too."""
    lines = [_sentence(results), "", _LEGEND]
    for experiment, rows in results.tables:
        lines += ["", f"## {_title(experiment)}", "", f"Claim: {experiment.claim}", ""]
        lines += _markdown_table(accuracy_table(rows))
        lines += ["", "Training loss, mean over the seeds:", ""]
        lines += _markdown_table(loss_table(rows))
    return "\n".join(lines) + "\n"


def _title(experiment: Experiment) -> str:
    section = f" (section {experiment.section})" if experiment.section else ""
    return f"{experiment.title}{section}"


def _markdown_table(table: Sequence[Sequence[str]]) -> Iterator[str]:
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
    blocks = [f"% {_sentence(results)}"]
    for experiment, rows in results.tables:
        for table, what in ((accuracy_table(rows), _LEGEND), (loss_table(rows), "Training loss.")):
            body = [" & ".join(map(_tex, line)) + r" \\" for line in table]
            blocks.append(
                "\n".join(
                    [
                        r"\begin{table}",
                        rf"\caption{{{_tex(f'{_title(experiment)}. {what} {_sentence(results)}')}}}",
                        rf"\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}",
                        r"\hline",
                        body[0],
                        r"\hline",
                        *body[1:],
                        r"\hline",
                        r"\end{tabular}",
                        r"\end{table}",
                    ]
                )
            )
    return "\n\n".join(blocks) + "\n"


_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)


def csv_text(results: Results) -> str:
    """Return one line for each number: experiment, arm, seed, epoch, quantity, its interval."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        "experiment section arm seed epoch quantity measured n low high reported data backend".split()
    )
    for experiment, rows in results.tables:
        for row in rows:
            for line in _csv_lines(row):
                writer.writerow(
                    [
                        experiment.name,
                        experiment.section,
                        row.arm.name,
                        *line,
                        results.data,
                        results.versions["backend"],
                    ]
                )
    return file.getvalue()


def _csv_lines(row: Row) -> Iterator[list[Any]]:
    """Yield seed, epoch, quantity, measured, n, low, high, reported."""
    last = row.arm.settings.epochs
    reported = row.arm.reported_accuracy
    for quantity, values, n in (
        ("test_accuracy", row.test, row.n_test),
        ("heldout_accuracy", row.heldout, row.n_heldout),
    ):
        for seed, value in zip(row.seeds, values, strict=False):
            said = reported / 100 if reported is not None and quantity == "test_accuracy" else ""
            yield [seed, last, quantity, value, n, *wilson_interval(value * n, n), said]
    for seed, curve in zip(row.seeds, row.loss, strict=True):
        for epoch, value in enumerate(curve, 1):
            said = dict(enumerate(row.arm.reported_loss, 1)).get(epoch, "")
            yield [seed, epoch, "loss", value, "", "", "", said]
    for seed, value in zip(row.seeds, row.seconds, strict=True):
        yield [seed, last, "seconds", value, "", "", "", ""]
    for seed, epoch in row.diverged.items():
        yield [seed, epoch, "diverged", "", "", "", "", ""]


def json_text(results: Results) -> str:
    """Return everything the other formats show, and each seed's values."""
    document = {
        "data": results.data,
        "note": results.note,
        "versions": dict(results.versions),
        "experiments": [
            {
                "name": experiment.name,
                "title": experiment.title,
                "section": experiment.section,
                "claim": experiment.claim,
                "arms": [_json_row(row) for row in rows],
            }
            for experiment, rows in results.tables
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _json_row(row: Row) -> dict[str, Any]:
    reported = row.arm.reported_accuracy
    return {
        "name": row.arm.name,
        "settings": asdict(row.arm.settings),
        "reported": {
            "accuracy": None if reported is None else reported / 100,
            "n": REPORTED_N,
            "loss": list(row.arm.reported_loss),
        },
        "seeds": list(row.seeds),
        "test": _json_accuracy(row.test, row.n_test),
        "heldout": _json_accuracy(row.heldout, row.n_heldout),
        "loss": [list(curve) for curve in row.loss],
        "seconds": list(row.seconds),
        "diverged": {str(seed): epoch for seed, epoch in row.diverged.items()},
    }


def _json_accuracy(values: Sequence[float], n: int) -> dict[str, Any] | None:
    if not values:
        return None
    mean, spread = mean_and_spread(values)
    return {
        "n": n,
        "values": list(values),
        "mean": mean,
        "standard_deviation": spread,
        "wilson_interval": wilson_interval(mean * n, n),
        "t_interval": t_interval(values),
    }
