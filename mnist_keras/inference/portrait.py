"""A model's portrait: pictures of how it decides, each with what it shows and measures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np

from mnist_keras._foundations.files import shown_names
from mnist_keras._foundations.pictures import Picture, plain_names, write_index, write_picture
from mnist_keras._foundations.seeds import generator
from mnist_keras._foundations.statistics import t_interval, wilson_interval
from mnist_keras._foundations.texts import percent
from mnist_keras.datasets.images import DataError, LabeledImages, scaled
from mnist_keras.explanations import ExplanationError, grad_cam, hires_cam, occlusion
from mnist_keras.explanations.embeddings import features, nearest_neighbor_score, tsne
from mnist_keras.explanations.erasure import erasure
from mnist_keras.explanations.maps import convolutions
from mnist_keras.inference.figures import Embedding, embedding_figure, filters_figure, maps_figure
from mnist_keras.inference.trained_model import TrainedModel
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training.settings import check_word

_LEAST_IMAGES = 10
_MISTAKES = 12
_FILTERS = 64
# At most this many images check the maps, and compare them with those before training: an
# occlusion map costs as much as classifying a hundred images.
_CHECKED, _COMPARED = 200, 50
_Method = Callable[[keras.Model, np.ndarray, np.ndarray], np.ndarray]


def check(trained: TrainedModel, layers: Sequence[str], class_name: str | None) -> int | None:
    """Return the label of a class, if one is named; refuse layers and classes of other models."""
    for layer in layers:
        check_word("convolution", layer, convolutions(trained.model) or ["none"])
    if class_name is None:
        return None
    names = list(trained.card.class_names)
    if class_name not in names:  # it may be given as it is shown
        names = shown_names(names)
        check_word("class", class_name, names)
    return names.index(class_name)


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
    """Return an iterator that draws the pictures of a model on labeled images of its classes.

    Args:
        layers: Convolutions to draw maps of. Defaults to the last one, if there is one.
        label: Class that the maps explain. Defaults to the one predicted for each image.
        count: Number of images in the strip of maps.
        embedded: Largest number of images in the t-SNE plots.
    """
    if (n := len(images)) < _LEAST_IMAGES:
        raise DataError(f"{images.name}: {n} images; pictures need at least {_LEAST_IMAGES}")
    images = images.canonical()
    probabilities = softmax(predict(trained.model, images.images))
    if not np.isfinite(probabilities).all():
        raise ExplanationError("the model's probabilities are not finite numbers")
    methods: dict[str, _Method] = {
        f"{name}\n{layer}": partial(method, layer=layer)
        for layer in layers or convolutions(trained.model)[-1:]
        for name, method in (("HiResCAM", hires_cam), ("Grad-CAM", grad_cam))
    }
    methods["occlusion"] = partial(occlusion, background=trained.card.input.background_level / 255)

    def pictures() -> Iterator[Picture | None]:
        with plain_names():
            yield _maps(trained, images, probabilities, methods, label, count, seed)
            yield _mistakes(trained, images, probabilities, *next(iter(methods.items())))
            yield _embeddings(trained, images, embedded, seed)
            yield _filters(trained.model)

    return (picture for picture in pictures() if picture)


def write(folder: Path, title: str, pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Write pictures and at last their index into a folder; yield each once it is written."""
    captions = {}
    for picture in pictures:
        write_picture(folder, picture)
        captions[picture.name] = picture.caption
        yield picture
    write_index(folder, title, captions)


def _maps(
    trained: TrainedModel,
    images: LabeledImages,
    probabilities: np.ndarray,
    methods: dict[str, _Method],
    label: int | None,
    count: int,
    seed: int,
) -> Picture:
    """Draw a strip of maps, and measure whether they point at what matters."""
    names = shown_names(trained.card.class_names)
    classes = probabilities.argmax(1) if label is None else np.full(len(images), label)
    strip = _one_of_each(images.labels, count)
    shown = images.images[strip]
    captions = [
        f"{names[images.labels[i]]}: {names[classes[i]]} {probabilities[i, classes[i]]:.2f}"
        for i in strip
    ]
    checked = generator(seed, "checked maps").permutation(len(images))[:_CHECKED]
    pixels, of_checked = scaled(images.images[checked]), classes[checked]
    background, before = trained.card.input.background_level / 255, trained.untrained()
    said, maps = [], {}
    for name, method in methods.items():
        line = name.replace("\n", " ")
        maps[name] = method(trained.model, scaled(shown), classes[strip])
        found = method(trained.model, pixels, of_checked)
        erased = erasure(trained.model, pixels, found, of_checked, background=background, seed=seed)
        untrained = method(before, pixels[:_COMPARED], of_checked[:_COMPARED])
        said.append(
            f"Erasing the tenth of the pixels that {line} points to lowers the probability "
            f"of the class by {_mean(erased.pointed)}. That is "
            f"{_mean(erased.pointed - erased.elsewhere)} more than erasing the same shape "
            f"elsewhere, and {_mean(erased.pointed - erased.ink)} more than erasing equally much "
            "ink at random. The maps correlate by "
            f"{_correlation(found[:_COMPARED], untrained):.2f} with those of the model before "
            "training."
        )
    of = "the predicted class" if label is None else f"class {names[label]}"
    caption = f"Maps for {of}. Measured on {len(checked)} images, with 95 % intervals:"
    title = f"Evidence for {of}. Above each image: its class: the class explained, its probability"
    return Picture("maps", " ".join([caption, *said]), maps_figure(shown, captions, maps, title))


