"""A model's portrait: pictures of how it decides, each with what it shows and measures."""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

from mnist_keras._foundations.pictures import Picture, plain_names
from mnist_keras._foundations.seeds import generator
from mnist_keras._foundations.statistics import t_interval, wilson_interval
from mnist_keras.datasets.images import LabeledImages
from mnist_keras.explanations.embeddings import features, nearest_neighbor_score, tsne
from mnist_keras.explanations.erasure import erasure
from mnist_keras.explanations.maps import (
    ExplanationError,
    convolutions,
    grad_cam,
    hires_cam,
    occlusion,
)
from mnist_keras.inference import figures as model_figures
from mnist_keras.inference.figures import Embedding
from mnist_keras.inference.model_file import TrainedModel
from mnist_keras.models.prediction import predict, softmax

_MISTAKES = 12
_FILTERS = 64
# Images on which maps are checked, and compared with those before training, at most: an occlusion
# map costs the classification of a hundred images.
_CHECKED, _COMPARED = 200, 50


def draw(
    trained: TrainedModel,
    images: LabeledImages,
    *,
    layers: Sequence[str] = (),
    label: int | None = None,
    count: int = 10,
    embedded: int = 1000,
    seed: int = 0,
) -> Iterator[Picture]:
    """Yield the pictures of a model on labeled images, one after the other.

    Args:
        trained: The model.
        images: At least ten images, with the model's classes.
        layers: Convolutions to draw maps of. Defaults to the last one, if there is one.
        label: Class that the maps are for. Defaults to the one predicted for each image.
        count: Images in the strip of maps.
        embedded: Images on the maps of t-SNE, at most.
        seed: Integer >= 0 for what is drawn at random.

    Raises:
        ExplanationError: If the model has no such layer, or gives no finite numbers.
    """
    images = images.canonical()
    probabilities = softmax(predict(trained.model, images.images))
    if not np.isfinite(probabilities).all():
        raise ExplanationError("the model's probabilities are not finite numbers")
    with plain_names():
        yield _maps(trained, images, probabilities, layers, label, count, seed)
        if picture := _mistakes(trained, images, probabilities, layers):
            yield picture
        yield _embeddings(trained, images, embedded, seed)
        if picture := _filters(trained.model):
            yield picture


_Method = Callable[[keras.Model, np.ndarray, np.ndarray], np.ndarray]


def _methods(trained: TrainedModel, layers: Sequence[str]) -> dict[str, _Method]:
    background = trained.card.input.background_level

    def of_layer(method: Callable[..., np.ndarray], layer: str) -> _Method:
        return lambda model, images, classes: method(model, images, classes, layer)

    methods = {
        f"{name}\n{layer}": of_layer(method, layer)
        for layer in layers or convolutions(trained.model)[-1:]
        for name, method in (("HiResCAM", hires_cam), ("Grad-CAM", grad_cam))
    }
    methods["occlusion"] = lambda m, images, classes: occlusion(
        m, images, classes, background=background
    )
    return methods


def _maps(
    trained: TrainedModel,
    images: LabeledImages,
    probabilities: np.ndarray,
    layers: Sequence[str],
    label: int | None,
    count: int,
    seed: int,
) -> Picture:
    """Draw a strip of maps, and measure whether they point at what matters."""
    names = trained.card.class_names
    classes = probabilities.argmax(1) if label is None else np.full(len(images), label)
    methods = _methods(trained, layers)
    strip = _one_of_each(images.labels, count)
    shown = images.images[strip]
    captions = [
        f"{names[images.labels[i]]}: {names[classes[i]]} {probabilities[i, classes[i]]:.2f}"
        for i in strip
    ]
    checked = generator(seed, "checked maps").permutation(len(images))[:_CHECKED]
    pixels, of_checked = images.images[checked], classes[checked]
    background, before = trained.card.input.background_level, trained.untrained()
    said, maps = [], {}
    for name, method in methods.items():
        maps[name] = method(trained.model, shown, classes[strip])
        found = method(trained.model, pixels, of_checked)
        erased = erasure(trained.model, pixels, found, of_checked, background=background, seed=seed)
        untrained = method(before, pixels[:_COMPARED], of_checked[:_COMPARED])
        said.append(
            f"Erasing the tenth of the pixels that {_line(name)} points to lowers the class's "
            f"probability by {_mean(erased.pointed)}: by "
            f"{_mean(erased.pointed - erased.elsewhere)} more than erasing the same shape "
            "elsewhere, and by "
            f"{_mean(erased.pointed - erased.ink)} more than erasing as much ink at random. Its "
            f"maps correlate by {_correlation(found[:_COMPARED], untrained):.2f} with those of the "
            "same network before training."
        )
    of = "the predicted class" if label is None else f"class {names[label]}"
    return Picture(
        "maps",
        f"Maps for {of}. Measured on {len(checked)} images, with 95 % intervals: {' '.join(said)}",
        model_figures.maps_figure(
            shown,
            captions,
            maps,
            f"Evidence for {of}. Above: the image's class: the class explained, its probability",
        ),
    )


