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
from mnist_keras._foundations.pictures import INDEX, Gallery, encode, read_gallery
from mnist_keras.experiments.experiment import Arm, Claim, Experiment
from mnist_keras.experiments.plan import Plan
from mnist_keras.experiments.report import csv_json, figures, page, rows, tables
from mnist_keras.experiments.results_folder import ResultsFolder, read_record
from mnist_keras.training.record import FORMAT, RecordError
from mnist_keras.training.settings import Settings

pytestmark = pytest.mark.any_backend

VERSIONS = {"mnist-keras": "0", "keras": "3.15.1", "backend": "jax", "jax": "0.10.2"}
DIVERGED = (2.0, 1.0, 0.7, math.nan)

FOCAL = "focal & co_1 50%"
ARMS = (
    Arm(name=FOCAL, settings=Settings(), reported_accuracy=96.0, reported_loss=(1.75, 1.13)),
    Arm(name="one epoch", settings=Settings(epochs=1), reported_accuracy=17.0),
    Arm(name="never run", settings=Settings(optimizer="sgd")),
)
CLAIM = Claim(text="Focal <b>wins</b>.", arm=FOCAL, against="one epoch")


def results_of(*done, arms=ARMS, claims=(CLAIM,), seeds=(0, 1, 2)):
    said = {"name": "loss", "title": "Losses", "section": "3.4", "claim": "C."}
    experiments = (Experiment(**said, arms=arms, claims=claims),)
    data = {"data_name": "MNIST t10k", "data_fingerprints": dict.fromkeys(seeds, "abc")}
    plan = Plan(experiments=experiments, **data, versions=VERSIONS, note="A note.")
    return rows.results(plan, done)


def row_of(arm, *done):
    seeds = sorted(record.run.seed for record in done)
    return results_of(*done, arms=(arm,), claims=(), seeds=seeds).tables[0].rows[0]


@pytest.fixture
def results(record):
    return results_of(*(record(s, test=right) for s, right in ((1, 0.88), (0, 0.92), (2, 0.90))))


@pytest.fixture
def written(record, tmp_path):
    """The function that writes a record and returns its path."""

    def write(*arguments, **fields):
        with ResultsFolder(tmp_path).writing():
            return ResultsFolder(tmp_path).write_record(record(*arguments, **fields))

    return write


def test_a_record_survives_writing_and_reading(record, written, tmp_path):
    """What is read is what was written; the name is the run's fingerprint."""
    original, path = record(3), written(3)
    found = read_record(path)

    assert path.parent == tmp_path / "records"
    assert len(path.stem) == 16
    assert found.run.scored_at == (1, 10)
    assert found.versions == VERSIONS
    np.testing.assert_equal(found.model_dump(), original.model_dump())
    assert row_of(ARMS[0], found) == row_of(ARMS[0], original)


def test_a_diverged_record_survives(written):
    """A loss that is not a number is written as plain JSON and comes back as NaN."""
    path = written(0, loss=DIVERGED)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    found = read_record(path)
    assert found.history.diverged == 4
    assert math.isnan(found.history.loss[-1])
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
def test_a_damaged_record_is_named(written, damage, message):
    """A changed, cut or foreign file is an error that names it."""
    path = written(3)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RecordError, match=message) as error:
        read_record(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("number", [FORMAT - 1, FORMAT + 1])
def test_a_record_of_another_version_is_named(number, written, monkeypatch):
    """Neither an older nor a newer form is taken for this one."""
    with monkeypatch.context() as other:
        other.setattr("mnist_keras.training.record.FORMAT", number)
        path = written(3)
    with pytest.raises(RecordError, match="written by another version of mnist-keras"):
        read_record(path)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '{"sha256": ' * 3000 + "1" + "}" * 3000, f"[{'1' * 5000}]"]
)
def test_json_beyond_all_limits_is_named(text, tmp_path):
    """Lists in lists and numbers of thousands of digits are damage like any other."""
    reads = {
        "record.json": read_record,
        "plan.json": lambda path: ResultsFolder(path.parent).read_plan(),
        INDEX: lambda path: read_gallery(path.parent),
    }
    for name, read in reads.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(FileError, match=re.escape(f"{tmp_path / name}: not a")) as error:
            read(tmp_path / name)
        assert len(str(error.value)) < 500


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