def _mistakes(
    trained: TrainedModel,
    images: LabeledImages,
    probabilities: np.ndarray,
    name: str,
    method: _Method,
) -> Picture | None:
    """Draw the most confident mistakes, with the evidence for the answer and for the truth."""
    given, names = probabilities.argmax(1), shown_names(trained.card.class_names)
    wrong = np.flatnonzero(given != images.labels)
    if not len(wrong):
        return None
    surest = wrong[np.argsort(-probabilities[wrong, given[wrong]], kind="stable")][:_MISTAKES]
    shown = images.images[surest]
    captions = [
        f"{names[images.labels[i]]} → {names[given[i]]}\n{probabilities[i, given[i]]:.3f}"
        for i in surest
    ]
    maps = {
        f"{name}\nfor the answer": method(trained.model, scaled(shown), given[surest]),
        f"{name}\nfor the truth": method(trained.model, scaled(shown), images.labels[surest]),
    }
    share = percent(len(wrong) / len(images), wilson_interval(len(wrong), len(images)), unit=" %")
    title = "Most confident mistakes: true class → answer, probability"
    return Picture(
        "mistakes",
        f"The {len(surest)} most confident of {len(wrong):,} mistakes among {len(images):,} images "
        f"({share}).",
        maps_figure(shown, captions, maps, title),
    )


def _embeddings(trained: TrainedModel, images: LabeledImages, embedded: int, seed: int) -> Picture:
    """Draw pixels and features on planes, with what a nearest neighbor tells there."""
    chosen = generator(seed, "embedded images").permutation(len(images))[:embedded]
    images = images.take(np.sort(chosen))
    pixels = scaled(images.images)
    spaces = {
        "pixels": pixels.reshape(len(images), -1),
        "features before training": features(trained.untrained(), pixels),
        "features after training": features(trained.model, pixels),
    }
    embeddings = []
    for name, vectors in spaces.items():
        points = tsne(vectors, seed)
        scores = (nearest_neighbor_score(v, images.labels) for v in (vectors, points))
        embeddings.append(Embedding(name, points, *scores))
    seen = int(np.isin(images.fingerprints, trained.card.trained_on).sum())
    n = len(images)
    said = ", ".join(
        f"{e.name} {percent(e.score, wilson_interval(round(e.score * n), n), digits=1, unit=' %')}"
        for e in embeddings
    )
    return Picture(
        "tsne",
        f"t-SNE of {n:,} images, {seen:,} of which the model was trained on. Share whose "
        "nearest other image has the same class (1-NN, leave one out, Wilson's 95 % interval): "
        f"{said}. On a plane of t-SNE, only nearness has a meaning; sizes and gaps have none.",
        embedding_figure(embeddings, images.labels, images.class_names, f"t-SNE of {images.name}"),
    )


def _filters(model: keras.Model) -> Picture:
    """Draw the first layer's kernels as gray images meet them: summed over the channels."""
    layer = next(layer for layer in model.layers if layer.weights)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if kernel.ndim == 2:
        kernel = kernel.reshape(*model.input_shape[1:], -1)
    kernels = np.moveaxis(kernel.sum(-2), -1, 0)
    shown = kernels[:_FILTERS]
    return Picture(
        "filters",
        f"{len(shown)} of {len(kernels)} filters of the first layer, {layer.name}, summed over the "
        "channels; blue is positive, red negative, each on its own scale.",
        filters_figure(shown, f"Filters of {layer.name}"),
    )


def _one_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Return `count` positions: the first image of each class, then the second of each."""
    turn = np.zeros(len(labels), np.int64)
    for own in (labels == label for label in np.unique(labels)):
        turn[own] = np.arange(own.sum())
    return np.sort(np.lexsort((labels, turn))[:count])


def _correlation(maps: np.ndarray, others: np.ndarray) -> float:
    """Return the mean correlation of maps; a map of a single value has none."""
    varying = [(a.ravel(), b.ravel()) for a, b in zip(maps, others, strict=True)]
    found = [np.corrcoef(a, b)[0, 1] for a, b in varying if np.ptp(a) and np.ptp(b)]
    return float(np.mean(found)) if found else 0.0


def _mean(values: np.ndarray) -> str:
    bounds = t_interval(values.tolist())
    interval = f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
    return f"{values.mean():.3f}{interval}"
