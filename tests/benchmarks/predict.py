"""Time classifying image files, and arrays against Keras's `model.predict`.

    KERAS_BACKEND=jax python tests/benchmarks/predict.py --images 10000 --rounds 5

Makes gray PNGs of 28×28 in a temporary folder and prints images per second for each model, as
Markdown; each is the median of alternating rounds. Images come from files (`classify`, the work of
`mnist-keras predict` after its start), from an array (`prediction.predict`), and from the same
array, scaled, by `model.predict` with its default batches of 32 and with batches of 500. The
weights are untrained, which costs the same.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import chosen_backend  # noqa: F401
import numpy as np
from shared import alternate, options, print_table

from mnist_keras.datasets import sources
from mnist_keras.inference.classification import classify, image_files
from mnist_keras.inference.model_card import Card, Metrics
from mnist_keras.inference.model_input import ModelInput
from mnist_keras.inference.trained_model import TrainedModel
from mnist_keras.models import prediction
from mnist_keras.training.networks import build_model
from mnist_keras.training.settings import Settings


def untrained(name, images):
    """Return a model as if it had been trained on these images."""
    settings = Settings(model=name)
    card = Card(
        class_names=images.class_names,
        input=ModelInput.of(images.images),
        settings=settings,
        seed=0,
        data_name=images.name,
        data_fingerprint="",
        trained_on=images.fingerprints[:0],
        metrics=Metrics(training_loss=0.0),
        versions={},
    )
    return TrainedModel(build_model(settings, (28, 28, 3), 10, 0), card)


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


given = options(__doc__, images=10_000, rounds=5)
digits = sources.load("digits", channels=3)
many = digits.take(np.resize(np.arange(len(digits)), given.images))
rows = []
with tempfile.TemporaryDirectory() as folder:
    sources._write_pngs(replace(many, images=many.images[..., :1]), Path(folder))
    files = image_files(Path(folder))
    for name in ("basic_net", "cnn"):
        trained = untrained(name, digits)

        def keras_predict(trained=trained, **options):
            trained.model.predict(many.images.astype("float32") / 255, verbose=0, **options)

        ways = {
            "files": lambda t=trained: list(classify(t, files)),
            "array": lambda t=trained: prediction.predict(t.model, many.images),
            "`model.predict`": keras_predict,
            "`model.predict`, 500 a batch": partial(keras_predict, batch_size=500),
        }
        for compile_it in ways.values():
            compile_it()
        times = alternate(seconds, ways, given.rounds)
        rates = (given.images / statistics.median(values) for values in times.values())
        rows.append([f"`{name}`", *(f"{rate:,.0f}" for rate in rates)])
print_table([["images per second", *ways], *rows])
