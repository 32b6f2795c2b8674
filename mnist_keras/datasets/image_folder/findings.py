"""What an audit finds: each kind of finding, how grave it is, and what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from mnist_keras._foundations.files import escaped
from mnist_keras.datasets.images import DataError


class Severity(StrEnum):
    """How grave a finding is, gravest first."""

    FATAL = "fatal"  # nothing can be trained on this
    REFUSED = "refused"  # the file cannot be used; `on_bad="skip"` leaves it out
    WARNING = "warning"  # used as it is
    FIXED = "fixed"  # converted in memory, its meaning kept
    IGNORED = "ignored"  # not part of the data
    NOTE = "note"  # worth knowing

    @property
    def refuses(self) -> bool:
        """Whether the data is not used as it is."""
        return self in (Severity.FATAL, Severity.REFUSED)


class Kind(NamedTuple):
    """A kind of finding: what it is called, how grave it is, and what to do about it."""

    severity: Severity
    title: str
    advice: str


_TITLES_AND_ADVICE = {
    Severity.FATAL: {
        "missing": ("no such folder", "check the path"),
        "not_a_folder": ("file in place of a folder", "see docs/images.md"),
        "no_classes": ("no class folders", "make one folder of images for each class"),
        "no_images": ("no images", "check the path"),
        "single_class": ("only one class", "make a folder for each of at least two classes"),
        "too_deep": ("one level too deep", "name the inner folder"),
        "ambiguous": ("more than one folder to train on", "name one of them"),
        "lookalike_classes": ("class names that look alike", "rename one, or join the folders"),
        "other_classes": ("classes that differ between training and test", "use the same folders"),
        "unreadable_folder": ("unreadable folder", "grant yourself permission to read it"),
        "too_many_files": ("more files than expected", "check the path, or raise --max-files"),
        "bad_arrays": ("arrays that are not labeled images", "see docs/images.md"),
        "too_few": ("class with too few images", "ask for fewer with --per-class"),
    },
    Severity.REFUSED: {
        # One file.
        "empty_file": ("empty file", "fetch it again"),
        "web_page": ("web page instead of an image", "fetch the image itself; log in first"),
        "lfs_pointer": ("Git LFS pointer instead of an image", "run git lfs pull"),
        "not_an_image": ("not an image", "remove it, or fetch it again"),
        "unsupported_type": ("image of an unsupported type", "convert it to PNG"),
        "truncated": ("truncated image", "fetch it again"),
        "damaged": ("damaged image", "fetch it again"),
        "too_large": ("too large to decode safely", "make it smaller"),
        "too_small": ("too small to show anything", "remove it"),
        "transparent": ("transparent pixels", "flatten it onto its intended background"),
        "animated": ("animated image", "save the frame you want"),
        "blank": ("nothing is drawn", "remove it, or look at it"),
        "unreadable_file": ("unreadable file", "grant yourself permission to read it"),
        "broken_link": ("broken link", "remove it, or restore its target"),
        "not_a_file": ("not a regular file", "remove it"),
        # A class, or several files.
        "empty_class": ("class without images", "remove or fill the folder"),
        "no_usable_image": ("class without a usable image", "see what is wrong with its files"),
        "imbalanced": ("classes of very different sizes", "draw N of each with --per-class N"),
        "two_labels": ("same image in two classes", "decide which class is right"),
        "leak": ("same image in training and test", "remove one; skipping drops the test image"),
    },
    Severity.WARNING: {
        "uneven": ("classes of different sizes", "draw N of each with --per-class N"),
        "duplicate": ("same image twice", "remove one; both stay on one side of the split"),
        "kept": ("refused by default, kept as Keras keeps it", 'see on_bad="keep"'),
        "near_duplicate": ("almost the same image twice", "look at both"),
        "class_differs": ("class with a telltale difference", "a model may learn that instead"),
        "link": ("symbolic link", "its target is used"),
        "nested_folder": ("folder within a class", "its images belong to the class"),
        "other_files": ("file that is not an image", "it is left out"),
        "trailing_bytes": ("bytes after the end of the image", "they are not read"),
        "resized": ("resized", "bring all images to one size"),
        "stretched": ("resized to another shape", "crop or pad it; it is distorted"),
        "large": ("large image", "make it smaller to save time"),
        "no_contrast": ("all pixels nearly alike", "look at it"),
        "inverted": ("bright background where most are dark, or the reverse", "look at it"),
        "colored": ("colored where most are gray", "look at it"),
        "noise": ("pixels without any order", "look at it"),
        "animated_png": ("animated PNG, its first image is used", "save the frame you want"),
        "crowded": ("more than one digit", "crop it to one digit"),
        "color_lost": ("colored image read as gray", "read it with color_mode='rgb'"),
        "left_aside": ("folder beside those that are read", "name it, or move it into one of them"),
    },
    Severity.FIXED: {
        "one_bit": ("1-bit image, read as black and white", ""),
        "palette": ("palette image, read by its colors", ""),
        "sixteen_bit": ("16-bit image, scaled to 8 bits", ""),
        "cmyk": ("CMYK image, converted to RGB", ""),
        "opaque_alpha": ("opaque alpha channel, left out", ""),
        "rotated": ("turned upright by its EXIF data or XMP", ""),
        "gray_in_rgb": ("gray image in three channels, read as one", ""),
    },
    Severity.IGNORED: {
        "hidden": ("hidden or system file or folder", ""),
        "folder_link": ("link to a folder, not followed", ""),
        "image_named_folder": ("folder named like an image", ""),
        "beside_classes": ("file beside the class folders", ""),
    },
    Severity.NOTE: {
        "mislabeled": ("extension of another type; the content decides", ""),
        "color_profile": ("color profile or gamma, not applied", ""),
    },
}
KINDS = {
    kind: Kind(severity, title, advice)
    for severity, kinds in _TITLES_AND_ADVICE.items()
    for kind, (title, advice) in kinds.items()
}


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    kind: str  # key of `KINDS`
    path: str  # of a file or folder, relative to what was audited; `.` stands for all of it
    reason: str = ""  # what is known beyond the kind

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        said = self.reason or KINDS[self.kind].title
        return escaped(said if self.path == "." else f"{self.path}: {said}")


class ImageFolderError(DataError):
    """Images that cannot be used as they are.

    Args:
        directory: What was audited.
        findings: One `Finding` for each file or folder that was refused; an attribute.
        files: Number of files that were audited.
    """

    def __init__(self, directory: Path | str, findings: Sequence[Finding], files: int = 0):
        self.findings = tuple(findings)
        name = escaped(str(directory))
        if len(findings) == 1:
            super().__init__(f"{name}: {findings[0]} ({KINDS[findings[0].kind].advice})")
            return
        lines = [f"{name}: {len(findings)} files or folders refused"]
        for kind, group in by_kind(findings):
            lines += [f"{KINDS[kind].title}: {KINDS[kind].advice}", *(f"  {f}" for f in group)]
        if hint := environment_hint(findings, files):
            lines.append(hint)
        super().__init__("\n  ".join(lines))


def by_kind(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """Return the findings of each kind, sorted by path: the gravest kinds first, as in `KINDS`."""
    rank = {kind: number for number, kind in enumerate(KINDS)}
    ordered = sorted(findings, key=lambda finding: (rank[finding.kind], finding.path))
    return [(kind, list(group)) for kind, group in groupby(ordered, key=lambda f: f.kind)]


# What machines and downloads do to files, rather than people who made them.
_DONE_TO_FILES = (
    *("empty_file", "web_page", "lfs_pointer", "not_an_image", "truncated", "damaged"),
    *("unreadable_file", "broken_link"),
)


def environment_hint(findings: Iterable[Finding], files: int) -> str:
    """Return a sentence if a machine or a download seems to have spoiled most files in one way."""
    for kind, group in by_kind(findings):
        if kind in _DONE_TO_FILES and len(group) > max(2, files / 2):
            return (
                f"{len(group)} of {files} files fail in one way ({KINDS[kind].title}): this looks "
                "like a problem with the machine or the download, not with the images"
            )
    return ""


def as_document(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return the findings as plain JSON values, grouped by kind."""
    return [
        {
            "kind": kind,
            **KINDS[kind]._asdict(),
            "count": len(group),
            "files": [{"path": f.path, "reason": f.reason} for f in group],
        }
        for kind, group in by_kind(findings)
    ]
