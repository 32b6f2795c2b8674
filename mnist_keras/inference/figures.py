"""Pictures of one model: how calibrated it is, where it looks, and how it sorts images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from mnist_keras._foundations import pictures
from mnist_keras._foundations.files import shown_names
from mnist_keras._foundations.pictures import COLORS, MARKERS, Picture, canvas
from mnist_keras.inference.evaluation import Evaluation

# Maps are brighter where there is more evidence, in gray print too; the image shows through.
MAP_COLORS, MAP_SHARE = "magma", 0.75
_MOST_COLUMNS, _MOST_FILTERS = 12, 16
_GAP = 1  # pixels between images
# Ten classes need ten different colors; the markers tell them apart in gray.
_CLASS_COLORS = (*COLORS, "#999999", "#7F4F24", "#6A3D9A")


def evaluation_pictures(evaluation: Evaluation, title: str) -> Iterator[Picture]:
    """Yield the reliability diagram and the confusion matrix."""
    with pictures.plain_names():
        yield Picture("reliability", title, _reliability_figure(evaluation, title))
        confusion = canvas(5, 5.3)
        names = [score.name for score in evaluation.classes]
        pictures.draw_confusion(confusion.subplots(), evaluation.confusion.tolist(), names)
        confusion.suptitle(f"{title}\nconfusion, % of each true class", fontsize=9)
        yield Picture("confusion", title, confusion)


def _reliability_figure(evaluation: Evaluation, title: str) -> Figure:
    """Return accuracy against confidence, and the number of images at each confidence."""
    figure = canvas(5, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    bins = [b for b in evaluation.bins if b.n]
    width = evaluation.bins[0].high - evaluation.bins[0].low
    middles = [(b.low + b.high) / 2 for b in bins]
    above.bar(middles, [b.accuracy for b in bins], width, color=COLORS[5], edgecolor="black")
    above.plot([0, 1], [0, 1], "--", color="black", label="perfectly calibrated")
    confidences, accuracies = [b.confidence for b in bins], [b.accuracy for b in bins]
    means = "mean confidence of the bin"
    above.plot(confidences, accuracies, MARKERS[0], color=COLORS[1], label=means)
    above.set(ylabel="accuracy", ylim=(0, 1.02))
    above.legend(fontsize=8, loc="upper left")
    above.grid(alpha=0.3)
    below.bar(middles, [b.n for b in bins], width, color="gray", edgecolor="black")
    below.set(xlabel="confidence (highest probability)", ylabel="images", xlim=(0, 1))
    said = "overconfident" if evaluation.overconfidence > 0 else "underconfident"
    figure.suptitle(
        f"{title}\nexpected calibration error {100 * evaluation.calibration_error:.2f} %, "
        f"{said} by {100 * abs(evaluation.overconfidence):.2f} points; n = {evaluation.n:,}",
        fontsize=9,
    )
    return figure


def maps_figure(
    images: np.ndarray, captions: Sequence[str], maps: Mapping[str, np.ndarray], title: str
) -> Figure:
    """Return a strip: the images with their captions, and below them a row of maps for each method.

    Images have levels in 0…255; maps have the shape `(n, height, width)` and values in 0…1.
    """
    columns = min(_MOST_COLUMNS, len(images))
    blocks = [slice(i, i + columns) for i in range(0, len(images), columns)]
    rows = ("image", *maps)
    figure = canvas(0.9 * columns + 0.9, (0.9 * len(rows) + 0.4) * len(blocks) + 0.4)
    figure.set_layout_engine("constrained", h_pad=0.02)
    panels = iter(figure.subplots(len(rows) * len(blocks), 1, squeeze=False)[:, 0])
    for block in blocks:
        strip = _side_by_side(np.rint(images[block]).astype(np.uint8), columns, 255)
        for row in rows:
            axes = next(panels)
            axes.imshow(strip)
            if row in maps:
                shown = _side_by_side(maps[row][block], columns, np.nan)
                axes.imshow(shown, cmap=MAP_COLORS, vmin=0, vmax=1, alpha=MAP_SHARE)
            else:
                width = images.shape[2] + _GAP
                for column, caption in enumerate(captions[block]):
                    middle = column * width + images.shape[2] / 2
                    axes.text(middle, -1.5, caption, fontsize=7, ha="center", va="bottom")
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(False)
            axes.set_ylabel(row, fontsize=7)
    figure.suptitle(title, fontsize=9)
    return figure


def _side_by_side(images: np.ndarray, columns: int, gap: float) -> np.ndarray:
    """Return images in a row of this many columns, with gaps of that level between them."""
    if images.shape[-1] == 1 and images.ndim == 4:
        images = np.repeat(images, 3, axis=-1)
    n, height, width, *channels = images.shape
    row = np.full((height, columns, width + _GAP, *channels), gap, images.dtype)
    row[:, :n, :width] = np.moveaxis(images, 0, 1)
    return row.reshape(height, -1, *channels)[:, :-_GAP]


@dataclass(frozen=True)
class Embedding:
    """Images on a plane, with the 1-NN scores of what was embedded and of the points there."""

    name: str
    points: np.ndarray  # of shape (n, 2)
    score: float
    score_on_plane: float


def embedding_figure(
    embeddings: Sequence[Embedding], labels: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """Return one panel for each embedding, with its 1-NN scores above it."""
    figure = canvas(4.2 * len(embeddings), 5)
    panels = figure.subplots(1, len(embeddings), squeeze=False)[0]
    for axes, embedding in zip(panels, embeddings, strict=True):
        for label, name in enumerate(shown_names(class_names)):
            own = embedding.points[labels == label]
            color = _CLASS_COLORS[label % len(_CLASS_COLORS)]
            marker = MARKERS[label % len(MARKERS)]
            axes.scatter(*own.T, s=9, color=color, marker=marker, linewidths=0, label=name)
        axes.set(xticks=[], yticks=[])
        axes.set_title(
            f"{embedding.name}\n1-NN {100 * embedding.score:.1f} % "
            f"(on this plane {100 * embedding.score_on_plane:.1f} %)",
            fontsize=9,
        )
    if (n := len(class_names)) <= 20:
        legend = panels[0].get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=min(10, n), markerscale=2)
    figure.suptitle(title, fontsize=9)
    return figure


def filters_figure(kernels: np.ndarray, title: str) -> Figure:
    """Return the filters of a first layer, `(n, height, width)`, each on its own scale around 0."""
    highest = np.abs(kernels).max((1, 2), keepdims=True)
    scaled = kernels / np.where(highest > 0, highest, 1)
    scaled = np.pad(scaled, ((0, 0), (0, _GAP), (0, 0)), constant_values=np.nan)
    columns = min(_MOST_FILTERS, len(kernels))
    blocks = range(0, len(kernels), columns)
    rows = [_side_by_side(scaled[i : i + columns], columns, np.nan) for i in blocks]
    figure = canvas(0.6 * columns, 0.6 * len(rows) + 0.5)
    axes = figure.subplots()
    axes.imshow(np.concatenate(rows)[:-_GAP], cmap="RdBu", vmin=-1, vmax=1, interpolation="none")
    axes.set_axis_off()
    figure.suptitle(title, fontsize=9)
    return figure
