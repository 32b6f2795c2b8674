"""Read every image of a folder once, and say all that is wrong before anything is trained."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mnist_keras._foundations.files import escaped, shown_name
from mnist_keras.datasets.choices import Cache, OnBad
from mnist_keras.datasets.image_folder import oddities
from mnist_keras.datasets.image_folder.findings import (
    KINDS,
    Finding,
    ImageFolderError,
    Severity,
    require,
)
from mnist_keras.datasets.image_folder.reading import (
    AS_THE_ORIGINAL,
    ImageForm,
    Progress,
    read_files,
)
from mnist_keras.datasets.image_folder.walk import FLAT, USELESS, Folder
from mnist_keras.datasets.images import LabeledImages


@dataclass(frozen=True)
class Audit:
    """The images that can be used, and all that was found.

    Attributes:
        root: What was audited.
        images: Images to train on.
        heldout: Images of the same classes that are not trained on; may be empty.
        findings: Everything found, refused files among it.
        files: How many image files there are, usable or not.
    """

    root: Path
    images: LabeledImages
    heldout: LabeledImages
    findings: tuple[Finding, ...]
    files: int

    def require(self, on_bad: OnBad = "refuse") -> "Audit":
        """Return the audit if its images can be used, with a name that says what is left out.

        Raises:
            ImageFolderError: If a file is refused and `on_bad` does not skip it, or if nothing can
                be trained on at all.
        """
        require(self.root, self.findings, on_bad, self.files)
        names = self.images.class_names
        if len(names) < 2 and names != FLAT:
            reason = "fewer than two classes have an image that can be used"
            raise ImageFolderError(self.root, [Finding("no_classes", ".", reason)])
        if not self.left_out:
            return self
        folders = sum(finding.kind in _FOLDERS for finding in self.findings)
        words = [self.images.name]
        for count, word in ((len(self.left_out) - folders, "bad file"), (folders, "class")):
            plural = "s" if word == "bad file" else "es"
            words += [f"{count:,} {word}{plural if count > 1 else ''} left out"] if count else []
        name = ", ".join(words)
        return replace(self, images=replace(self.images, name=name))

    @property
    def counts(self) -> dict[str, int]:
        """How many images there are to train on, by class."""
        names = self.images.class_names
        found = np.bincount(self.images.labels, minlength=len(names)).tolist()
        return dict(zip(names, found, strict=True))

    @property
    def left_out(self) -> dict[str, str]:
        """The files and folders that cannot be used, each with the reason."""
        refused = [f for f in self.findings if f.severity == Severity.REFUSED and f.path != "."]
        return {f.path: f.reason or KINDS[f.kind].title for f in refused}

    @property
    def remarks(self) -> str:
        """What a reader of a table should know of the images, in a sentence; may be empty."""
        folders = sum(finding.kind in _FOLDERS for finding in self.findings)
        counts = {"left out": len(self.left_out) - folders}
        for word, kinds in _REMARKED.items():
            counts[word] = sum(finding.kind in kinds for finding in self.findings)
        said = [f"{count:,} {word}" for word, count in counts.items() if count]
        return f"Of {self.files:,} image files: {', '.join(said)}." if said else ""


# Findings of class folders, not of files.
_FOLDERS = ("empty_class", "no_usable_image")
# What is said of the images in tables, and the kinds of findings that count for it.
_REMARKED = {
    "resized": ("resized", "stretched"),
    "converted in memory": tuple(k for k, about in KINDS.items() if about.severity == "fixed"),
    "there twice": ("duplicate",),
    "almost there twice": ("near_duplicate",),
}


def audit(
    root: Path,
    training: Folder,
    heldout: Folder | None = None,
    *,
    name: str | None = None,
    form: ImageForm = AS_THE_ORIGINAL,
    per_class: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Read every file once, and return the images with all that is to be said of them.

    What is found of unchanged files is remembered in the user's cache folder, under a hash of
    their paths, sizes and times; nothing is ever written to `root`.

    Args:
        root: Directory that the files' paths are relative to.
        training: What was found by walking the class folders to train on.
        heldout: The same of class folders that are not trained on.
        name: What the images are called in tables. Defaults to the directory's name.
        form: What every image is brought to.
        per_class: Images that each class must have; by default, classes of very different sizes
            are refused.
        cache: Where the images are held: `"memory"`; `"disk"`, the user's cache folder, from where
            they are read batch by batch; or `"none"`, which decodes the files again for each
            batch. By default memory up to 1 GiB, then the disk if there is space.
        progress: Called with the number of files read and of all, now and then.
    """
    found = [*training.findings, *(heldout.findings if heldout else ())]
    count = len(training.files) + len(heldout.files if heldout else ())
    if any(finding.kind in USELESS for finding in found):  # then reading the files is in vain
        training, heldout = replace(training, files=()), None
    reading = read_files(root, training, heldout, form, cache, progress)
    files = reading.files
    found += reading.findings

    refused = {finding.path for finding in found if finding.severity == Severity.REFUSED}
    usable = reading.readable & np.array([file.path not in refused for file in files], bool)
    labels = np.array([file.label for file in files], np.int64)
    trained = np.arange(len(files)) < len(training.files)
    present = np.unique(labels[usable & trained])
    for label, class_name in enumerate(training.class_names):
        own = (labels == label) & trained
        if own.any() and not reading.readable[own].any():
            found.append(Finding("no_usable_image", class_name))
    # What is drawn has to be usable; a class that only lost bad files is not another size.
    counted = labels[trained & np.isin(labels, present) & (usable | (per_class is None))]
    if len(counted):
        names = [training.class_names[label] for label in present]
        found += oddities.counts(names, np.searchsorted(present, counted), per_class)

    def part(chosen: np.ndarray) -> LabeledImages:
        """Return the usable images of one side; classes without any to train on are left out."""
        chosen = np.flatnonzero(chosen & usable & np.isin(labels, present))
        return LabeledImages(
            name=name or shown_name(root),
            images=reading.images(chosen),
            labels=np.searchsorted(present, labels[chosen]),
            class_names=tuple(escaped(training.class_names[label]) for label in present),
            fingerprints=reading.fingerprints[chosen],
            file_paths=tuple(os.path.join(root, files[i].path) for i in chosen.tolist()),
        )

    # Files of other types, broken links and pipes were not read, yet were meant as images.
    unread = {f.path for f in found if f.severity == Severity.REFUSED and f.kind not in _FOLDERS}
    unread -= {".", *(file.path for file in files)}
    return Audit(root, part(trained), part(~trained), tuple(found), count + len(unread))
