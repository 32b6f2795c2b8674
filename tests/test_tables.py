"""Records become rows, tables, exports, figures and the page: from measured to shown."""

import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mnist_keras._foundations import files
from mnist_keras._foundations.files import FileError
from mnist_keras._foundations.pictures import encode
from mnist_keras.experiments.experiment import Arm, Claim, Experiment
from mnist_keras.experiments.plan import Plan
from mnist_keras.experiments.report import csv_json as exports
from mnist_keras.experiments.report import figures, page, rows, tables
from mnist_keras.training import record as records
from mnist_keras.training.record import Mistakes, Record, RecordError, Score
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

pytestmark = pytest.mark.any_backend

VERSIONS = {"mnist-keras": "0", "keras": "3.15.1", "backend": "jax", "jax": "0.10.2"}


def record(seed, settings=None, correct=90, heldout=1000, diverged=None, scored_at=(1, 10)):
    """A record whose test predictions are right `correct` times of 100."""
    settings = settings or Settings()
    labels, others = np.arange(100) % 10, np.arange(heldout) % 10
    predictions = np.where(np.arange(100) < correct, labels, (labels + 1) % 10)
    epochs = diverged or settings.epochs
    loss = [2.0 / (epoch + seed) for epoch in range(1, epochs + 1)]
    if diverged:
        loss[-1] = math.nan
    return Record(
        run=Run(settings=settings, seed=seed, scored_at=scored_at),
        data_name="MNIST t10k",
        data_fingerprint="abc",
        class_names=tuple("0123456789"),
        n_training=400,
        n_unlabeled=0,
        test_labels=labels,
        heldout_labels=others,
        loss=tuple(loss),
        accuracy=tuple(0.5 for _ in loss),
        losses={"crossentropy": tuple(loss), "focal": tuple(loss)},
        seconds=tuple(0.25 for _ in loss),
        cpu_seconds=tuple(0.5 for _ in loss),
        peak_memory=10**9,
        mistakes=Mistakes(
            images=np.full((2, 4, 4, 3), 7, np.uint8),
            labels=np.array([3, 5]),
            predicted=np.array([4, 6]),
        ),
        scores={
            epoch: Score(predictions, np.where(np.arange(heldout) % 4, others, (others + 1) % 10))
            for epoch in scored_at
            if not diverged or epoch < diverged
        },
        diverged=diverged,
        fingerprints={"weights": "w", "masks": "m", "batches": "b"},
        versions=VERSIONS,
    )


ARMS = (
    Arm(
        name="focal & co_1 50%",
        settings=Settings(),
        reported_accuracy=96.0,
        reported_loss=(1.75, 1.13),
    ),
    Arm(name="one epoch", settings=Settings(epochs=1), reported_accuracy=17.0),
    Arm(name="never run", settings=Settings(optimizer="sgd")),
)


CLAIM = Claim(text="Focal <b>wins</b>.", arm="focal & co_1 50%", against="one epoch")


def results_of(*done, arms=ARMS, claims=(CLAIM,), seeds=(0, 1, 2)):
    experiment = Experiment(
        name="loss", title="Losses", section="3.4", claim="C.", arms=arms, claims=claims
    )
    plan = Plan(
        experiments=(experiment,),
        data_name="MNIST t10k",
        data=dict.fromkeys(seeds, "abc"),
        versions=VERSIONS,
        note="A note.",
    )
    return rows.results(plan, done)


def row_of(arm, *done):
    seeds = sorted(record.run.seed for record in done)
    return results_of(*done, arms=(arm,), claims=(), seeds=seeds).tables[0].rows[0]


@pytest.fixture
def results():
    return results_of(*(record(s, correct=c) for s, c in ((1, 88), (0, 92), (2, 90))))


def test_a_record_survives_writing_and_reading(tmp_path):
    """What is read is what was written; the name is the run's fingerprint."""
    original = record(3)
    path = records.write_record(tmp_path, original)
    found = records.read_record(path)

    assert path.parent == tmp_path
    assert len(path.stem) == 16
    assert found.run == original.run
    assert found.run.scored_at == (1, 10)
    assert found.loss == original.loss
    assert found.fingerprints == original.fingerprints
    assert found.versions == VERSIONS
    assert found.scores.keys() == original.scores.keys()
    for epoch, score in original.scores.items():
        np.testing.assert_array_equal(found.scores[epoch].test, score.test)
        np.testing.assert_array_equal(found.scores[epoch].heldout, score.heldout)
    np.testing.assert_array_equal(found.heldout_labels, original.heldout_labels)
    for name in ("images", "labels", "predicted"):
        np.testing.assert_array_equal(
            getattr(found.mistakes, name), getattr(original.mistakes, name)
        )
    assert row_of(ARMS[0], found) == row_of(ARMS[0], original)


