"""What an audit finds: each kind of finding with how grave it is and what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from mnist_keras._foundations.files import escaped
from mnist_keras.datasets.images import DataError


class Severity(StrEnum):
    """How grave a finding is, gravest first."""

    FATAL = "fatal"  # nothing can be trained on this
    REFUSED = "refused"  # the file cannot be used; `on_bad="skip"` leaves it out
    WARNING = "warning"  # used as it is
    FIXED = "fixed"  # converted in memory, its meaning kept
    IGNORED = "ignored"  # no part of the data
    NOTE = "note"  # worth knowing

    @property
    def refuses(self) -> bool:
        """Whether the data is not used as it is."""
        return self in (Severity.FATAL, Severity.REFUSED)


@dataclass(frozen=True)
class Kind:
    """A kind of finding: what it is called, how grave it is, and what to do about it."""

    title: str
    severity: Severity
    advice: str = ""


KINDS = {
    # The folder itself.
    "missing": Kind("no such folder", Severity.FATAL, "check the path"),
    "no_classes": Kind(
        "no class folders", Severity.FATAL, "make one folder of images for each class"
    ),
    "single_class": Kind(
        "only one class",
        Severity.FATAL,
        "make one folder of images for each of two classes or more",
    ),
    "too_deep": Kind("one level too deep", Severity.FATAL, "name the inner folder"),
    "ambiguous": Kind("more than one folder to train on", Severity.FATAL, "name one of them"),
    "lookalike_classes": Kind(
        "class names that look alike", Severity.FATAL, "rename one, or join the two folders"
    ),
    "other_classes": Kind(
        "other classes in training and test", Severity.FATAL, "give both the same class folders"
    ),
    "unreadable_folder": Kind("unreadable folder", Severity.FATAL, "give yourself the permission"),
    "too_many_files": Kind(
        "more files than expected", Severity.FATAL, "check the path, or raise --max-files"
    ),
    "bad_arrays": Kind("arrays that are no labeled images", Severity.FATAL, "see docs/images.md"),
    # One file that cannot be used.
    "empty_file": Kind("empty file", Severity.REFUSED, "fetch it again"),
    "web_page": Kind(
        "web page in place of an image", Severity.REFUSED, "fetch the image itself; log in first"
    ),
    "lfs_pointer": Kind("Git LFS pointer in place of an image", Severity.REFUSED, "git lfs pull"),
    "not_an_image": Kind("no image", Severity.REFUSED, "remove it, or fetch it again"),
    "unsupported_type": Kind("image of an unsupported type", Severity.REFUSED, "convert it to PNG"),
    "truncated": Kind("truncated image", Severity.REFUSED, "fetch it again"),
    "damaged": Kind("damaged image", Severity.REFUSED, "fetch it again"),
    "too_large": Kind("too large to decode safely", Severity.REFUSED, "make it smaller"),
    "too_small": Kind("too small to show anything", Severity.REFUSED, "remove it"),
    "transparent": Kind(
        "transparent pixels", Severity.REFUSED, "flatten it onto the background it is meant for"
    ),
    "rotated": Kind("rotated by its EXIF data", Severity.REFUSED, "save it upright"),
    "animated": Kind("animated image", Severity.REFUSED, "save the frame you mean"),
    "unreadable_file": Kind("unreadable file", Severity.REFUSED, "give yourself the permission"),
    "broken_link": Kind("broken link", Severity.REFUSED, "remove it, or mend its target"),
    "not_a_file": Kind("no regular file", Severity.REFUSED, "remove it"),
    # Classes and files beside each other.
    "empty_class": Kind("class without images", Severity.REFUSED, "remove or fill the folder"),
    "no_usable_image": Kind(
        "class without one usable image", Severity.REFUSED, "see what is said of its files"
    ),
    "too_few": Kind("class with too few images", Severity.FATAL, "ask for fewer: --per-class"),
    "imbalanced": Kind(
        "classes of very different sizes",
        Severity.REFUSED,
        "even them out: --per-class N draws N of each",
    ),
    "two_labels": Kind("same image in two classes", Severity.REFUSED, "decide which is right"),
    "leak": Kind(
        "same image in training and test",
        Severity.REFUSED,
        "remove one; skipping drops the test image",
    ),
    "uneven": Kind("classes of different sizes", Severity.WARNING, "--per-class N draws N of each"),
    "duplicate": Kind(
        "same image twice", Severity.WARNING, "remove one; both stay on one side of the split"
    ),
    "near_duplicate": Kind("almost the same image twice", Severity.WARNING, "look at both"),
    "class_differs": Kind(
        "class that differs in more than its images",
        Severity.WARNING,
        "a model may learn that instead",
    ),
    # One file that can be used.
    "link": Kind("symbolic link", Severity.WARNING, "its target is used"),
    "nested_folder": Kind(
        "folder within a class", Severity.WARNING, "its images count as the class's"
    ),
    "other_files": Kind("file that is no image", Severity.WARNING, "left out"),
    "trailing_bytes": Kind("bytes after the end of the image", Severity.WARNING, "not read"),
    "resized": Kind("resized", Severity.WARNING, "bring all images to one size"),
    "stretched": Kind(
        "resized to another shape", Severity.WARNING, "crop or pad it: it is distorted"
    ),
    "large": Kind("large image", Severity.WARNING, "make it smaller: it costs time"),
    "no_contrast": Kind("all pixels nearly alike", Severity.WARNING, "look at it"),
    "inverted": Kind(
        "bright background where most are dark, or the reverse", Severity.WARNING, "look at it"
    ),
    "colored": Kind("colored where most are gray", Severity.WARNING, "look at it"),
    "noise": Kind("pixels without any order", Severity.WARNING, "look at it"),
    "color_lost": Kind(
        "colored image read as gray", Severity.WARNING, "read it with color_mode='rgb'"
    ),
    "one_bit": Kind("1-bit image, read as black and white", Severity.FIXED),
    "palette": Kind("palette image, read by its colors", Severity.FIXED),
    "sixteen_bit": Kind("16-bit image, scaled to 8 bits", Severity.FIXED),
    "cmyk": Kind("CMYK image, converted to RGB", Severity.FIXED),
    "opaque_alpha": Kind("opaque alpha channel, left out", Severity.FIXED),
    "gray_in_rgb": Kind("gray image in three channels, read as one", Severity.FIXED),
    "left_aside": Kind(
        "folder beside those that are read", Severity.WARNING, "name it, or move it into them"
    ),
    "hidden": Kind("hidden or system file or folder", Severity.IGNORED),
    "folder_link": Kind("link to a folder, not followed", Severity.IGNORED),
    "image_named_folder": Kind("folder named like an image", Severity.IGNORED),
    "beside_classes": Kind("file beside the class folders", Severity.IGNORED),
    "mislabeled": Kind("extension of another type; the content decides", Severity.NOTE),
    "color_profile": Kind("color profile or gamma, not applied", Severity.NOTE),
}

OnBad = Literal["refuse", "skip"]


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: Key of `KINDS`.
        path: File or folder relative to what was audited, or `.` for all of it.
        reason: What is known of this one beyond its kind; may be empty.
    """

    kind: str
    path: str
    reason: str = ""

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        said = self.reason or KINDS[self.kind].title
        return escaped(said if self.path == "." else f"{self.path}: {said}")


