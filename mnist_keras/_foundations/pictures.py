"""A folder of pictures of one model, with a sentence each: written, and read for a page."""

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnist_keras._foundations.files import FileError, write

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
        FileError: If its index cannot be read, or names a picture that is not there.
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
        raise FileError(f"{index}: its pictures cannot be read: {said}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{index}: not an index of pictures: {error!r}") from error


# Okabe and Ito's colors, told apart by color-blind readers; the markers tell them apart in gray.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


MARKERS = "osD^vPX"


def plain_names() -> AbstractContextManager[None]:
    """Return a context in which a name is drawn as a name, be there dollar signs in it."""
    return matplotlib.rc_context({"text.parse_math": False})


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of that many inches, which makes room for its texts."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def encode(figure: Figure, format: str) -> bytes:
    """Return a figure as `"png"` or `"svg"`, the same bytes for the same figure."""
    file = io.BytesIO()
    metadata = {"Date": None} if format == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "mnist-keras"}), warnings.catch_warnings():
        # Names in a script that the font lacks are shown as boxes; the tables have them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format=format, dpi=120, metadata=metadata)
    return file.getvalue()


def draw_confusion(
    axes: Axes, confusion: Sequence[Sequence[int]], class_names: Sequence[str]
) -> None:
    """Draw how often images of each class (line) were given each class (column), in percent."""
    shares = [[100 * count / max(1, sum(line)) for count in line] for line in confusion]
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=100)
    classes = range(len(shares))
    if len(shares) <= 12:
        for y in classes:
            for x in classes:
                if shares[y][x] >= 0.5:
                    color = "white" if shares[y][x] > 50 else "black"
                    axes.text(x, y, f"{shares[y][x]:.0f}", color=color, ha="center",
                              va="center", fontsize=7)  # fmt: skip
        names = [n if len(n) <= 16 else f"{n[:15]}…" for n in class_names]
        upright = max(map(len, names)) > 2
        axes.set_xticks(classes, names, fontsize=8, rotation=90 if upright else 0)
        axes.set_yticks(classes, names, fontsize=8)
    axes.set(xlabel="given", ylabel="true")
