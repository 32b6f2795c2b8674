"""The README and the pages in docs: their examples run, their links lead somewhere."""

import os
import re
import shlex
import shutil
from glob import glob
from pathlib import Path

import numpy as np
import pytest

import mnist_keras
from mnist_keras._foundations.texts import markdown_table
from mnist_keras.cli import cli
from mnist_keras.datasets.image_folder.findings import KINDS, Severity

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
BACKEND = 'os.environ["KERAS_BACKEND"] = "jax"'
# What takes long, asks for a backend or waits for a browser is only parsed. `tox -e docs` runs the
# tutorial.
PARSED = {"demo", "explain", "export", "pretrain", "train"}


def blocks(language, path):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)


def command_lines(path):
    """Return the arguments of each `mnist-keras` in a block, and of those in text with options."""
    text = path.read_text("utf-8")
    lines = re.findall(r"^ *(?:\w+=\w+ )?mnist-keras (.+)$", text, re.MULTILINE)
    lines += re.findall(r"`(?:\w+=\w+ )?mnist-keras ([^`…]+ --[^`…]+)`", text)
    return [re.split("  #| >", line)[0] for line in lines]


def slug(heading):
    """Return the anchor of a heading, as GitHub and MyST have it."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks("python", page)], ids=lambda page: page.name
)
def test_python_examples_run(page, tmp_path, monkeypatch, image_folder, model_file):
    """Python blocks run from top to bottom, on any backend; train-50 and model.keras are there."""
    image_folder.rename(tmp_path / "train-50")
    shutil.copy(model_file("basic_net"), tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    backend = os.environ["KERAS_BACKEND"]
    monkeypatch.setenv("KERAS_BACKEND", backend)  # what the example sets is undone
    first, *others = blocks("python", page)
    assert BACKEND in first.partition("\nimport keras\nfrom mnist_keras")[0]
    names = {}
    for block in (first.replace(BACKEND, BACKEND.replace("jax", backend)), *others):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.any_backend
@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if command_lines(page)], ids=lambda page: page.name
)
def test_command_lines_run(page, tmp_path, monkeypatch, invoke, write_images, write_idx, trained):
    """Each line of a page is taken by the program, and runs if it needs seconds."""
    from mnist_keras.inference.model_file import save_model

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1000, 28, 28), dtype=np.uint8)
    labels = np.arange(1000) % 10
    for name in ("DIR", "LABELED"):
        write_images(Path(name), images[:30], labels[:30])
    shutil.copytree("DIR/3", "photos")
    shutil.copy("DIR/3/003.png", "one.png")
    write_idx(Path("IDX"), images, labels)
    for name in ("model", "digits", "encoder"):
        save_model(Path(f"{name}.keras"), trained("basic_net"))
    experiment = blocks("toml", DOCS / "experiments.md")[0]
    Path("batch_size.toml").write_text(experiment, "utf-8")
    for line in command_lines(page):
        words = shlex.split(line.replace("--idx DIR", "--idx IDX"))
        name, *options = arguments = [file for word in words for file in glob(word) or [word]]
        if name in PARSED:
            cli.commands[name].make_context(name, options)
        elif name == "run":
            assert "runs, seeds" in invoke(*arguments, "--dry-run").output
        else:
            invoke(*arguments)


@pytest.mark.any_backend
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Each linked file is there, and has the heading that the link names."""
    links = re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", page.read_text("utf-8"))
    for target, anchor in links:
        path = page.parent / target if target else page
        assert path.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{target}#{anchor}"


@pytest.mark.any_backend
def test_the_readme_is_one_page():
    """It has at most 130 lines; the pages in docs have the rest."""
    assert len(README.read_text("utf-8").splitlines()) <= 130


@pytest.mark.any_backend
def test_two_command_lines_set_everything_up():
    """The first shell block has exactly two lines: install and run, install and test."""
    lines = blocks("sh", README)[0].splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r'python3? -m pip install "?\.\[jax\]"? && .*mnist-keras run', lines[0])
    assert re.fullmatch(r"python3? -m pip install tox && tox", lines[1])


@pytest.mark.any_backend
def test_every_command_is_described():
    """Each command of the program is in the table of commands."""
    text = (DOCS / "commands.md").read_text("utf-8")
    assert [name for name in cli.commands if f"| `{name}" not in text] == []


@pytest.mark.any_backend
def test_every_public_name_is_listed():
    """The page on the API lists what `mnist_keras` has."""
    text = (DOCS / "api.md").read_text("utf-8")
    names = set(mnist_keras.__all__) - {"__version__"}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


@pytest.mark.any_backend
def test_every_kind_of_finding_is_described():
    """The page on images has a line for each kind that an audit finds, gravest first."""
    order = list(Severity)
    rows = [["found", "severity", "what to do"]] + [
        [about.title, str(about.severity), about.advice or "–"]
        for about in sorted(KINDS.values(), key=lambda about: order.index(about.severity))
    ]
    table = "\n".join(markdown_table(rows))
    assert table in (DOCS / "images.md").read_text("utf-8"), table