class ImageFolderError(DataError):
    """Images that cannot be used as they are.

    Attributes:
        findings: Why: one `Finding` for each file or folder that was refused.
    """

    def __init__(self, directory: Path | str, findings: Sequence[Finding], hint: str = ""):
        self.findings = tuple(findings)
        name = escaped(str(directory))
        if len(findings) == 1:
            (finding,) = findings
            super().__init__(f"{name}: {finding} ({KINDS[finding.kind].advice})")
            return
        lines = [f"{name}: {len(findings)} files or folders refused"]
        for kind, group in by_kind(findings):
            lines.append(f"{KINDS[kind].title}: {KINDS[kind].advice}")
            lines += [f"  {finding}" for finding in group]
        lines += [hint] if hint else []
        super().__init__("\n  ".join(lines))


def require(
    directory: Path | str, findings: Iterable[Finding], on_bad: OnBad = "refuse", files: int = 0
) -> None:
    """Raise unless the audited images can be used.

    Args:
        directory: What was audited.
        findings: What was found.
        on_bad: `"refuse"` raises if any file is refused; `"skip"` only if nothing can be done.
        files: How many files were audited.

    Raises:
        ImageFolderError: With all findings of that gravity.
    """
    refused = [
        finding
        for finding in findings
        if finding.severity.refuses and (on_bad == "refuse" or finding.severity == Severity.FATAL)
    ]
    if refused:
        raise ImageFolderError(directory, refused, environment_hint(refused, files))


def by_kind(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """Return the findings of each kind by path, the gravest first, then in the order of `KINDS`."""
    rank = {kind: number for number, kind in enumerate(KINDS)}
    severities = list(Severity)
    ordered = sorted(findings, key=lambda f: (severities.index(f.severity), rank[f.kind], f.path))
    return [(kind, list(group)) for kind, group in groupby(ordered, key=lambda f: f.kind)]


# Refusals that say something of several files, not of one that fails.
_NO_FAILURES = ("empty_class", "no_usable_image", "imbalanced", "two_labels", "leak")


def environment_hint(findings: Iterable[Finding], files: int) -> str:
    """Return a sentence if most files fail in one way, for which they are rarely to blame."""
    for kind, group in by_kind(findings):
        fails = KINDS[kind].severity == Severity.REFUSED and kind not in _NO_FAILURES
        if fails and len(group) > max(2, files / 2):
            return (
                f"{len(group)} of {files} files fail in one way ({KINDS[kind].title}): this looks "
                "like a problem of the machine or of the download, not of the images"
            )
    return ""


def as_document(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return the findings as plain JSON values, grouped by kind."""
    return [
        {
            "kind": kind,
            "severity": str(KINDS[kind].severity),
            "title": KINDS[kind].title,
            "advice": KINDS[kind].advice,
            "count": len(group),
            "files": [{"path": f.path, "reason": f.reason} for f in group],
        }
        for kind, group in by_kind(findings)
    ]
