"""How figures look, how they are saved, and a folder of pictures with their captions."""

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnist_keras._foundations.files import FileError, reason, shown_names, write

# Okabe and Ito's colors, told apart by color-blind readers; the markers tell them apart in gray.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"

INDEX = "gallery.json"


def plain_names() -> AbstractContextManager[None]:
    """Return a context in which names with dollar signs are drawn as they are."""
    return matplotlib.rc_context({"text.parse_math": False})


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, which makes room for its texts."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_confusion(
    axes: Axes, confusion: Sequence[Sequence[int]], class_names: Sequence[str]
) -> None:
    """Draw how often images of each class (row) were given each class (column), in percent."""
    shares = [[100 * count / max(1, sum(row)) for count in row] for row in confusion]
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=100)
    classes = range(len(shares))
    if len(shares) <= 12:
        for y, x in product(classes, classes):
            if (share := shares[y][x]) >= 0.5:
                color = "white" if share > 50 else "black"
                axes.text(x, y, f"{share:.0f}", color=color, ha="center", va="center", fontsize=7)
        names = [n if len(n) <= 16 else f"{n[:15]}…" for n in shown_names(class_names)]
        if len(set(names)) < len(names):
            names = [f"{number}: {name[:12]}…" for number, name in enumerate(names, 1)]
        upright = max(map(len, names)) > 2
        axes.set_xticks(classes, names, fontsize=8, rotation=90 if upright else 0)
        axes.set_yticks(classes, names, fontsize=8)
    axes.set(xlabel="given", ylabel="true")


def encode(figure: Figure, format: str) -> bytes:
    """Return a figure as `"png"` or `"svg"`: always the same bytes for the same figure."""
    file = io.BytesIO()
    metadata = {"Date": None} if format == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "mnist-keras"}), warnings.catch_warnings():
        # Names in a script that the font lacks are shown as boxes; the tables have them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format=format, dpi=120, metadata=metadata)
    return file.getvalue()


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its files, and a caption."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Gallery:
    """The pictures of a folder as a page shows them."""

    title: str
    pictures: tuple[tuple[str, str, bytes], ...]  # name, caption and SVG of each


def write_picture(folder: Path, picture: Picture) -> None:
    """Write a picture as PNG and SVG."""
    for format in ("png", "svg"):
        write(folder / f"{picture.name}.{format}", encode(picture.figure, format))


def write_index(folder: Path, title: str, captions: Mapping[str, str]) -> None:
    """Write what all pictures of a folder show, and the caption of each by name."""
    document = {"title": title, "pictures": dict(captions)}
    write(folder / INDEX, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def read_gallery(folder: Path) -> Gallery | None:
    """Return the pictures of a folder, or `None` if it has no index of pictures."""
    index = folder / INDEX
    try:
        if not index.exists():
            return None
        document = json.loads(index.read_bytes())
        pictures = tuple(
            (str(name), str(caption), (folder / f"{Path(name).name}.svg").read_bytes())
            for name, caption in document["pictures"].items()
        )
        return Gallery(str(document["title"]), pictures)
    except OSError as error:
        said = f"{error.filename}: {reason(error)}"
        raise FileError(f"{index}: its pictures cannot be read: {said}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{index}: not an index of pictures: {error!r}") from error