def test_a_record_under_another_name_is_refused(written):
    """A record copied over another one is not taken for it."""
    path = written(3)
    other = path.with_name("0123456789abcdef.json")
    path.rename(other)
    with pytest.raises(RecordError, match="not the record of that name"):
        read_record(other)


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


def test_diverged_runs_are_counted_and_not_averaged(record):
    """A diverged run is named with its epoch, and is in no mean."""
    diverged = record(1, loss=DIVERGED)
    row = row_of(ARMS[0], record(0), diverged)
    assert row.seeds == (0,)
    assert row.diverged == {1: 4}
    assert row_of(ARMS[1], diverged).diverged == {}
    (_, line) = tables.accuracy_table([row])
    assert line[4] == "1; seed 1 diverged at epoch 4"
    (_, line) = tables.accuracy_table([row_of(ARMS[0], diverged)])
    assert line[2:] == ["–", "–", "0; seed 1 diverged at epoch 4"]


def test_accuracy_table_says_n_interval_and_seeds(results):
    """Cells hold the mean, the spread over seeds and the interval; absent numbers a dash."""
    header, focal, _, never = tables.accuracy_table(results.tables[0].rows)
    assert header[1:4] == ["reported (n = 100)", "test (n = 100)", "held-out (n = 1,000)"]
    assert focal[:2] == [FOCAL, "96.00 [90.2, 98.4]"]
    assert focal[2:] == ["90.00 ± 2.00 [82.6, 94.5]", "75.00 ± 0.00 [75.0, 75.0]", "3"]
    assert never[1:] == ["–", "–", "–", "0; missing: 0, 1, 2"]


def test_one_seed_and_no_heldout_images(record):
    """One seed has an interval of its images and no spread; without images, there is a dash."""
    (_, line) = tables.accuracy_table([row_of(ARMS[0], record(0, test=0.92))])
    assert line[2:4] == ["92.00 [85.0, 95.9]", "75.00 [72.2, 77.6]"]
    (header, line) = tables.accuracy_table([row_of(ARMS[0], record(0, n_heldout=0))])
    assert (header[3], line[3]) == ("held-out (–)", "–")


def test_loss_table_puts_reported_beside_measured(results):
    """Ten epochs and the arms' ends; one column for arms of one training."""
    header, *lines = tables.loss_table(results.tables[0].rows)
    assert header == ["epoch", f"{FOCAL}, reported", f"{FOCAL}, measured"]
    assert [line[0] for line in lines] == [str(epoch) for epoch in range(1, 11)]
    assert lines[0][1:] == ["1.7500", f"{11 / 9:.4f}"]
    assert lines[2][1] == "–"


def test_markdown(results):
    """The data's name, the versions and the note stand above; every line of a table lines up."""
    text = tables.markdown(results)
    assert text.splitlines()[0] == (
        "Data: MNIST t10k. Made with mnist-keras 0, keras 3.15.1, jax 0.10.2. A note. "
        "Partial: 3 of 6 runs are missing."
    )
    assert "- **too few to tell**: Focal <b>wins</b>. Held-out accuracy: " in text
    assert "## Losses (section 3.4)" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 5 + 12
    assert len({len(line) for line in lines[:5]}) == len({len(line) for line in lines[5:]}) == 1


