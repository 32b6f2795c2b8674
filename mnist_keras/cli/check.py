"""`mnist-keras check`: audit images before anything is trained."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli import options
from mnist_keras.cli.progress import reading
from mnist_keras.datasets.choices import ColorMode

if TYPE_CHECKING:
    from mnist_keras.datasets.image_folder.audit import Audit
    from mnist_keras.datasets.image_folder.findings import Finding

# Findings of one kind that are shown, where they refuse nothing.
_SHOWN = 10


@click.command(epilog=options.example("mnist-keras check photos"))
@click.argument("path", metavar="DIR", type=options.NamedPath(path_type=Path))
@options.word("--format", ("text", "json"), "text", "How to print it; json lists every finding.")
@options.number(
    "--per-class", None, "Ask for this many images of each class; their sizes may then differ.", 2
)
@options.word("--color-mode", ColorMode, "rgb", "The channels that the images are read in.")
@options.max_files
def check(path: Path, format: str, color_mode: ColorMode, **asked: Any) -> None:
    """Read every image below DIR and report what is wrong, by kind.

    DIR is whatever `run --data` takes: class folders, training and test folders, IDX files, or an
    .npz file. Nothing is written to it. Exit code 0 if `run` would take it, 3 if it is refused.
    """
    from mnist_keras.datasets import user_images
    from mnist_keras.datasets.image_folder.findings import as_document
    from mnist_keras.datasets.image_folder.reading import ImageForm

    with reading() as progress:
        audited = user_images.read(path, form=ImageForm(color_mode), progress=progress, **asked)
    refused = [finding for finding in audited.findings if finding.severity.refuses]
    if format == "json":
        document = {
            "path": str(path),
            "refused": bool(refused),
            "files": audited.files,
            "usable": len(audited.images) + len(audited.heldout),
            "heldout": len(audited.heldout),
            "classes": audited.counts,
            "findings": as_document(audited.findings),
        }
        click.echo(json.dumps(document, indent=1))
    else:
        for line in _lines(path, audited, refused):
            click.echo(line)
    if refused:
        sys.exit(3)


def _lines(path: Path, audited: "Audit", refused: "list[Finding]") -> "Iterator[str]":
    """Yield what is there, then what was found, gravest first."""
    from mnist_keras._foundations.files import escaped, shown_names
    from mnist_keras.datasets.image_folder.findings import KINDS, by_kind, environment_hint

    usable = len(audited.images) + len(audited.heldout)
    yield (
        f"{escaped(str(path))}: {audited.files:,} images, {usable:,} of them usable, "
        f"in {len(audited.counts)} classes"
    )
    for name, count in zip(shown_names(audited.counts), audited.counts.values(), strict=True):
        yield f"  {name}: {count:,}"
    if len(audited.heldout):
        yield f"  held out: {len(audited.heldout):,}"
    if hint := environment_hint(refused, audited.files):
        yield f"\n{hint}."
    for kind, group in by_kind(audited.findings):
        about = KINDS[kind]
        advice = f": {about.advice}" if about.advice else ""
        yield f"\n{about.severity}, {len(group):,} × {about.title}{advice}"
        shown = group if about.severity.refuses else group[:_SHOWN]
        for finding in shown:
            yield f"  {finding}"
        if len(group) > len(shown):
            yield f"  and {len(group) - len(shown):,} more (--format json lists them all)"
    if refused:
        kept = "findings keep" if len(refused) > 1 else "finding keeps"
        yield f"\nRefused: {len(refused):,} {kept} `run` from using it."
    else:
        yield "\nIt can be used."
