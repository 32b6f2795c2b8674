"""Walk a class-per-folder directory: its classes, its image files, and what is wrong with both."""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mnist_keras._foundations.files import escaped, reason, utf8
from mnist_keras.datasets import idx
from mnist_keras.datasets.choices import MAX_FILES
from mnist_keras.datasets.image_folder.decoding import EXTENSIONS
from mnist_keras.datasets.image_folder.findings import Finding

# The class names of a walk that asks for no classes.
FLAT: tuple[str, ...] = ("",)
# What Keras's loader takes for an image.
_KERAS_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# Findings after which the walk ends: what it found is not a data set.
USELESS = (
    "missing",
    "not_a_folder",
    "no_classes",
    "no_images",
    "single_class",
    "too_deep",
    "too_many_files",
)
# What systems put beside the user's files, in lower case, where no dot hides it.
_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("icon\r", "__macosx", "network trash folder", "temporary items", "lost+found", "lost.dir"),
    *("#recycle", "#snapshot", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "__pycache__"),
}
_OF = r"([-_ ]?(set|data|images?))?"
# Folders of images to train on, also those of `mnist-keras data`, and of images that are not.
TRAINING = re.compile(rf"train(ing)?{_OF}|train-[0-9]+", re.IGNORECASE)
ASIDE = re.compile(
    rf"(held[-_ ]?out|hold[-_ ]?out|test(ing)?|eval(uation)?|val(id|idation)?|dev){_OF}",
    re.IGNORECASE,
)
_NO_IMAGES = "no images (.bmp, .gif, .jpeg, .jpg, .png)"
# What may be given in place of a folder, by the end of its name.
_ARCHIVES = (
    *(".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".7z", ".rar", ".gz", ".bz2", ".xz"),
    ".zst",
)
_TABLES = (
    *(".csv", ".tsv", ".csv.gz", ".parquet", ".arrow", ".feather", ".npy", ".mat", ".h5"),
    *(".hdf5", ".pkl", ".pickle", ".pkl.gz", ".arff", ".json", ".jsonl", ".xlsx", ".tfrecord"),
)


class ImageFile(NamedTuple):
    """A file with the extension of an image."""

    path: str  # relative to the directory that was walked, with `/` between its parts
    label: int  # index of its class
    size: int  # in bytes, or 0 where it was not asked for


@dataclass(frozen=True)
class Folder:
    """What a walk found."""

    class_names: tuple[str, ...]  # the class folders in the order of the labels
    files: tuple[ImageFile, ...]  # by class, then in Keras's order
    findings: tuple[Finding, ...]  # what is wrong, left out or worth knowing


NO_FILES = Folder((), (), ())


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sorting key that puts class `10` after class `9`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def walk(
    directory: Path,
    base: str = "",
    class_names: Sequence[str] | None = None,
    leave_out: Collection[str] = (),
    max_files: int = MAX_FILES,
    follow_links: bool = False,
    class_order: Callable[[str], Any] = natural_key,
) -> Folder:
    """Walk a directory with one folder of images for each class. No file is opened.

    Hidden files, system files and those of `leave_out` are left out. Links to folders in a class
    are left out or followed, but never back to where they lie. With more than `max_files`, the walk
    stops with a finding. All paths are relative to `directory`; the class folders lie in its folder
    `base`. `class_names` are those to walk, in the order of the labels; by default all, sorted.
    """
    walker = _Walker(directory, base, max_files, follow_links)
    with suppress(_UselessError):
        walker.find_classes(leave_out, class_names, class_order)
        for label, name in enumerate(walker.class_names):
            walker.walk_class(name, label)
        walker.check_depth()
    return Folder(walker.class_names, tuple(walker.files), tuple(walker.findings))


def walk_flat(directory: Path, max_files: int = MAX_FILES, follow_links: bool = False) -> Folder:
    """Walk all image files below a directory as one class, whatever its folders are called."""
    walker = _Walker(directory, "", max_files, follow_links)
    with suppress(_UselessError):
        walker.walk_class("", 0)
        if not walker.files:
            walker.find("no_images", ".", _NO_IMAGES)
    findings = [f for f in walker.findings if f.kind not in ("nested_folder", "empty_class")]
    return Folder(FLAT, tuple(walker.files), tuple(findings))


def walk_as_keras(
    directory: Path, class_names: Sequence[str] = FLAT, follow_links: bool = False
) -> Folder:
    """Return the files that Keras's loader takes, by their names alone, hidden ones too."""
    files = []
    for label, name in enumerate(class_names):
        for root, _, found in sorted(os.walk(directory / name, followlinks=follow_links)):
            within = Path(root).relative_to(directory)
            images = (file for file in sorted(found) if file.lower().endswith(_KERAS_EXTENSIONS))
            files += [ImageFile((within / file).as_posix(), label, 0) for file in images]
    return Folder(tuple(class_names), tuple(files), ())


class _UselessError(Exception):
    """What was found so far is not a data set: the walk ends."""


class _Walker:
    """One walk: what it has found so far."""

    def __init__(self, directory: Path, base: str, max_files: int, follow_links: bool):
        self.directory, self.base, self.max_files = directory, base, max_files
        self.follow_links = follow_links
        self.class_names: tuple[str, ...] = ()
        self.files: list[ImageFile] = []
        self.findings: list[Finding] = []
        self.seen = 0

    def within(self, name: str) -> str:
        """Return the path of a name in the base."""
        return f"{self.base}/{name}" if self.base and name else self.base or name

    def find(self, kind: str, path: str, reason: str = "") -> None:
        self.findings.append(Finding(kind, path or ".", reason))
        if kind in USELESS:
            raise _UselessError

    def find_classes(
        self, leave_out: Collection[str], asked: Sequence[str] | None, order: Callable[[str], Any]
    ) -> None:
        """Take the class folders, all or those asked for, and note what is wrong with them."""
        self.class_names = tuple(asked or ())
        names, images, others = [], 0, []
        for entry in self._entries(self.base):
            path = self.within(entry.name)
            if is_hidden(entry.name):
                self.find("hidden", path)
            elif _is_folder(entry):
                self.seen -= 1  # only files count
                if entry.name in leave_out:
                    continue
                if entry.is_symlink() and self._leads_back(path):
                    self.find("folder_link", path)
                    continue
                if entry.is_symlink():
                    self.find("link", path)
                names.append(entry.name)
            else:
                self.find("beside_classes", path)
                images += entry.name.lower().endswith(EXTENSIONS)
                others.append(entry.name)
        names.sort(key=order)
        if not names:
            found = f"found {images:,} images and no folders" if images else "found no folders"
            expected = "expected one folder of images for each class"
            if instead := [name for name in sorted(others) if not images and what_is(name)]:
                found = f"found {instead[0]}: {what_is(instead[0])}"
            self.find("no_classes", self.base, f"{expected}; {found}")
        if asked is None:
            self.class_names = tuple(names)
            if len(names) == 1:
                self._refuse_only(names[0])
        alike: dict[str, str] = {}
        for name in names:
            key = unicodedata.normalize("NFKC", utf8(name)).casefold().strip()
            key = re.sub(" +", " ", key)  # HTML shows several as one
            if key in alike:
                other = f"looks like '{escaped(alike[key])}'"
                self.find("lookalike_classes", self.within(name), other)
            alike[key] = name
        if missing := [name for name in self.class_names if name not in names]:
            paths = map(self.within, missing)
            self.findings += [Finding("no_classes", path, "no such class folder") for path in paths]
            raise _UselessError

    def _refuse_only(self, name: str) -> None:
        """Note whether the only folder is the only class, or contains the classes."""
        path, shown = self.within(name), escaped(name)
        entries = [entry for entry in self._entries(path) if not is_hidden(entry.name)]
        inner = sum(map(_is_folder, entries))
        idx_files = sum(bool(idx.what_is(entry.name)) for entry in entries)
        if inner or idx_files:
            what = f"{inner} folders" if inner else f"{idx_files} IDX files"
            holds = f"found only the folder '{shown}', which holds {what}"
            if ASIDE.fullmatch(name):
                self.find("no_classes", self.base, f"{holds} of images that are not trained on")
            meant = escaped(str(self.directory / path))
            self.find("too_deep", self.base, f"{holds}; did you mean {meant}?")
        expected = "expected one folder of images for each of at least two classes"
        self.find("single_class", self.base, f"{expected}; found only the folder '{shown}'")

    def walk_class(self, name: str, label: int) -> None:
        """Take the image files of a class, and note if there are none."""
        before, before_findings = len(self.files), len(self.findings)
        folders = [self.within(name)]  # no recursion: they may be nested deeper than Python's stack
        while folders:
            folder = folders.pop()
            for entry in self._entries(folder):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if is_hidden(entry.name):
                    self.find("hidden", path)
                elif not _is_folder(entry) or (
                    entry.is_symlink() and (not self.follow_links or self._leads_back(path))
                ):
                    self._take(entry, path, label)
                elif entry.name.lower().endswith(EXTENSIONS):
                    self.find("image_named_folder", path)
                else:
                    self.find("nested_folder", path)
                    folders.append(path)
        self.files[before:] = sorted(self.files[before:], key=lambda file: os.path.split(file.path))
        refused = any(finding.severity.refuses for finding in self.findings[before_findings:])
        if len(self.files) == before and not refused:
            self.find("empty_class", self.within(name), _NO_IMAGES)

    def _leads_back(self, link: str) -> bool:
        """Return whether a link leads to a folder that it lies in."""
        target = os.path.realpath(self.directory / link)
        parents = (os.path.realpath(self.directory / p) for p in PurePosixPath(link).parents)
        return any(os.path.commonpath([target, parent]) == target for parent in parents)

    def _take(self, entry: "os.DirEntry[str]", path: str, label: int) -> None:
        """Take a file, or note why it is not one of the images."""
        name = entry.name.lower()
        try:
            status = entry.stat()
        except OSError as error:
            if name.endswith(EXTENSIONS):
                broken = "broken_link" if entry.is_symlink() else "unreadable_file"
                self.find(broken, path, f"cannot be read: {reason(error)}")
            else:
                self.find("other_files", path)
            return
        if entry.is_symlink():
            self.find("folder_link" if stat.S_ISDIR(status.st_mode) else "link", path)
            if stat.S_ISDIR(status.st_mode):
                return
        if not name.endswith(EXTENSIONS):
            self.find("other_files", path)
        elif not stat.S_ISREG(status.st_mode):
            self.find("not_a_file", path, "not a regular file")
        else:
            self.files.append(ImageFile(path, label, status.st_size))

    def _entries(self, folder: str) -> "Iterator[os.DirEntry[str]]":
        """Yield the entries of a folder, until there are too many."""
        try:
            with os.scandir(self.directory / folder) as entries:
                for entry in entries:
                    self.seen += 1
                    if self.seen > self.max_files:
                        more = f"more than {self.max_files:,} files"
                        self.find("too_many_files", self.base, more)
                    yield entry
        except OSError as error:
            given = self.directory / folder
            if folder == self.base and given.is_file() and (what := what_is(given.name)):
                self.find("not_a_folder", folder, what)
            kind = "missing" if folder == self.base else "unreadable_folder"
            self.find(kind, folder, f"cannot be read: {reason(error)}")

    def check_depth(self) -> None:
        """Note if no class folder has an image of its own, only folders with images."""
        own = 1 + self.within("class").count("/")
        if not self.files or any(file.path.count("/") == own for file in self.files):
            return
        only = "no folder has an image of its own, only folders within"
        folders = (PurePosixPath(file.path).parents[1] for file in self.files)
        inner = next((f for f in folders if not any(map(ASIDE.fullmatch, f.parts))), None)
        hint = f"; did you mean {escaped(str(self.directory / inner))}?" if inner else ""
        self.find("too_deep", self.base, only + hint)


def what_is(name: str) -> str:
    """Return what a file in place of class folders is, and what to do; empty if it is unknown."""
    name = name.lower()
    if what := idx.what_is(name):
        return what
    if name.endswith(".npz"):
        return "arrays; name the file itself, which needs x_train and y_train"
    if name.endswith(_TABLES):
        return "a table; save its images in class folders, or in an .npz as x_train and y_train"
    if name.endswith(_ARCHIVES):
        return "an archive; unpack it, and name the folder of its images"
    return "an image; name the folder of the class folders" if name.endswith(EXTENSIONS) else ""


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is left out: hidden by a dot, or a system's."""
    return name.startswith(".") or name.lower() in _SYSTEM
