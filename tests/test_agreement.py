"""The same seed is the same run: on every backend, and on one of them twice."""

import os
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from mnist_keras import Batches, portable
from mnist_keras._foundations import backends
from mnist_keras.datasets import sources
from mnist_keras.datasets.splits import draw
from mnist_keras.experiments import agreement
from mnist_keras.experiments.agreement import Tolerance, compare, compare_all
from mnist_keras.experiments.experiment import folder
from mnist_keras.experiments.results_folder import ResultsFolder
from mnist_keras.training.data import Data
from mnist_keras.training.engine import train
from mnist_keras.training.record import History
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings

SETTINGS = Settings(model="cnn", epochs=2, batch_size=20)


@pytest.fixture(scope="module")
def data():
    """Fifty digits to train and test on, and sixty held out: their middles, for a small CNN."""
    digits = sources.load("digits", channels=3)
    images, heldout = draw(replace(digits, images=digits.images[:, 8:20, 8:20]), 5, seed=0)
    return Data(images, heldout.take(np.arange(60)))


@pytest.fixture(scope="module")
def trained(data):
    """The function that trains one short run of the CNN and returns its record."""
    return lambda: train(Run.whole(SETTINGS, seed=0), data).record


@pytest.fixture(scope="module")
def original(trained):
    """The record that perturbed ones are compared with."""
    return trained()


def changed(record, **fields):
    """Return the record with some fields changed, its own or its history's."""
    history = {name: fields.pop(name) for name in [*fields] if name in History.model_fields}
    return record.replace(history=record.history.replace(**history), **fields)


def problems(original, other):
    return compare(("a", original), ("b", other)).outside(Tolerance())


@pytest.mark.slow
def test_twice_the_same_run_is_the_same_bits(original, trained):
    """On one backend, a run repeated is identical in every number."""
    found = compare(("a", original), ("b", trained()))
    assert found.loss == (0.0, 0.0)
    assert found.training_accuracy == 0.0
    assert found.predictions == {2: 1.0}
    assert found.outside(Tolerance(first_epoch=0, loss=0, predictions=1)) == []


def test_one_other_batch_is_seen(original, trained, monkeypatch):
    """Two images that change places between two batches of the second epoch."""
    unchanged = Batches.set_epoch

    def swapped(self, epoch):
        unchanged(self, epoch)
        if epoch == 1:
            self.order[[0, -1]] = self.order[[-1, 0]]

    monkeypatch.setattr(Batches, "set_epoch", swapped)
    assert "batches not identical" in problems(original, trained())


def test_one_other_weight_is_seen(original, trained, monkeypatch):
    """One initial weight that is off by its last bit."""
    unchanged = portable.FanInUniform.__call__

    def nudged(self, shape, dtype=None):
        values = np.array(ops.convert_to_numpy(unchanged(self, shape, dtype)))
        if self.path == "fc2/kernel":
            values[7, 7] = np.nextafter(values[7, 7], np.float32(1))
        return ops.convert_to_tensor(values)

    monkeypatch.setattr(portable.FanInUniform, "__call__", nudged)
    assert "weights not identical" in problems(original, trained())


@pytest.mark.slow
def test_one_other_mask_bit_is_seen(original, trained, monkeypatch):
    """One channel of one image that is kept where it was dropped, or the reverse."""
    unchanged = portable.Dropout.keep

    def flipped(self, key_and_step, input_shape):
        mask = unchanged(self, key_and_step, input_shape)
        if self.name == "dropout2":
            flat = ops.reshape(mask, (-1,))
            first = ops.cumsum(ops.ones_like(flat, "int32")) == 1
            mask = ops.reshape(ops.logical_xor(flat, first), ops.shape(mask))
        return mask

    monkeypatch.setattr(portable.Dropout, "keep", flipped)
    assert "masks not identical" in problems(original, trained())