def test_a_diverged_record_survives(tmp_path):
    """A loss that is no number is written as plain JSON and comes back as NaN."""
    path = records.write_record(tmp_path, record(0, diverged=4))
    json.loads(path.read_text(), parse_constant=pytest.fail)
    found = records.read_record(path)
    assert found.diverged == 4
    assert math.isnan(found.loss[-1])
    assert list(found.scores) == [1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace('"seed": 3', '"seed": 4'), "its checksum does not match"),
        (lambda text: text[: len(text) // 2], "not a record"),
        (lambda text: "", "not a record"),
        (lambda text: "[]", "not a record"),
        (lambda text: "{}", "not a record"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, damage, message):
    """A changed, cut or foreign file is an error that names it."""
    path = records.write_record(tmp_path, record(3))
    path.write_text(damage(path.read_text()))
    with pytest.raises(RecordError, match=message) as error:
        records.read_record(path)
    assert str(path) in str(error.value)


def test_writing_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    """A failure before the end keeps the old content and leaves nothing else behind."""
    path = tmp_path / "file"
    files.write(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="file: cannot be written: No space left on device"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_under_another_name_is_refused(tmp_path):
    """A record copied over another one is not taken for it."""
    path = records.write_record(tmp_path, record(3))
    other = path.with_name("0123456789abcdef.json")
    path.rename(other)
    with pytest.raises(RecordError, match="not the record of that name"):
        records.read_record(other)


def test_a_row_is_in_the_order_of_the_seeds(results):
    """Accuracies are of the arm's last epoch, seed by seed; a shorter arm ends earlier."""
    focal, one, never = results.tables[0].rows
    assert focal.seeds == one.seeds == (0, 1, 2)
    assert focal.test == (0.92, 0.88, 0.90)
    assert focal.heldout == (0.75, 0.75, 0.75)
    assert (focal.n_test, focal.n_heldout) == (100, 1000)
    assert focal.seconds == (2.5, 2.5, 2.5)
    assert one.seconds == (0.25, 0.25, 0.25)
    assert focal.cpu_seconds == (5.0, 5.0, 5.0)
    assert [len(curve) for curve in one.loss] == [1, 1, 1]
    assert focal.mean_loss[0] == pytest.approx((2 + 1 + 2 / 3) / 3)
    assert never.seeds == ()
    assert never.missing == (0, 1, 2)
    assert np.sum(focal.confusion) == 3 * 1000
    assert [focal.confusion[c][c] for c in (0, 1, 4)] == [150, 300, 150]


def test_diverged_runs_are_counted_and_not_averaged():
    """A diverged run is named with its epoch, and is in no mean."""
    row = row_of(ARMS[0], record(0), record(1, diverged=4))
    assert row.seeds == (0,)
    assert row.diverged == {1: 4}
    assert row_of(ARMS[1], record(1, diverged=4)).diverged == {}
    (_, line) = tables.accuracy_table([row])
    assert line[4] == "1; seed 1 diverged at epoch 4"
    (_, line) = tables.accuracy_table([row_of(ARMS[0], record(1, diverged=4))])
    assert line[2:] == ["–", "–", "0; seed 1 diverged at epoch 4"]


def test_accuracy_table_says_n_interval_and_seeds(results):
    """Cells hold the mean, the spread over seeds and the interval; absent numbers a dash."""
    header, focal, _, never = tables.accuracy_table(results.tables[0].rows)
    assert header[1:4] == ["reported (n = 100)", "test (n = 100)", "held-out (n = 1,000)"]
    assert focal == [
        "focal & co_1 50%",
        "96.00 [90.2, 98.4]",
        "90.00 ± 2.00 [82.6, 94.5]",
        "75.00 ± 0.00 [75.0, 75.0]",
        "3",
    ]
    assert never[1:] == ["–", "–", "–", "0; missing: 0, 1, 2"]


def test_one_seed_has_no_spread():
    """Of one seed there is an interval of its images, and no deviation."""
    (_, line) = tables.accuracy_table([row_of(ARMS[0], record(0, correct=92))])
    assert line[2] == "92.00 [85.0, 95.9]"
    assert line[3] == "75.00 [72.2, 77.6]"


def test_no_heldout_images():
    """Without held-out images the column is empty, and the rest stands."""
    (header, line) = tables.accuracy_table([row_of(ARMS[0], record(0, heldout=0))])
    assert header[3] == "held-out (–)"
    assert line[3] == "–"


def test_loss_table_puts_reported_beside_measured(results):
    """Ten epochs and the arms' ends; one column for arms of one training."""
    header, *lines = tables.loss_table(results.tables[0].rows)
    assert header == ["epoch", "focal & co_1 50%, reported", "focal & co_1 50%, measured"]
    assert [line[0] for line in lines] == [str(epoch) for epoch in range(1, 11)]
    assert lines[0][1:] == ["1.7500", f"{11 / 9:.4f}"]
    assert lines[2][1] == "–"


def test_markdown(results):
    """The data's name, the versions and the note stand above; every line of a table lines up."""
    text = tables.markdown(results)
    first = text.splitlines()[0]
    assert first == (
        "Data: MNIST t10k. Made with mnist-keras 0, keras 3.15.1, jax 0.10.2. A note. "
        "Partial: 3 of 6 runs are missing."
    )
    assert "- **too few to tell**: Focal <b>wins</b>. Held-out accuracy: " in text
    assert "## Losses (section 3.4)" in text
    widths = {
        len(line) for line in text.splitlines() if line.startswith("| focal") or "arm" in line
    }
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 5 + 12
    assert len({w for w in widths if w > 60}) <= 2


def test_csv_has_every_number(results):
    """One line a number, with its interval, its origin and the reported one."""
    lines = list(csv.DictReader(io.StringIO(exports.csv_text(results))))
    accuracy = [line for line in lines if line["quantity"] == "test_accuracy"]
    assert [float(line["measured"]) for line in accuracy] == [0.92, 0.88, 0.9, 0.92, 0.88, 0.9]
    assert float(accuracy[0]["low"]) == pytest.approx(0.850, abs=5e-4)
    assert {line["reported"] for line in accuracy} == {"0.96", "0.17"}
    losses = [line for line in lines if line["quantity"] == "loss"]
    assert [int(line["epoch"]) for line in losses] == [*range(1, 11)] * 3 + [1] * 3
    assert {line["backend"] for line in lines} == {"jax"}
    assert [line["seed"] for line in lines if line["quantity"] == "missing"] == ["0", "1", "2"]
    (claim,) = [line for line in lines if line["verdict"]]
    assert (claim["verdict"], claim["n"], float(claim["measured"])) == ("too few to tell", "3", 0)


def test_json_has_every_seed(results):
    """The JSON holds each seed's values, the settings and the intervals."""
    document = json.loads(exports.json_text(results), parse_constant=pytest.fail)
    focal, one, never = document["experiments"][0]["arms"]
    assert focal["test"]["values"] == [0.92, 0.88, 0.9]
    assert focal["test"]["standard_deviation"] == pytest.approx(0.02)
    assert focal["reported"] == {"accuracy": 0.96, "n": 100, "loss": [1.75, 1.13]}
    assert one["settings"]["epochs"] == 1
    assert never["test"] is None
    assert document["versions"] == VERSIONS
    assert (document["planned_runs"], document["missing_runs"]) == (6, 3)
    (claim,) = document["experiments"][0]["claims"]
    assert claim["verdict"] == "too few to tell"
    assert claim["differences"] == [0.0, 0.0, 0.0]


def test_latex_escapes_and_compiles(results, tmp_path):
    """Special signs are escaped; where LaTeX is installed the tables compile."""
    text = tables.latex(results)
    assert r"focal \& co\_1 50\%" in text
    assert r"90.00 $\pm$ 2.00" in text
    assert "±" not in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    if not shutil.which("pdflatex"):
        pytest.skip("LaTeX is not installed")
    document = rf"\documentclass{{article}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "t.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_figures_are_pictures_and_always_the_same_bytes(results):
    """Every figure is drawn, as PNG and SVG, and drawing it again gives the same file."""
    drawn = figures.all_figures(results)
    assert set(drawn) == {"loss", "accuracy", "differences", "confusion"}
    again = figures.all_figures(results)
    for name, figure in drawn.items():
        png = encode(figure, "png")
        assert min(Image.open(io.BytesIO(png)).size) > 200
        assert png == encode(again[name], "png")
        svg = encode(figure, "svg")
        assert svg.startswith(b"<?xml")
        assert svg == encode(again[name], "svg")
    assert set(figures.all_figures(results_of())) == {"loss", "accuracy"}


def test_curves_are_drawn_once(results):
    """Arms of one training share a curve, whichever comes first."""
    drawn = rows.distinct_curves(results.tables[0].rows)
    assert [row.arm.name for row in drawn] == ["focal & co_1 50%"]
    shorter_first = [replace(row) for row in reversed(results.tables[0].rows[:2])]
    assert [row.arm.name for row in rows.distinct_curves(shorter_first)] == ["focal & co_1 50%"]


class _Names(HTMLParser):
    """Collects what a page refers to, and which tags stay open."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href")]
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(results):
    """Text is escaped, pictures are inside, no script and no address leads elsewhere."""
    text = page.html(results, figures.all_figures(results))
    parser = _Names()
    parser.feed(text)
    assert parser.open == []
    assert "script" not in parser.tags
    assert len(parser.links) == 4 + 3 * 2
    assert all(link.startswith("data:image/") for link in parser.links)
    assert "http" not in re.sub(r'"data:[^"]*"', "", text)
    assert "Focal &lt;b&gt;wins&lt;/b&gt;." in text
    assert "Partial: 3 of 6 runs are missing." in text
    assert "3 → 4" in text


def staged_results():
    """One table of an SVM, a network and a student, of two seeds each."""
    cycle = {"model": "small_cnn", "schedule": "one_cycle", "loss": "crossentropy", "epochs": 4}
    settings = {
        "SVM": Settings(model="svm"),
        "network": Settings(**cycle),
        "student": Settings(**cycle, self_training="transductive", self_training_epochs=6),
        "halves": Settings(**cycle, self_training="inductive", self_training_epochs=3),
    }
    arms = tuple(Arm(name=name, settings=own) for name, own in settings.items())
    experiment = Experiment(name="staged", title="Staged", section="", claim="", arms=arms)
    plan = Plan(
        experiments=(experiment,),
        data_name="MNIST t10k",
        data={0: "abc", 1: "abc"},
        versions=VERSIONS,
    )
    done = []
    for seed in (0, 1):
        for own in settings.values():
            end = own.all_epochs
            one = record(seed, own, 90 - seed, scored_at=(end,))
            unlabeled = 1000 if own.uses_heldout else 0
            epochs = tuple([1.0, math.nan] * (end // 2)) if own.model != "svm" else ()
            done.append(replace(one, n_unlabeled=unlabeled, loss=epochs[::2] * 2, accuracy=epochs))
    return rows.results(plan, done)


def test_arms_of_stages_say_what_they_have_seen(results):
    """Labels and images without labels, and whether those are scored; no curves side by side."""
    text = tables.markdown(staged_results())
    (svm, network, student, halves) = [line for line in text.splitlines() if "400 labels" in line]
    assert [cell.strip() for cell in svm.split("|")[1:3]] == ["SVM", "400 labels"]
    assert network.split("|")[2].strip() == "400 labels"
    said = "400 labels + 1,000 held-out images without labels"
    assert student.split("|")[2].strip() == said
    assert halves.split("|")[2].strip() == f"{said}, never the scored half"
    assert "learned from" in text
    assert "reported" not in text
    assert "Training loss" not in text
    assert "Training loss" not in tables.latex(staged_results())
    assert "learned from" not in tables.markdown(results)


def test_numbers_that_are_not_there_are_null():
    """Epochs without labels have no accuracy: JSON has null for it, CSV no line."""
    staged = staged_results()
    arms = json.loads(exports.json_text(staged))["experiments"][0]["arms"]
    assert arms[1]["training_accuracy"][0] == [1.0, None, 1.0, None]
    assert arms[2]["heldout_images_without_labels"] == 1000
    assert "nan" not in exports.csv_text(staged)


def test_figure_of_arms_of_stages():
    """Where no curves can be drawn, held-out accuracies are, colored by what was learned from."""
    drawn = figures.all_figures(staged_results())
    assert set(drawn) == {"heldout", "confusion"}
    (axes,) = drawn["heldout"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *("SVM", "network", "student", "halves")
    ]
    colors = [line.get_color() for line in axes.lines if len(line.get_xdata()) == 1]
    assert len(set(colors)) == 3
    assert colors[2] == colors[3]
    assert axes.xaxis.get_major_formatter()(5, None) == "95"


def test_costs_stand_apart(results):
    """Seconds, processor seconds and memory are in their own table: time changes no other."""
    assert (
        "| Losses     | focal & co_1 50% |     2.5 |         5.0 |     1.00 GB |"
        in tables.costs(results)
    )
    for text in (tables.markdown(results), exports.csv_text(results), exports.json_text(results)):
        assert "seconds" not in text