def _mistakes(
    trained: TrainedModel,
    images: LabeledImages,
    probabilities: np.ndarray,
    layers: Sequence[str],
) -> Picture | None:
    """Draw the mistakes it was surest of, with the evidence for its answer and for the truth."""
    given, names = probabilities.argmax(1), trained.card.class_names
    wrong = np.flatnonzero(given != images.labels)
    if not len(wrong):
        return None
    surest = wrong[np.argsort(-probabilities[wrong, given[wrong]], kind="stable")][:_MISTAKES]
    shown, labels = images.images[surest], images.labels[surest]
    name, method = next(iter(_methods(trained, layers).items()))
    captions = [
        f"{names[images.labels[i]]} → {names[given[i]]}\n{probabilities[i, given[i]]:.3f}"
        for i in surest
    ]
    maps = {
        f"{name}\nfor the answer": method(trained.model, shown, given[surest]),
        f"{name}\nfor the truth": method(trained.model, shown, labels),
    }
    low, high = wilson_interval(len(wrong), len(images))
    return Picture(
        "mistakes",
        f"The {len(surest)} most confident of {len(wrong):,} mistakes among {len(images):,} images "
        f"({100 * len(wrong) / len(images):.2f} % [{100 * low:.1f}, {100 * high:.1f}]).",
        model_figures.maps_figure(
            shown, captions, maps, "Most confident mistakes: true class → answer, probability"
        ),
    )


def _embeddings(trained: TrainedModel, images: LabeledImages, embedded: int, seed: int) -> Picture:
    """Draw pixels and features on planes, with what a nearest neighbor knows there."""
    chosen = generator(seed, "embedded images").permutation(len(images))[:embedded]
    images = images.take(np.sort(chosen))
    spaces = {
        "pixels": images.images[:].reshape(len(images), -1).astype(np.float32) / 255,
        "features before training": features(trained.untrained(), images.images),
        "features after training": features(trained.model, images.images),
    }
    embeddings = []
    for name, vectors in spaces.items():
        points = tsne(vectors, seed)
        scores = (nearest_neighbor_score(v, images.labels) for v in (vectors, points))
        embeddings.append(Embedding(name, points, *scores))
    seen = int(np.isin(images.fingerprints, trained.card.trained_on).sum())
    said = ", ".join(f"{e.name} {_share(e.score, len(images))}" for e in embeddings)
    return Picture(
        "tsne",
        f"t-SNE of {len(images):,} images, {seen:,} of which were trained on. Share whose nearest "
        f"other image has the same class (1-NN, leave one out, Wilson's 95 % interval): {said}. "
        "On a plane of t-SNE only nearness has a meaning; sizes and gaps have none.",
        model_figures.embedding_figure(
            embeddings, images.labels, images.class_names, f"t-SNE of {images.name}"
        ),
    )


def _filters(model: keras.Model) -> Picture | None:
    """Draw the first layer's kernels as gray images meet them: summed over the channels."""
    layer = next((layer for layer in model.layers if layer.weights), None)
    if layer is None:
        return None
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if kernel.ndim == 2:
        kernel = kernel.reshape(*model.input_shape[1:], -1)
    kernels = np.moveaxis(kernel.sum(-2), -1, 0)
    shown = kernels[:_FILTERS]
    return Picture(
        "filters",
        f"{len(shown)} of {len(kernels)} filters of the first layer, {layer.name}, summed over the "
        "channels; blue is positive, red negative, each on its own scale.",
        model_figures.filters_figure(shown, f"Filters of {layer.name}"),
    )


def _one_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Return `count` positions: the first of each class, then the second of each."""
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        turn[own] = np.arange(len(own))
    return np.sort(np.lexsort((labels, turn))[:count])


def _correlation(maps: np.ndarray, others: np.ndarray) -> float:
    """Return the mean over images of the maps' correlation; a map of one value has none."""
    a, b = (m.reshape(len(m), -1) - m.mean((1, 2))[:, np.newaxis] for m in (maps, others))
    norms = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    there = norms > 0
    return float(((a * b).sum(1)[there] / norms[there]).mean()) if there.any() else 0.0


def _line(name: str) -> str:
    return name.replace("\n", " ")


def _mean(values: np.ndarray) -> str:
    bounds = t_interval(values.tolist())
    interval = f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
    return f"{values.mean():.3f}{interval}"


def _share(score: float, n: int) -> str:
    low, high = wilson_interval(round(score * n), n)
    return f"{100 * score:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