def test_tolerances(original):
    """Loss of the first epoch, later loss, predictions and a lost epoch each have their limit."""
    a, b = original.history.loss
    half = original.scores[2].heldout.copy()
    half[::2] = (half[::2] + 1) % 10
    cases = {
        (): original,
        ("first epoch's loss",): changed(original, loss=(a + 2e-5, b)),
        ("loss more than 0.005",): changed(original, loss=(a, b + 6e-3)),
        ("loss more",): changed(original, loss=(a, float("nan"))),
        ("loss more than",): changed(original, loss=(a,)),
        ("less than 99.5% of predictions",): changed(
            original, scores={2: original.scores[2].replace(heldout=half)}
        ),
    }
    for words, other in cases.items():
        found = problems(original, other)
        assert len(found) == len(words), found
        assert all(word in line for word, line in zip(words, found, strict=True))
    assert problems(changed(original, loss=(a, b, 9.0)), changed(original, loss=(a, b, 9.1)))


def test_what_is_judged_depends_on_the_model(original):
    """The small CNN's loss may differ by a twentieth, no bits may; an SVM has predictions alone."""
    run = Run.whole(Settings(model="small_cnn", epochs=2), seed=0)
    one = changed(original, run=run, loss=(20.0, 10.0))
    wrong = {2: original.scores[2].replace(heldout=original.scores[2].heldout + 1)}
    assert problems(one, changed(one, loss=(20.9, 10.4), scores=wrong)) == []
    assert problems(one, changed(one, loss=(20.0, 10.6))) == ["loss more than 5% apart"]
    assert problems(one, changed(one, loss=(20.0,))) == ["loss more than 5% apart"]
    assert "weights not identical" in problems(
        one, changed(one, fingerprints={**one.history.fingerprints, "weights": "x"})
    )
    run = Run(settings=Settings(model="svm"), seed=0, scored_at=(2,))
    one = changed(original, run=run, loss=(), training_accuracy=())
    assert problems(one, one) == []
    assert problems(one, changed(one, scores=wrong)) == ["less than 99.5% of predictions equal"]


def test_epochs_after_the_tenth_are_not_judged(original):
    """What rounding does after ten epochs is shown and not judged."""
    score = original.scores[2]
    one = changed(original, loss=(1.0,) * 12, training_accuracy=(0.5,) * 12, scores={12: score})
    wrong = {12: score.replace(test=score.test + 1)}
    other = changed(one, loss=(1.0,) * 11 + (2.0,), scores=wrong)
    found = compare(("a", one), ("b", other))
    assert found.outside(Tolerance()) == []
    assert found.loss[-1] == 1.0
    assert found.predictions[12] < 1
    header, row = agreement.agreement_table([found], Tolerance())
    assert dict(zip(header, row, strict=True))["Δ loss, later"] == "1.0e+00 at 12"


def test_runs_are_matched(original):
    """Each run meets its like: other seeds and data stay alone and are named."""
    other_seed = changed(original, run=replace(original.run, seed=1))
    other_data = changed(original, data_fingerprint="other")
    found, alone = compare_all(
        [("a", original), ("b", other_seed), ("c", original), ("d", other_data)]
    )
    assert [(f.first, f.second) for f in found] == [("a", "c")]
    assert [line[:9] for line in alone] == ["only in b", "only in d"]
    with pytest.raises(ValueError, match="two records of one run"):
        compare(("a", original), ("b", other_data))


def test_compare_command(original, invoke, tmp_path):
    """Exit code 0 where records agree, 5 where not, 2 where there is nothing to compare."""
    names = ("jax", "torch", "off", "alone", "empty", "missing")
    jax, torch, off, alone, empty, missing = (tmp_path / name for name in names)
    first, second = original.history.loss
    for path, record in {
        jax: original,
        torch: changed(original, versions=original.versions | {"backend": "other"}),
        off: changed(original, loss=(first + 1e-3, second)),
        alone: changed(original, run=replace(original.run, seed=1)),
    }.items():
        (path / "records").mkdir(parents=True)
        ResultsFolder(path).write_record(record)
    empty.mkdir()

    assert "same run" in invoke("compare", jax, torch).stdout
    differ = invoke("compare", jax, off, code=5)
    assert "first epoch's loss more than 1e-05 apart" in differ.stdout
    invoke("compare", "--first-epoch", 1e-2, jax, off)
    for wrong in ((), (missing,), (jax, empty), (jax, alone), (jax, jax)):
        invoke("compare", *wrong, code=2)
    invoke("compare", "--loss", -1, jax, torch, code=2)


