"""Whether maps can be trusted: the effect of erasing the pixels that they point to."""

from dataclasses import dataclass

import keras
import numpy as np
from scipy.special import expit

from mnist_keras._foundations.seeds import generator
from mnist_keras.datasets.images import Images
from mnist_keras.explanations.explained_model import ExplainedModel, ExplanationError

# Relative error of a sum of ink.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Erasure:
    """How much probability images lose with the region that a map points to, and with others.

    Attributes:
        pointed: For each image, the fall of the class's probability when the region with the
            map's highest values is set to the background.
        elsewhere: The same for that region, shifted at random: equally many pixels of its shape.
        ink: The same for equally much ink, chosen at random. This is the harder test on digits:
            most of their pixels are background, where nothing can be erased.
    """

    pointed: np.ndarray
    elsewhere: np.ndarray
    ink: np.ndarray


def erasure(
    model: keras.Model,
    images: Images,
    maps: np.ndarray,
    classes: np.ndarray | None = None,
    share: float = 0.1,
    background: float = 0,
    seed: int = 0,
) -> Erasure:
    """Return what erasing the pixels with the highest values of each map does to the probability.

    Args:
        model, images, classes: As for `grad_cam`; images exactly as to `model.predict`.
        maps: One map for each image, shape `(n, height, width)`.
        share: Share of the pixels to erase, in (0, 1].
        background: Level that erased pixels are set to, in the range of the images.
        seed: Integer >= 0 for the random regions.

    Raises:
        ExplanationError: As `grad_cam` does, or if the maps do not fit the images.
    """
    explained = ExplainedModel(model, images)
    pixels = explained.images
    expected = (len(pixels), *(pixels.shape[axis] for axis in explained.axes[:2]))
    if maps.shape != expected:
        raise ExplanationError(f"expected maps of shape {expected}. Received: {maps.shape}")
    classes = explained.classes(classes)
    rng = generator(seed, "erasure")
    n, height, width = maps.shape
    count = max(1, round(share * height * width))
    regions = np.zeros((n, height * width), bool)
    highest = maps.reshape(n, -1).argsort(1, kind="stable")[:, -count:]
    np.put_along_axis(regions, highest, True, axis=1)
    regions = regions.reshape(n, height, width)
    shifted = np.stack([np.roll(r, rng.integers((height, width)), (0, 1)) for r in regions])
    # In 64 bits, sums of equal ink are equal whatever their order, but for the last digits.
    ink = np.abs(pixels.astype(np.float32) - np.float32(background)).astype(np.float64)
    ink = ink.mean(explained.axes[2])
    pairs = zip(ink, regions, strict=True)
    as_much = np.stack([_random_ink(own, own[region].sum(), rng) for own, region in pairs])
    before, *after = (
        expit(explained.log_odds(explained.painted(pixels, erased, background), classes))
        for erased in (np.zeros_like(regions), regions, shifted, as_much)
    )
    return Erasure(*(before - probability for probability in after))


def _random_ink(ink: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Return random pixels with ink, as many as hold this amount of ink together."""
    order = rng.permutation(np.flatnonzero(ink))
    chosen = np.zeros(ink.size, bool)
    chosen[order[np.cumsum(ink.flat[order]) <= amount * (1 + _ROUNDING)]] = True
    return chosen.reshape(ink.shape)
