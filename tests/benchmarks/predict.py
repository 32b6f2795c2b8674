"""Time classifying image files, and arrays against Keras's `model.predict`.

    KERAS_BACKEND=jax python tests/benchmarks/predict.py --images 10000 --rounds 5

Makes gray PNGs of 28×28 in a temporary folder and prints images per second for each model, as
Markdown; each is the median of alternating rounds. Images come from files (`classify`, the work of
`mnist-keras predict` after its start), from an array (`prediction.predict`), and from the same
array, scaled, by `model.predict` with its default batches of 32 and with batches of 500.
"""

import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import chosen_backend  # noqa: F401
import numpy as np
from shared import alternate, options, print_table, seconds_per_call

from mnist_keras.datasets import sources
from mnist_keras.datasets.splits import draw
from mnist_keras.inference.classification import classify, image_files
from mnist_keras.inference.trained_model import train_model
from mnist_keras.models import prediction
from mnist_keras.training.data import Data
from mnist_keras.training.settings import Settings

given = options(__doc__, images=10_000, rounds=5)
digits = sources.load("digits", channels=3)
many = digits.take(np.resize(np.arange(len(digits)), given.images))
rows = []
with tempfile.TemporaryDirectory() as folder:
    sources._write_pngs(replace(many, images=many.images[..., :1]), Path(folder))
    files = image_files(Path(folder))
    for name in ("basic_net", "cnn"):
        data = Data(*draw(digits, 50, seed=0))
        trained = train_model(Settings(model=name, epochs=1), 0, data)

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
        times = alternate(lambda call: seconds_per_call(call, 1e-3), ways, given.rounds)
        rates = (given.images / statistics.median(values) for values in times.values())
        rows.append([f"`{name}`", *(f"{rate:,.0f}" for rate in rates)])
print_table([["images per second", *ways], *rows])
