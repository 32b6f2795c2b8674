"""The README and the pages in docs: their examples run, and every command is named."""

import re
import shutil
from pathlib import Path

import pytest

from mnist_keras._foundations.texts import markdown_table
from mnist_keras.cli import cli
from mnist_keras.datasets.image_folder.findings import KINDS, Severity

PATH = Path(__file__).parents[1] / "README.md"
PAGES = [PATH, *sorted((PATH.parent / "docs").glob("*.md"))]


def blocks(language, path=PATH):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page, tmp_path, monkeypatch, image_folder, model_file):
    """The Python blocks run from top to bottom; train-50 and model.keras are at hand."""
    image_folder.rename(tmp_path / "train-50")
    shutil.copy(model_file("basic_net"), tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    names = {}
    assert len(blocks("python", page)) >= 2
    for block in blocks("python", page):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.any_backend
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Each linked file is there."""
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).is_file(), target


@pytest.mark.any_backend
def test_two_command_lines_set_everything_up():
    """The first shell block has exactly two lines: install and run, install and test."""
    lines = blocks("sh")[0].splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r'python3? -m pip install "?\.\[jax\]"? && .*mnist-keras run', lines[0])
    assert re.fullmatch(r"python3? -m pip install tox && tox", lines[1])


@pytest.mark.any_backend
@pytest.mark.parametrize("command", cli.commands)
def test_every_command_is_described(command):
    """Each command of the program is in the README."""
    assert f"mnist-keras {command}" in PATH.read_text("utf-8")


@pytest.mark.any_backend
def test_every_kind_of_finding_is_described():
    """The page on images has a line for each kind that an audit finds, gravest first."""
    order = list(Severity)
    rows = [["found", "severity", "what to do"]] + [
        [about.title, str(about.severity), about.advice or "–"]
        for about in sorted(KINDS.values(), key=lambda about: order.index(about.severity))
    ]
    table = "\n".join(markdown_table(rows))
    assert table in (PATH.parent / "docs" / "images.md").read_text("utf-8"), table
