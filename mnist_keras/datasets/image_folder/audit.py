"""Read every image of a folder once, and find everything wrong before anything is trained."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from mnist_keras._foundations.files import shown_name, utf8
from mnist_keras.datasets.choices import Cache, OnBad
from mnist_keras.datasets.image_folder import oddities
from mnist_keras.datasets.image_folder.findings import KINDS, Finding, ImageFolderError, Severity
from mnist_keras.datasets.image_folder.reading import (
    AS_THE_ORIGINAL,
    ImageForm,
    Progress,
    read_files,
)
from mnist_keras.datasets.image_folder.walk import FLAT, NO_FILES, USELESS, Folder
from mnist_keras.datasets.images import LabeledImages


@dataclass(frozen=True)
class Audit:
    """The images that can be used, and everything that was found."""

    root: Path  # what was audited
    images: LabeledImages  # those to train on
    heldout: LabeledImages  # of the same classes, but not trained on; may be empty
    findings: tuple[Finding, ...]  # also of refused files
    files: int  # number of image files, usable or not

    def require(self, on_bad: OnBad | Literal["keep"] = "refuse") -> "Audit":
        """Return the audit if its images can be used; their name then says what is left out.

        Raises:
            ImageFolderError: If a finding is fatal, or refuses a file that `on_bad` does not skip.
        """
        fatal = (Severity.FATAL,) if on_bad == "skip" else (Severity.FATAL, Severity.REFUSED)
        if refused := [finding for finding in self.findings if finding.severity in fatal]:
            raise ImageFolderError(self.root, refused, self.files)
        names = self.images.class_names
        if len(names) < 2 and names != FLAT and on_bad != "keep":
            reason = "fewer than two classes have an image that can be used"
            raise ImageFolderError(self.root, [Finding("no_classes", ".", reason)])
        files, folders = self._left_out_counts
        words = [self.images.name]
        for count, one, several in (
            (files, "bad file", "bad files"),
            (folders, "class", "classes"),
        ):
            if count:
                words.append(f"{count:,} {one if count == 1 else several} left out")
        return replace(self, images=replace(self.images, name=", ".join(words)))

    @property
    def counts(self) -> dict[str, int]:
        """Number of images to train on, by class."""
        counts = np.bincount(self.images.labels, minlength=len(self.images.class_names)).tolist()
        return dict(zip(self.images.class_names, counts, strict=True))

    @property
    def left_out(self) -> dict[str, str]:
        """Paths of the files and folders that cannot be used, each with the reason."""
        refused = [f for f in self.findings if f.severity == Severity.REFUSED and f.path != "."]
        return {f.path: f.reason or KINDS[f.kind].title for f in refused}

    @property
    def _left_out_counts(self) -> tuple[int, int]:
        folders = sum(finding.kind in _FOLDERS for finding in self.findings)
        return len(self.left_out) - folders, folders

    @property
    def remarks(self) -> str:
        """What readers of a table should know about the images, in a sentence; may be empty."""
        counts = {"left out": self._left_out_counts[0]}
        for word, kinds in _REMARKED.items():
            counts[word] = sum(finding.kind in kinds for finding in self.findings)
        said = [f"{count:,} {word}" for word, count in counts.items() if count]
        return f"Of {self.files:,} image files: {', '.join(said)}." if said else ""


# Findings of class folders, not of files.
_FOLDERS = ("empty_class", "no_usable_image")
# What tables say about the images, and the kinds of findings that it counts.
_REMARKED = {
    "resized": ("resized", "stretched"),
    "converted in memory": tuple(k for k, about in KINDS.items() if about.severity == "fixed"),
    "duplicated": ("duplicate",),
    "nearly duplicated": ("near_duplicate",),
}


def audit(
    root: Path,
    training: Folder,
    heldout: Folder = NO_FILES,
    *,
    name: str | None = None,
    form: ImageForm = AS_THE_ORIGINAL,
    per_class: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Read every file once, and return the images and everything that was found.

    The user's cache folder remembers the findings and images of files of these paths and contents.
    Nothing is ever written to `root`.

    Args:
        root: Directory that the files' paths are relative to.
        training, heldout: The class folders to train on, and others, as `walk` returns them.
        name: Name of the images in tables. Defaults to the directory's name.
        form: What every image is brought to. If it keeps what Keras keeps, an image may be in two
            classes, and a class may be of any size.
        per_class: Number of images that each class must have. By default, classes of very
            different sizes are refused.
        cache: Where the images are kept: `"memory"`; `"disk"`, the user's cache folder, from which
            they are read batch by batch; or `"none"`, which decodes the files again for each
            batch. By default memory up to 1 GiB, then the disk if there is space.
        progress: Called now and then with the number of files read and of all files.
    """
    found = [*training.findings, *heldout.findings]
    count = len(training.files) + len(heldout.files)
    if any(finding.kind in USELESS for finding in found):  # then the files need not be read
        training, heldout = replace(training, files=()), NO_FILES
    files = (*training.files, *heldout.files)
    store, findings = read_files(root, training, files, form, cache, progress)
    if form.keep:
        findings = [replace(f, kind="kept") if f.kind == "two_labels" else f for f in findings]
    found += findings

    refused = {finding.path for finding in found if finding.severity == Severity.REFUSED}
    usable = store.readable & np.array([file.path not in refused for file in files], bool)
    labels = np.array([file.label for file in files], np.int64)
    trained = np.arange(len(files)) < len(training.files)
    present = np.unique(labels[usable & trained])
    if form.keep:
        present = np.arange(len(training.class_names))
    for label, class_name in enumerate(training.class_names):
        own = (labels == label) & trained
        if own.any() and not store.readable[own].any():
            found.append(Finding("no_usable_image", class_name))
    # Drawn images must be usable; otherwise, bad files do not change the size of a class.
    counted = labels[trained & np.isin(labels, present) & (usable | (per_class is None))]
    if len(counted) and not form.keep:
        names = [training.class_names[label] for label in present]
        found += oddities.counts(names, np.searchsorted(present, counted), per_class)

    def part(side: np.ndarray) -> LabeledImages:
        """Return the usable images of one side, without classes that have none to train on."""
        chosen = np.flatnonzero(side & usable & np.isin(labels, present))
        return LabeledImages(
            name=name or shown_name(root),
            images=store.images(chosen),
            labels=np.searchsorted(present, labels[chosen]),
            class_names=tuple(utf8(training.class_names[label]) for label in present),
            fingerprints=store.fingerprints[chosen],
            file_paths=tuple(os.path.join(root, files[i].path) for i in chosen.tolist()),
        )

    # Files of unsupported types, broken links and pipes were not read, but are image files.
    unread = {f.path for f in found if f.severity == Severity.REFUSED and f.kind not in _FOLDERS}
    unread -= {".", *(file.path for file in files)}
    return Audit(root, part(trained), part(~trained), tuple(found), count + len(unread))
