"""What is trained on: the options that say so, and the images of each seed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_keras.cli.options import NamedPath, idx_option, max_files_option, on_bad_option
from mnist_keras.cli.progress import reading

if TYPE_CHECKING:
    from mnist_keras.datasets.image_folder.audit import Audit
    from mnist_keras.datasets.image_folder.findings import OnBad
    from mnist_keras.datasets.image_folder.image_store import Cache
    from mnist_keras.datasets.image_folder.reading import ImageForm
    from mnist_keras.datasets.images import LabeledImages
    from mnist_keras.datasets.splits import Split
    from mnist_keras.experiments.experiment import Experiment
    from mnist_keras.training.data import Data

_PER_CLASS = 50  # the original's

_OPTIONS = (
    click.option(
        "--data",
        "directory",
        type=NamedPath(path_type=Path),
        metavar="DIR",
        help="Your images: class folders with or without heldout/, train/ and test/, what `data` "
        "wrote, IDX files, or an .npz file with Keras's keys.",
    ),
    click.option(
        "--source",
        type=click.Choice(["mnist", "fashion_mnist", "digits"]),
        help="Draw from this source. Default: mnist, or digits where MNIST cannot be had.",
    ),
    idx_option,
    click.option(
        "--per-class",
        type=click.IntRange(min=2),
        metavar="N",
        help="Draw N images of each class; the others are held out. Default: 50 of a source, "
        "and all of --data.",
    ),
    on_bad_option,
    click.option(
        "--cache",
        type=click.Choice(["memory", "disk", "none"]),
        help="Where the images of --data are kept; none decodes them for each batch. "
        "Default: memory up to 1 GiB, then disk.",
    ),
    max_files_option,
    click.option(
        "--split",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Train and test on the images that a file of --save-split says.",
    ),
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `seed_images` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class SeedImages:
    """The images of every seed.

    Attributes:
        name: What they are called in tables.
        of: Returns the images of a seed.
        pool: Returns all images that seeds draw from.
        note: What the tables have to say about them.
        warnings: What is to be said of them once, a line each.
        left_out: Files that were not used, each with the reason.
        root: Directory of the files, if there are any.
    """

    name: str
    of: "Callable[[int], Data]"
    pool: "Callable[[], LabeledImages]"
    note: str = ""
    warnings: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None


def check_data_options(
    directory: Path | None,
    source: str | None,
    idx: Path | None,
    per_class: int | None,
    split: Path | None,
    **others: Any,
) -> None:
    """Refuse options that do not go together, before anything is read."""
    if directory and (source or idx):
        raise click.UsageError("--data is a source of its own; leave out --source and --idx")
    if split and per_class:
        raise click.UsageError("--split says which images are drawn; leave out --per-class")


def seed_images(
    directory: Path | None,
    source: str | None,
    idx: Path | None,
    per_class: int | None,
    on_bad: "OnBad",
    cache: "Cache | None",
    max_files: int,
    split: Path | None,
) -> SeedImages:
    """Return the images that the options ask for."""
    if directory is None:
        found = source_images(source, idx, per_class or _PER_CLASS)
    else:
        found = _from_user(directory, per_class, on_bad, cache, max_files)
    return _as_split(found, split) if split else found


def source_images(
    source: str | None = None, idx: Path | None = None, per_class: int = _PER_CLASS
) -> SeedImages:
    """Return images of a source, drawn by each seed: by default MNIST, or digits without it."""
    from mnist_keras.datasets import sources
    from mnist_keras.datasets.splits import draw
    from mnist_keras.training.data import Data

    warnings = []
    if source:
        images = sources.load(source, idx, channels=3)
    else:
        images, reason = sources.default(idx, channels=3)
        if reason:
            warnings.append(
                f"MNIST cannot be had ({reason}). Using scikit-learn's embedded digits instead: "
                "these numbers do not compare with the original's."
            )
    mnist = images.name.startswith("MNIST")
    return SeedImages(
        name=images.name,
        of=lambda seed: Data(*draw(images, per_class, seed)),
        pool=lambda: images,
        note="" if mnist else "These numbers do not compare with the original's.",
        warnings=warnings,
    )


def _from_user(
    directory: Path,
    per_class: int | None,
    on_bad: "OnBad",
    cache: "Cache | None",
    max_files: int,
) -> SeedImages:
    from mnist_keras.datasets import user_images as user_data
    from mnist_keras.datasets.splits import draw
    from mnist_keras.training.data import Data

    with reading() as progress:
        audited = user_data.read(
            directory, per_class=per_class, cache=cache, max_files=max_files, progress=progress
        )
    audited = audited.require(on_bad)
    images, heldout = audited.images, audited.heldout

    def of(seed: int) -> "Data":
        if per_class is None:
            return Data(images, heldout)
        drawn, rest = draw(images.canonical(), per_class, seed)
        return Data(drawn, heldout if len(heldout) else rest)

    notes = [
        "The original's numbers compare only if these are 10 classes of 50 images of MNIST.",
        audited.remarks,
    ]
    return SeedImages(
        name=images.name,
        of=of,
        pool=lambda: images.extended(heldout),
        note=" ".join(filter(None, notes)),
        warnings=list(_warnings(audited)),
        left_out=audited.left_out,
        root=directory,
    )


def _warnings(audited: "Audit") -> Iterator[str]:
    """Yield what there is to warn of, a line for each kind; `check` says it file by file."""
    from mnist_keras._foundations.files import escaped
    from mnist_keras.datasets.image_folder.findings import KINDS, Severity, by_kind

    for kind, group in by_kind(audited.findings):
        if KINDS[kind].severity in (Severity.REFUSED, Severity.WARNING):
            yield f"{escaped(str(audited.root))}: {len(group):,} × {KINDS[kind].title}"


def unlabeled_images(
    path: Path, form: "ImageForm", on_bad: "OnBad", max_files: int
) -> "LabeledImages":
    """Return all images below a folder, whatever its folders are called, showing progress."""
    from mnist_keras.datasets.user_images import read_unlabeled

    with reading() as advance:
        audited = read_unlabeled(path, form=form, max_files=max_files, progress=advance)
    return audited.require(on_bad).images


def _as_split(found: SeedImages, path: Path) -> SeedImages:
    """Return the same images, each seed's on the sides that a file says."""
    from mnist_keras.datasets.images import DataError
    from mnist_keras.datasets.splits import read_splits
    from mnist_keras.training.data import Data

    splits, pool = read_splits(path), found.pool()

    def of(seed: int) -> "Data":
        split: Split | None = splits.get(seed, splits.get(None))
        if split is None:
            raise DataError(f"{path}: has no seed {seed}")
        sides = split.apply(pool)
        images = sides["training"].extended(sides["test"])
        return Data(images, sides["heldout"], split.fingerprints["test"])

    return replace(found, of=of)


def save_split(
    path: Path, images: SeedImages, experiments: "Iterable[Experiment]", seeds: Iterable[int]
) -> None:
    """Write which images are on which side, seed by seed."""
    import numpy as np

    from mnist_keras._foundations.files import write
    from mnist_keras.datasets.splits import SIDES, split_text

    settings = [arm.settings for experiment in experiments for arm in experiment.arms]
    if len({(s.validation_split, s.stratify) for s in settings}) > 1:
        raise click.UsageError("--save-split: the arms ask for different splits; run them apart")
    by_seed, pool = {}, images.pool()
    for seed in seeds:
        data = images.of(seed)
        training, test = data.split(settings[0], seed)
        named = [part.fingerprints for part in (training, test, data.heldout)]
        unused = ~np.isin(pool.fingerprints, np.concatenate(named))
        parts = (training, test, data.heldout, pool.take(np.flatnonzero(unused)))
        by_seed[seed] = dict(zip(SIDES, parts, strict=True))
    write(path, split_text(by_seed, images.root).encode("utf-8", "surrogateescape"))