def test_csv_has_every_number(results):
    """One line a number, with its interval, its origin and the reported one."""
    lines = list(csv.DictReader(io.StringIO(csv_json.csv_text(results))))
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
    document = json.loads(csv_json.json_text(results), parse_constant=pytest.fail)
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("p < 0.5 | q > 1", r"p \textless{} 0.5 \textbar{} q \textgreater{} 1 &"),
        ("[0, 1]", "\n{}[0, 1] &"),
        ("*--all, ---no", "\n{}*-{}-all, -{}-{}-no &"),
        ("''x'' ?`y", "'{}'x'{}' ?{}`y &"),
        ("a\n\nb \u202ec\x07\td", r"a b \textbackslash{}u202ec\textbackslash{}x07 d &"),
    ],
)
def test_names_that_latex_would_change(record, name, said):
    """Signs come out as they are; a name stays on its line and does not end a caption."""
    arm = Arm(name=name, settings=Settings())
    results = results_of(record(0), arms=(arm,), claims=(), seeds=(0,))
    assert said in tables.latex(results)
    assert len([line for line in tables.markdown(results).splitlines() if "90.00" in line]) == 1


def test_figures_are_pictures_and_always_the_same_bytes(results):
    """Every figure is drawn, as PNG and SVG, and drawing it again gives the same file."""
    drawn, again = figures.all_figures(results), figures.all_figures(results)
    assert set(drawn) == {"loss", "accuracy", "differences", "confusion"}
    for name, figure in drawn.items():
        png, svg = (encode(figure, format) for format in ("png", "svg"))
        assert min(Image.open(io.BytesIO(png)).size) > 200
        assert svg.startswith(b"<?xml")
        assert [png, svg] == [encode(again[name], format) for format in ("png", "svg")]
    assert set(figures.all_figures(results_of())) == {"loss", "accuracy"}


def test_curves_are_drawn_once(results):
    """Arms of one training share a curve, whichever comes first."""
    longer_first = results.tables[0].rows
    for order in (longer_first, [replace(row) for row in reversed(longer_first[:2])]):
        assert [row.arm.name for row in rows.distinct_curves(order)] == [FOCAL]


