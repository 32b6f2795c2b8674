"""Rows become data for other programs: CSV with one line for each number, and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from mnist_keras._foundations.statistics import mean_and_spread, t_interval, wilson_interval
from mnist_keras.experiments.report.rows import REPORTED_N, Results, Row
from mnist_keras.experiments.verdicts import Verdict

_COLUMNS = (
    *("experiment", "section", "arm", "seed", "epoch", "quantity", "measured", "n", "low", "high"),
    *("reported", "verdict", "data_name", "backend"),
)


def csv_text(results: Results) -> str:
    """Return one line for each number, with its origin, its interval and the reported number."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    origin = {"data_name": results.plan.data_name, "backend": results.plan.versions["backend"]}
    for table in results.tables:
        origin |= {"experiment": table.experiment.name, "section": table.experiment.section}
        for row in table.rows:
            writer.writerows({"arm": row.arm.name, **line, **origin} for line in _lines(row))
        writer.writerows({**_verdict_line(verdict), **origin} for verdict in table.verdicts)
    return file.getvalue()


def _lines(row: Row) -> Iterator[dict[str, Any]]:
    last = row.arm.settings.all_epochs
    for quantity, values, n, reported in (
        ("test_accuracy", row.test, row.n_test, row.reported_accuracy),
        ("heldout_accuracy", row.heldout, row.n_heldout, None),
    ):
        for seed, value in zip(row.seeds, values, strict=False):
            low, high = wilson_interval(value * n, n)
            line = {"seed": seed, "epoch": last, "quantity": quantity, "measured": value}
            yield line | {"n": n, "low": low, "high": high, "reported": reported}
    for quantity, curves, said in (
        ("loss", row.loss, row.arm.reported_loss),
        ("training_accuracy", row.training_accuracy, ()),
    ):
        for seed, curve in zip(row.seeds, curves, strict=True):
            for epoch, (value, reported) in enumerate(zip_longest(curve, said[: len(curve)]), 1):
                if not math.isnan(value):
                    line = {"seed": seed, "epoch": epoch, "quantity": quantity, "measured": value}
                    yield line | {"reported": reported}
    for seed, epoch in row.diverged.items():
        yield {"seed": seed, "epoch": epoch, "quantity": "diverged"}
    for seed in row.missing:
        yield {"seed": seed, "epoch": last, "quantity": "missing"}


def _verdict_line(verdict: Verdict) -> dict[str, Any]:
    claim, interval = verdict.claim, verdict.t_interval or ()
    return {
        **{"arm": claim.arm, "epoch": claim.epoch, "measured": verdict.mean_difference},
        "quantity": f"{claim.quantity} less that of {claim.against}",
        **{"n": len(verdict.differences), "verdict": verdict.verdict},
        **dict(zip(("low", "high"), interval, strict=False)),
    }


def json_text(results: Results) -> str:
    """Return everything that the other formats show, and the values of each seed."""
    said = {"data_name", "data_fingerprints", "versions", "note", "left_out"}
    document = {
        **results.plan.model_dump(include=said),
        "planned_runs": len(results.plan.runs),
        "missing_runs": results.missing_runs,
        "experiments": [
            {
                **table.experiment.model_dump(include={"name", "title", "section", "claim"}),
                "arms": [_json_row(row) for row in table.rows],
                "claims": [_json_verdict(verdict) for verdict in table.verdicts],
            }
            for table in results.tables
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _json_row(row: Row) -> dict[str, Any]:
    accuracy, loss = row.reported_accuracy, row.arm.reported_loss
    as_they_are = ("n_training", "n_unlabeled", "seeds", "loss", "confusion", "diverged", "missing")
    return {
        "name": row.arm.name,
        "settings": row.arm.settings.model_dump(),
        "reported": {"accuracy": accuracy, "n": REPORTED_N, "loss": loss},
        "test": _json_accuracy(row.test, row.n_test),
        "heldout": _json_accuracy(row.heldout, row.n_heldout),
        **{name: getattr(row, name) for name in as_they_are},
        "training_accuracy": [
            [None if math.isnan(value) else value for value in curve]
            for curve in row.training_accuracy
        ],
    }


def _json_verdict(verdict: Verdict) -> dict[str, Any]:
    numbers = ("seeds", "differences", "mean_difference", "t_interval", "sign_flip_p")
    return {
        **verdict.claim.model_dump(),
        **{name: getattr(verdict, name) for name in ("verdict", "sentence", *numbers)},
    }


def _json_accuracy(values: Sequence[float], n: int) -> dict[str, Any] | None:
    if not values:
        return None
    mean, spread = mean_and_spread(values)
    return {
        "n": n,
        "values": values,
        "mean": mean,
        "standard_deviation": spread,
        "wilson_interval": wilson_interval(mean * n, n),
        "t_interval": t_interval(values),
    }
