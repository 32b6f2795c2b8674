"""Print the measurements of docs/models.md.

    KERAS_BACKEND=jax python tests/benchmarks/models.py IDX calibration|sanity|photos

IDX is a folder with MNIST's test set. The original's CNN is trained for seeds 0 to 4, each with its
own draw. `calibration`: what its probabilities are worth on the 9,500 held-out images, for both
losses. `sanity`: the effect of erasing the tenth of the pixels that a map points to, on the first
200 of them. `photos`: accuracy on 1,000 digits as dark ink on light, shaded, grainy paper, saved as
JPEG, with seed 0.
"""

import io
import sys
from pathlib import Path
from statistics import fmean

import chosen_backend  # noqa: F401
import numpy as np
from PIL import Image, ImageFilter
from shared import print_table

from mnist_keras._foundations.statistics import t_interval, wilson_interval
from mnist_keras.datasets import sources
from mnist_keras.datasets.images import scaled
from mnist_keras.datasets.splits import draw
from mnist_keras.explanations.erasure import erasure
from mnist_keras.explanations.maps import grad_cam, hires_cam, occlusion
from mnist_keras.inference.evaluation import evaluate
from mnist_keras.inference.model_input import ModelInput
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training.data import Data
from mnist_keras.training.engine import train
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

SEEDS = range(5)
ORIGINAL = Settings()
BICUBIC = Image.Resampling.BICUBIC


def trained(images, settings, seeds):
    """Yield the model of each seed, and its held-out images."""
    for seed in seeds:
        data = Data(*draw(images, 50, seed))
        yield train(Run.whole(settings, seed), data).model, data.heldout


def over_seeds(values, digits):
    """Return mean and t interval."""
    low, high = t_interval(values)
    return f"{fmean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def calibration(images):
    yield ["loss", "epochs", "accuracy, %", "confidence minus accuracy, points", "ECE, %",
           "negative log-likelihood", "Brier score"]  # fmt: skip
    for epochs in (10, 50):
        for loss in ("crossentropy", "focal"):
            settings = ORIGINAL.replace(loss=loss, epochs=epochs, gamma=None, alpha=None)
            found = [
                evaluate(softmax(predict(model, own.images)), own.labels, own.class_names)
                for model, own in trained(images, settings, SEEDS)
            ]
            percent = ("accuracy", "overconfidence", "calibration_error")
            yield [
                *(loss, str(epochs)),
                *(over_seeds([100 * getattr(e, name) for e in found], 1) for name in percent),
                over_seeds([e.negative_log_likelihood for e in found], 3),
                over_seeds([e.brier for e in found], 3),
            ]


def sanity(images):
    methods = {
        f"{title}, {name}": lambda *given, cam=cam, name=name: cam(*given, name)
        for title, cam in (("Grad-CAM", grad_cam), ("HiResCAM", hires_cam))
        for name in ("conv1", "conv2", "conv3")
    } | {"occlusion": occlusion}
    falls = {name: [] for name in methods}
    for model, own in trained(images, ORIGINAL, SEEDS):
        some = scaled(own.images[:200])
        classes = model.predict_on_batch(some).argmax(1)
        for name, method in methods.items():
            e = erasure(model, some, method(model, some, classes), classes)
            by_way = (e.pointed, e.pointed - e.elsewhere, e.pointed - e.ink)
            falls[name].append([float(fall.mean()) for fall in by_way])
    yield ["map", "pointed to", "more than the same shape elsewhere", "more than as much ink"]
    for name, seeds in falls.items():
        yield [name, *(over_seeds(values, 3) for values in zip(*seeds, strict=True))]


def photo(image, rng, pen):
    """Return a photo, in slanting light, of a digit written somewhere on a sheet."""
    side = int(rng.integers(90, 200))
    large = Image.fromarray(image[..., 0]).resize((side, side), BICUBIC)
    sharp = 1 / (1 + np.exp(-12 * (np.asarray(large) / 255 - 0.5)))
    if pen:  # only the middle of the stroke
        width = 2 * (side // 80) + 1
        thin = Image.fromarray((255 * sharp).astype(np.uint8)).filter(ImageFilter.MinFilter(width))
        sharp = np.asarray(thin) / 255
    ink = np.zeros((300, 400, 1))
    y, x = (int(rng.integers(5, end - side - 5)) for end in ink.shape[:2])
    ink[y : y + side, x : x + side, 0] = sharp
    rows, columns = np.mgrid[-0.5:0.5:300j, -0.5:0.5:400j]
    light = 60 * (rng.uniform(-1, 1) * rows + rng.uniform(-1, 1) * columns)
    sheet = np.array([225, 220, 205]) * (1 - ink) + np.array([40, 50, 110]) * ink
    sheet += light[..., np.newaxis] + rng.normal(0, 6, ink.shape)
    file = io.BytesIO()
    Image.fromarray(sheet.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))


def photos(images):
    model, own = next(trained(images, ORIGINAL, [0]))
    rng = np.random.default_rng(0)
    own = own.take(np.sort(rng.permutation(len(own))[:1000]))
    bring = ModelInput.of(own.images).bring
    large = [np.asarray(Image.fromarray(x).resize((280, 280), BICUBIC)) for x in own.images]
    sheets, thin = ([photo(x, rng, pen) for x in own.images] for pen in (False, True))
    kinds = {
        "as they are": own.images,
        "inverted": map(bring, 255 - own.images),
        "inverted, `--invert no`": 255 - own.images,
        "ten times as large": map(bring, large),
        "photos": map(bring, sheets),
        "photos, `--fit resize`": [bring(sheet, fit="resize") for sheet in sheets],
        "photos, thin pen": map(bring, thin),
    }
    yield ["1,000 held-out digits", "right, %"]
    for kind, shown in kinds.items():
        right = int((predict(model, np.stack([*shown])).argmax(1) == own.labels).sum())
        low, high = (100 * bound for bound in wilson_interval(right, len(own)))
        yield [kind, f"{100 * right / len(own):.1f} [{low:.1f}, {high:.1f}]"]


TABLES = {"calibration": calibration, "sanity": sanity, "photos": photos}
match sys.argv[1:]:
    case [idx, table] if table in TABLES:
        print_table(TABLES[table](sources.load("mnist", Path(idx), channels=3)))
    case _:
        sys.exit(__doc__)