needs_several = pytest.mark.skipif(len(backends.installed()) < 2, reason="needs two backends")


@pytest.fixture
def on_every_backend(tmp_path, python):
    """The function that trains arms on every installed backend and compares their records."""

    def train_all(experiment, images, labels):
        np.savez(tmp_path / "images.npz", x_train=images, y_train=labels)
        run = ("-m", "mnist_keras", "run", experiment, "--backend", "all", "--output", "results")
        data = ("--data", "images.npz", "--per-class", 30, "--seeds", 1)
        assert "# Comparison" in python(*run, *data, codes=(0, 5), cwd=tmp_path)
        records = [
            (name, record)
            for name in backends.installed()
            for record in ResultsFolder(tmp_path / "results" / name).records()[0]
        ]
        assert all(record.versions["backend"] == name for name, record in records)
        found, alone = compare_all(records)
        assert alone == []
        return found

    return train_all


CYCLE = {
    **{"model": "small_cnn", "loss": "crossentropy", "augmentation": "elastic", "epochs": 20},
    **{"schedule": "one_cycle", "learning_rate": 0.003, "weight_decay": 0.05, "batch_size": 50},
    "label_smoothing": 0.1,
}
STAGES = (
    {"name": "SVM", "model": "hog_svm", "augmentation": "none"},
    {"name": "network"},
    {"name": "SimCLR", "pretraining": "simclr", "pretraining_epochs": 2, "epochs": 2},
    {"name": "VICReg", "pretraining": "vicreg", "pretraining_epochs": 2, "frozen": True},
    {
        **{"name": "student", "self_training": "inductive", "self_training_epochs": 1},
        **{"epochs": 2, "members": 2, "views": 1},
    },
)


@pytest.mark.slow
@pytest.mark.several_backends
@needs_several
def test_every_backend_trains_the_same_stages(tmp_path, write_experiment, on_every_backend):
    """Pretraining, ensembles and students, on digits: same bits to begin with, and like ends."""
    digits = sources.load("digits")
    experiment = write_experiment(tmp_path, *STAGES, **CYCLE)
    found = on_every_backend(experiment, digits.images[:800, ..., 0], digits.labels[:800])
    assert len(found) == 5 * (len(backends.installed()) - 1)
    for pair in found:
        assert pair.outside(Tolerance()) == [], (pair.run.title, pair)
        # Of a network that has come to its end, few images are given another class.
        if pair.run.settings.all_epochs == 20:
            assert pair.predictions[20] > 0.98
        if pair.run.settings.model == "hog_svm":
            assert pair.predictions == {1: 1.0}


@pytest.mark.slow
@pytest.mark.several_backends
@needs_several
def test_every_backend_trains_the_same_runs(tmp_path, on_every_backend):
    """Ten epochs, on MNIST where it is at hand, of half the experiment `agreement`.

    Each pair of a network, a loss and an optimizer is in one of its six arms. The images are the
    first 1,500, without the border that is empty: it would double the CNN's weights.
    """
    names = [
        *("Basic Net, cross entropy, SGD", "Basic Net, focal loss, Adam"),
        *("Basic Net, focal loss, RAdam", "My CNN, cross entropy, Adam"),
        *("My CNN, cross entropy, RAdam", "My CNN, focal loss, SGD"),
    ]
    head, *arms = (folder() / "agreement.toml").read_text().split("[[arms]]")
    chosen = [arm for arm in arms if any(f'name = "{name}"' in arm for name in names)]
    source = sources.load("mnist" if os.environ.get("MNIST_KERAS_IDX") else "digits")
    images, labels = source.images[:1500, 4:24, 4:24, 0], source.labels[:1500]
    (tmp_path / "these.toml").write_text("[[arms]]".join([head, *chosen]))
    found = on_every_backend("these.toml", images, labels)
    assert len(found) == 6 * (len(backends.installed()) - 1)
    for pair in found:
        # After ten epochs of RAdam the CNN is still on its way: more images lie near a border.
        on_its_way = (pair.run.settings.model, pair.run.settings.optimizer) == ("cnn", "radam")
        tolerance = Tolerance(predictions=0.985) if on_its_way else Tolerance()
        assert pair.outside(tolerance) == [], (pair.run.title, pair)