class _Names(HTMLParser):
    """Collects what a page refers to, its pictures' names, and which tags stay open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.tags, self.names = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("src", "href")]
        self.names += [value for key, value in attributes if key == "alt"]
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(results):
    """Text is escaped, pictures are inside, no script and no address leads elsewhere."""
    text = page.html(results, figures.all_figures(results))
    parser = _Names(text)
    assert parser.open == []
    assert "script" not in parser.tags
    pictures = [link for link in parser.links if link.startswith("data:image/")]
    assert len(pictures) == 4 + 3 * 2
    anchors = [link for link in parser.links if link.startswith("#")]
    assert sorted(anchors) == sorted(f"#{name}" for name in re.findall(r'<h2 id="([^"]+)"', text))
    files = {*parser.links} - {*pictures, *anchors}
    assert files == {"tables.md", "tables.csv", "tables.tex", "tables.json", "costs.md"}
    # Verdicts, the legend and the differences stand before the first table.
    first = text.index("<table>")
    assert text.index(tables.LEGEND.split("'")[0]) < text.index("At a glance") < first
    assert text.index(f'">{results.tables[0].verdicts[0].verdict}</span>') < first
    assert text.index('alt="differences"') < first
    # On a phone, each number says what it is of.
    assert len(re.findall('<td data-of="held-out', text)) == len(results.tables[0].rows)
    assert "http" not in re.sub(r'"data:[^"]*"', "", text)
    assert "Focal &lt;b&gt;wins&lt;/b&gt;." in text
    assert "Partial: 3 of 6 runs are missing." in text
    assert "3 → 4" in text


def test_hostile_names_stay_text(results):
    """No name of data, versions, classes, files or pictures adds a tag or ends an attribute."""
    name = "\"'><script>alert(1)</script>{{ 7 * 7 }}&amp;"
    plan = results.plan.replace(
        **dict.fromkeys(("data_name", "note"), name),
        **{field: {name: name} for field in ("left_out", "samples")},
        versions={**VERSIONS, name: name},
    )
    hostile = replace(results, plan=plan, class_names=[name] * 10)
    gallery = Gallery(name, ((name, name, b"<svg/>"),))
    for text in (page.html(hostile, {}, gallery), page.gallery_html(gallery)):
        parser = _Names(text)
        assert parser.open == []
        assert "script" not in parser.tags
        assert set(parser.names) == {name}


@pytest.mark.parametrize(
    "names",
    [("a\nb", r"a\nb"), ("x\u200d", r"x\u200d", r"x\\u200d"), ("a" * 20, "a" * 21, "b" * 20)],
)
def test_class_names_that_would_be_shown_alike(results, names):
    """The page and the figures tell them apart; names stay on their lines."""
    ten = [*names, *map(str, range(10 - len(names)))]
    plan = results.plan.replace(samples=dict.fromkeys(ten, ""))
    found = replace(results, plan=plan, class_names=ten)
    shown = _Names(page.html(found, {})).names
    assert len(set(shown)) == 10
    assert all(map(str.isprintable, shown))
    labels = figures.confusion_figure(found).axes[0].get_xticklabels()
    assert len({label.get_text() for label in labels}) == 10


@pytest.fixture
def staged(record):
    """One table of an SVM, a network and two kinds of students, of two seeds each."""
    cycle = {"model": "small_cnn", "schedule": "one_cycle", "loss": "crossentropy", "epochs": 4}
    transductive = {"self_training": "transductive", "self_training_epochs": 6}
    inductive = {"self_training": "inductive", "self_training_epochs": 3}
    arms = (
        Arm(name="SVM", settings=Settings(model="svm")),
        Arm(name="network", settings=Settings(**cycle)),
        Arm(name="student", settings=Settings(**cycle, **transductive)),
        Arm(name="halves", settings=Settings(**cycle, **inductive)),
    )

    def of(seed, own):
        one = record(seed, own, n_unlabeled=1000 if own.uses_unlabeled else 0)
        seen = (1.0, math.nan) * (own.all_epochs // 2) if own.has_network else ()
        curves = {"loss": (1.0,) * len(seen), "training_accuracy": seen}
        return one.replace(history=one.history.replace(**curves))

    done = [of(seed, arm.settings) for seed in (0, 1) for arm in arms]
    return results_of(*done, arms=arms, claims=(), seeds=(0, 1))


def test_arms_of_stages_say_what_they_have_seen(results, staged):
    """Labels and images without labels, and whether those are scored; no curves side by side."""
    text = tables.markdown(staged)
    (svm, network, student, halves) = [line for line in text.splitlines() if "400 labels" in line]
    assert [cell.strip() for cell in svm.split("|")[1:3]] == ["SVM", "400 labels"]
    assert network.split("|")[2].strip() == "400 labels"
    said = "400 labels + 1,000 held-out images without labels"
    assert student.split("|")[2].strip() == said
    assert halves.split("|")[2].strip() == f"{said}, never the scored half"
    assert "learned from" in text
    assert "reported" not in text
    assert "Training loss" not in text
    assert "Training loss" not in tables.latex(staged)
    assert "learned from" not in tables.markdown(results)


def test_numbers_that_are_not_there_are_null(staged):
    """Epochs without labels have no accuracy: JSON has null for it, CSV no line."""
    arms = json.loads(csv_json.json_text(staged))["experiments"][0]["arms"]
    assert arms[1]["training_accuracy"][0] == [1.0, None, 1.0, None]
    assert arms[2]["n_unlabeled"] == 1000
    assert "nan" not in csv_json.csv_text(staged)


def test_figure_of_arms_of_stages(staged):
    """Where no curves can be drawn, held-out accuracies are, colored by what was learned from."""
    drawn = figures.all_figures(staged)
    assert set(drawn) == {"heldout", "confusion"}
    (axes,) = drawn["heldout"].axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["SVM", "network", "student", "halves"]
    colors = [line.get_color() for line in axes.lines if len(line.get_xdata()) == 1]
    assert len(set(colors)) == 3
    assert colors[2] == colors[3]
    assert axes.xaxis.get_major_formatter()(5, None) == "95"


def test_costs_stand_apart(results):
    """Seconds, processor seconds and memory are in their own table: time changes no other."""
    line = "| Losses     | focal & co_1 50% |     2.5 |         5.0 |     1.00 GB |"
    assert line in tables.costs(results)
    for text in (tables.markdown(results), csv_json.csv_text(results), csv_json.json_text(results)):
        assert "seconds" not in text
