"""The images of each seed, drawn from a source or from a user's files, and their split."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mnist_keras._foundations.files import escaped
from mnist_keras._foundations.hashing import fingerprint
from mnist_keras.datasets import sources, user_images
from mnist_keras.datasets.choices import PER_CLASS, OnBad
from mnist_keras.datasets.image_folder.findings import KINDS, Severity, by_kind
from mnist_keras.datasets.images import DataError, LabeledImages
from mnist_keras.datasets.splits import SIDES, draw, read_splits, sides, split_indices, split_text
from mnist_keras.training.settings import ExperimentError, Settings


@dataclass(frozen=True)
class Data:
    """The images of one seed: those to train and test on, and those that were never drawn.

    Attributes:
        images: The training and test images together, e.g. the original's 500.
        heldout: Images of the same classes that are in no training or test set; may be empty.
        test: Fingerprints of the test images. By default the run's seed draws them.
        unlabeled: Images to learn from without labels. By default the held-out ones.
    """

    images: LabeledImages
    heldout: LabeledImages
    test: np.ndarray | None = None
    unlabeled: LabeledImages | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of all parts, and of the split if it is given."""
        parts = [self.images.fingerprint, self.heldout.fingerprint]
        parts += [] if self.test is None else [fingerprint(np.sort(self.test))]
        parts += [] if self.unlabeled is None else [self.unlabeled.fingerprint]
        return "-".join(parts)

    @property
    def without_labels(self) -> LabeledImages:
        """The images to learn from without labels."""
        return self.heldout if self.unlabeled is None else self.unlabeled

    def split(self, settings: Settings, seed: int) -> tuple[LabeledImages, LabeledImages]:
        """Return the training and the test images.

        Both are sorted by class and content: batches do not depend on file names and their order.
        """
        images, s = self.images.canonical(), settings
        if self.test is None:
            training, test = split_indices(images, s.validation_split, seed, s.stratify)
        else:
            training, test = sides(images, self.test)
        return images.take(training), images.take(test)


@dataclass(frozen=True)
class SeedImages:
    """The images of every seed.

    Attributes:
        name: Their name in tables.
        of: Returns the images of a seed.
        all_images: Returns all images that seeds draw from.
        note: A remark for the tables.
        warnings: Lines that the user is shown once.
        left_out: Files that were not used, each with the reason.
        root: Directory of the files, if there are any.
    """

    name: str
    of: Callable[[int], Data]
    all_images: Callable[[], LabeledImages]
    note: str = ""
    warnings: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None

    def on_split(self, path: Path) -> "SeedImages":
        """Return the same images, split as a file says.

        Raises:
            DataError: If the file cannot be read, or was made of other images.
        """
        splits, everything = read_splits(path), self.all_images()

        def of(seed: int) -> Data:
            split = splits.get(seed, splits.get(None))
            if split is None:
                raise DataError(f"{path}: has no seed {seed}")
            parts = split.apply(everything)
            images = parts["training"].extended(parts["test"])
            return Data(images, parts["heldout"], split.fingerprints["test"])

        return replace(self, of=of)

    def split_text(self, settings: Iterable[Settings], seeds: Iterable[int]) -> str:
        """Return a file that says which images are on which side, seed by seed.

        Raises:
            ExperimentError: If the settings split differently.
        """
        arms = list(settings)
        if len({(s.validation_split, s.stratify) for s in arms}) > 1:
            raise ExperimentError("the arms ask for different splits; run them apart")
        by_seed, everything = {}, self.all_images()
        for seed in seeds:
            data = self.of(seed)
            training, test = data.split(arms[0], seed)
            named = [part.fingerprints for part in (training, test, data.heldout)]
            unused = ~np.isin(everything.fingerprints, np.concatenate(named))
            parts = (training, test, data.heldout, everything.take(np.flatnonzero(unused)))
            by_seed[seed] = dict(zip(SIDES, parts, strict=True))
        return split_text(by_seed, self.root)


def from_source(
    source: str | None = None, idx: Path | None = None, per_class: int = PER_CLASS
) -> SeedImages:
    """Return images of a source, drawn by each seed. The default is MNIST, or digits without it.

    Args:
        source, idx: As for `sources.load`.
        per_class: Images drawn from each class; the others are held out.
    """
    warnings = []
    if source:
        images = sources.load(source, idx, channels=3)
    else:
        images, reason = sources.default(idx, channels=3)
        if reason:
            warnings.append(
                f"MNIST is not available ({reason}). Using scikit-learn's embedded digits instead: "
                "these numbers do not compare with the original's."
            )
    mnist = images.name.startswith("MNIST")
    return SeedImages(
        name=images.name,
        of=lambda seed: Data(*draw(images, per_class, seed)),
        all_images=lambda: images,
        note="" if mnist else "These numbers do not compare with the original's.",
        warnings=warnings,
    )


def from_files(
    path: Path, per_class: int | None = None, on_bad: OnBad = "refuse", **options: Any
) -> SeedImages:
    """Return a user's own images: those that each seed draws, or all.

    Args:
        path: As for `user_images.read`.
        per_class: Images drawn from each class; the others are held out. Defaults to all.
        on_bad: As for `Audit.require`.
        **options: As for `user_images.read`.

    Raises:
        ImageFolderError: If images are refused.
    """
    audited = user_images.read(path, per_class=per_class, **options).require(on_bad)
    images, heldout = audited.images, audited.heldout

    def of(seed: int) -> Data:
        if per_class is None:
            return Data(images, heldout)
        drawn, rest = draw(images.canonical(), per_class, seed)
        return Data(drawn, heldout if len(heldout) else rest)

    comparable = "The original's numbers compare only if these are 10 classes of 50 MNIST images."
    return SeedImages(
        name=images.name,
        of=of,
        all_images=lambda: images.extended(heldout),
        note=" ".join(filter(None, [comparable, audited.remarks])),
        # `check` says the same file by file.
        warnings=[
            f"{escaped(str(audited.root))}: {len(group):,} × {KINDS[kind].title}"
            for kind, group in by_kind(audited.findings)
            if KINDS[kind].severity in (Severity.REFUSED, Severity.WARNING)
        ],
        left_out=audited.left_out,
        root=path,
    )
