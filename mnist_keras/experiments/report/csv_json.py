"""Rows become data for other programs: CSV with one line a number, and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from mnist_keras._foundations.statistics import (
    mean_and_spread,
    sign_flip_p,
    t_interval,
    wilson_interval,
)
from mnist_keras.experiments.report.rows import REPORTED_N, Results, Row
from mnist_keras.experiments.verdicts import Verdict

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
    "verdict",
    "data",
    "backend",
)


def csv_text(results: Results) -> str:
    """Return one line for each number: experiment, arm, seed, epoch, quantity, its interval."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for table in results.tables:
        lines = [(row.arm.name, line) for row in table.rows for line in _csv_lines(row)]
        lines += [(verdict.claim.arm, _csv_verdict(verdict)) for verdict in table.verdicts]
        for arm, line in lines:
            writer.writerow(
                [
                    table.experiment.name,
                    table.experiment.section,
                    arm,
                    *line,
                    *[""] * (len(_CSV_COLUMNS) - 5 - len(line)),
                    results.data,
                    results.versions["backend"],
                ]
            )
    return file.getvalue()


def _csv_lines(row: Row) -> Iterator[list[Any]]:
    """Yield seed, epoch, quantity, measured, n, low, high, reported."""
    last = row.arm.settings.all_epochs
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
    for seed, curve in zip(row.seeds, row.training_accuracy, strict=True):
        for epoch, value in enumerate(curve, 1):
            if not math.isnan(value):
                yield [seed, epoch, "training_accuracy", value]
    for seed, epoch in row.diverged.items():
        yield [seed, epoch, "diverged"]
    for seed in row.missing:
        yield [seed, last, "missing"]


def _csv_verdict(verdict: Verdict) -> list[Any]:
    """Return seed, epoch, quantity, measured, n, low, high, reported, verdict of a claim."""
    claim = verdict.claim
    quantity = f"{claim.quantity} less that of {claim.against}"
    mean = fmean(verdict.differences) if verdict.differences else ""
    low, high = verdict.interval or ("", "")
    n = len(verdict.differences)
    return ["", claim.epoch or "", quantity, mean, n, low, high, "", verdict.verdict]


def json_text(results: Results) -> str:
    """Return everything the other formats show, and each seed's values."""
    document = {
        "data": results.data,
        "data_fingerprints": {str(seed): hash for seed, hash in results.fingerprints.items()},
        "note": results.note,
        "left_out": dict(results.left_out),
        "versions": dict(results.versions),
        "planned_runs": results.planned,
        "missing_runs": results.missing,
        "experiments": [
            {
                "name": table.experiment.name,
                "title": table.experiment.title,
                "section": table.experiment.section,
                "claim": table.experiment.claim,
                "arms": [_json_row(row) for row in table.rows],
                "claims": [_json_verdict(verdict) for verdict in table.verdicts],
            }
            for table in results.tables
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _json_row(row: Row) -> dict[str, Any]:
    reported = row.arm.reported_accuracy
    return {
        "name": row.arm.name,
        "settings": asdict(row.arm.settings),
        "labels": row.n_training,
        "heldout_images_without_labels": row.n_unlabeled,
        "reported": {
            "accuracy": None if reported is None else reported / 100,
            "n": REPORTED_N,
            "loss": list(row.arm.reported_loss),
        },
        "seeds": list(row.seeds),
        "test": _json_accuracy(row.test, row.n_test),
        "heldout": _json_accuracy(row.heldout, row.n_heldout),
        "loss": [list(curve) for curve in row.loss],
        "training_accuracy": [
            [None if math.isnan(value) else value for value in curve]
            for curve in row.training_accuracy
        ],
        "confusion": [list(line) for line in row.confusion],
        "diverged": {str(seed): epoch for seed, epoch in row.diverged.items()},
        "missing": list(row.missing),
    }


def _json_verdict(verdict: Verdict) -> dict[str, Any]:
    differences = verdict.differences
    return {
        **asdict(verdict.claim),
        "verdict": verdict.verdict,
        "sentence": verdict.sentence,
        "seeds": list(verdict.seeds),
        "differences": list(differences),
        "mean_difference": fmean(differences) if differences else None,
        "t_interval": verdict.interval,
        "sign_flip_p": sign_flip_p(differences) if differences else None,
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
