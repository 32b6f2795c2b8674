"""Time classifying image files, and arrays against Keras's `model.predict`.

    KERAS_BACKEND=jax python tests/benchmarks/predict.py --images 10000 --rounds 5

Makes gray PNGs of 28×28 in a temporary folder and prints images per second for each model, as
Markdown; each is the median of alternating rounds. Images come from files (`classify`, the work of
`mnist-keras predict` after its start), from an array (`prediction.predict`), and from the same
array, scaled, by `model.predict` with its default batches of 32 and with batches of 500. The
weights are untrained, which costs the same.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from mnist_keras._foundations import backends
from mnist_keras.datasets import sources

backends.use(backends.choose())

from mnist_keras._foundations.texts import markdown_table  # noqa: E402
from mnist_keras.inference.classification import classify, image_files  # noqa: E402
from mnist_keras.inference.model_card import Card, Metrics  # noqa: E402
from mnist_keras.inference.model_input import ModelInput  # noqa: E402
from mnist_keras.inference.trained_model import TrainedModel  # noqa: E402
from mnist_keras.models import prediction  # noqa: E402
from mnist_keras.training.networks import build_model  # noqa: E402
from mnist_keras.training.settings import Settings  # noqa: E402


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


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    digits = sources.load("digits", channels=3)
    many = digits.take(np.resize(np.arange(len(digits)), options.images))
    gray = replace(many, images=many.images[..., :1])

    def keras_predict(model, **options):
        return model.predict(many.images.astype("float32") / 255, verbose=0, **options)

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sources._write_pngs(gray, Path(folder))
        files = image_files(Path(folder))
        for name in ("basic_net", "cnn"):
            trained = untrained(name, digits)
            ways = {
                "files": lambda t=trained: list(classify(t, files)),
                "array": lambda t=trained: prediction.predict(t.model, many.images),
                "`model.predict`": lambda t=trained: keras_predict(t.model),
                "`model.predict`, 500 a batch": lambda t=trained: keras_predict(
                    t.model, batch_size=500
                ),
            }
            times = {way: [] for way in ways}
            for number in range(options.rounds + 1):
                for way, call in ways.items():
                    start = time.perf_counter()
                    call()
                    if number:  # the first round compiles
                        times[way].append(time.perf_counter() - start)
            rates = [options.images / statistics.median(t) for t in times.values()]
            rows.append([f"`{name}`", *(f"{rate:,.0f}" for rate in rates)])
    print("\n".join(markdown_table([["images per second", *ways], *rows])))


if __name__ == "__main__":
    main()
