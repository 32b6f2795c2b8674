"""Rows become data for other programs: CSV with one line a number, and JSON."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mnist_keras.rows import REPORTED_N, Results, Row
from mnist_keras.statistics import mean_and_spread, t_interval, wilson_interval

_CSV_COLUMNS = (
    "experiment",
    "section",
    "arm",
    "seed",
    "epoch",
    "quantity",
    "measured",
    "n",
    "low",
    "high",
    "reported",
    "data",
    "backend",
)


def csv_text(results: Results) -> str:
    """Return one line for each number: experiment, arm, seed, epoch, quantity, its interval."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
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
