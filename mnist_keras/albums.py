"""A folder of pictures of one model, with a sentence each: written, and read for a page."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mnist_keras.figures import encode
from mnist_keras.records import RecordError, write

INDEX = "album.json"


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its files, and what it shows."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Album:
    """The pictures of a folder, as a page needs them.

    Attributes:
        title: What all of them are of.
        pictures: Name, caption and SVG of each.
    """

    title: str
    pictures: tuple[tuple[str, str, bytes], ...]


def write_picture(folder: Path, picture: Picture) -> None:
    """Write a picture as PNG and SVG."""
    for format in ("png", "svg"):
        write(folder / f"{picture.name}.{format}", encode(picture.figure, format))


def write_index(folder: Path, title: str, captions: Mapping[str, str]) -> None:
    """Write which pictures a folder has, by name with their captions, and what all are of."""
    document = {"title": title, "pictures": dict(captions)}
    write(folder / INDEX, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def read_album(folder: Path) -> Album | None:
    """Return the pictures of a folder, or `None` if there are none.

    Raises:
        RecordError: If its index cannot be read, or names a picture that is not there.
    """
    index = folder / INDEX
    try:
        if not index.exists():
            return None
        document = json.loads(index.read_bytes())
        pictures = tuple(
            (str(name), str(caption), (folder / f"{Path(name).name}.svg").read_bytes())
            for name, caption in document["pictures"].items()
        )
        return Album(str(document["title"]), pictures)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}"
        raise RecordError(f"{index}: its pictures cannot be read: {said}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{index}: not an index of pictures: {error!r}") from error