CONTINUE = """
import sys
import keras
import numpy as np
from mnist_keras import Batches
from mnist_keras.datasets import sources
from mnist_keras.datasets.splits import draw, split_indices
from mnist_keras.training.settings import Settings
from mnist_keras.training.networks import compiled_model

images = draw(sources.load("digits", channels=3), 10, seed=0)[0].canonical()
chosen, _ = split_indices(images, 0.2, seed=0)
middles = images.images[chosen, 8:20, 8:20] / np.float32(255)
batches = Batches(middles, images.labels[chosen], 20, seed=0)
start, save, end, path = *map(int, sys.argv[1:4]), sys.argv[4]
if start:
    model = keras.models.load_model(path)
else:
    model = compiled_model(Settings(model="cnn", loss="crossentropy"), (12, 12, 3), 10)
callback = keras.callbacks.LambdaCallback(
    on_epoch_begin=lambda epoch, logs: batches.set_epoch(epoch),
    on_epoch_end=lambda epoch, logs: model.save(path) if epoch + 1 == save else None,
)
history = model.fit(
    batches, initial_epoch=start, epochs=end, shuffle=False, verbose=0, callbacks=[callback]
)
print(*history.history["loss"])
"""


@pytest.fixture
def continued(tmp_path, python):
    """The function that returns the losses of the epochs from `start` to `end`.

    It begins with the model in a file, if any epochs are behind it, and saves it there after the
    epoch `save`.
    """

    def go_on(backend, start, save, end):
        arguments = ("-c", CONTINUE, start, save, end, tmp_path / "model.keras")
        environment = {"KERAS_BACKEND": backend}
        return [float(word) for word in python(*arguments, environment=environment).split()]

    return go_on


@pytest.mark.slow
def test_a_saved_model_goes_on_with_the_same_bits(continued):
    """The last two of five epochs are the same from a file: weights, moments, masks and order."""
    backend = keras.backend.backend()
    whole = continued(backend, 0, 3, 5)
    assert continued(backend, 3, 5, 5) == whole[3:]


@pytest.mark.slow
@pytest.mark.several_backends
@needs_several
def test_a_model_saved_on_one_backend_goes_on_on_another(continued):
    """Handed from backend to backend after each epoch, a training differs only by rounding."""
    first, *others = backends.installed()
    epochs = 3 + len(others)
    whole = continued(first, 0, 2, epochs)
    for start, backend in enumerate((*others, first), 2):
        (loss,) = continued(backend, start, start + 1, start + 1)
        assert loss == pytest.approx(whole[start], abs=5e-3)


ON_CORES = """
import os, sys
from dataclasses import replace
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
os.environ["OMP_NUM_THREADS"] = sys.argv[1]
from mnist_keras._foundations import backends
backends.use(backends.choose())
from mnist_keras.datasets import sources
from mnist_keras.datasets.splits import draw
from mnist_keras.training.run import Run
from mnist_keras.training.settings import Settings
from mnist_keras.training.data import Data
from mnist_keras.training.engine import train
digits = sources.load("digits", channels=3)
images, heldout = draw(replace(digits, images=digits.images[:, 8:20, 8:20]), 10, seed=0)
data = Data(images, heldout.take(range(60)))
print(train(Run.whole(Settings(epochs=1), seed=0), data).record.history.loss[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot choose cores here")
def test_one_or_two_cores_differ_by_rounding_at_most(python):
    """The number of threads may change the order of sums, and with it the last bits: no more."""
    one, two = (float(python("-c", ON_CORES, cores).split()[-1]) for cores in (1, 2))
    assert one == pytest.approx(two, abs=1e-5)
