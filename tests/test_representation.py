"""Losses of two views, the model that trains with them, and the linear probe."""

import keras
import numpy as np
import pytest
from keras import ops

from mnist_keras.datasets.augmentation import ELASTIC, warp
from mnist_keras.losses.two_views import NTXent, VICReg
from mnist_keras.models.encoders import encoder
from mnist_keras.training.networks import get_weights
from mnist_keras.training.representation import (
    PairedViews,
    SiameseModel,
    linear_probe,
    pretrain,
    projector,
)

# Two views' projections of six images.
A, B = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")


def value(loss, first, second):
    return float(loss(ops.convert_to_tensor(first), ops.convert_to_tensor(second)))


def naive_nt_xent(temperature):
    """The formula of the paper, view by view, in float64."""
    z = np.concatenate([A, B]).astype(float)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    n, total = len(A), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [np.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        total -= np.log(np.exp(z[i] @ z[partner] / temperature) / sum(others))
    return total / (2 * n)


def naive_vicreg(weights):
    """The formula of the paper, in float64."""
    a, b = A.astype(float), B.astype(float)
    unlike = np.mean((a - b) ** 2)
    variance = covariance = 0.0
    for view in (a, b):
        variance += np.mean(np.maximum(0, 1 - np.sqrt(view.var(axis=0, ddof=1) + 1e-4))) / 2
        matrix = np.cov(view.T)
        covariance += (matrix[~np.eye(len(matrix), dtype=bool)] ** 2).sum() / len(matrix)
    return weights[0] * unlike + weights[1] * variance + weights[2] * covariance


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
def test_nt_xent_is_the_papers(temperature):
    """Plain loops in float64 agree, in both orders, whatever the length of the projections."""
    expected = pytest.approx(naive_nt_xent(temperature), rel=1e-5)
    for first, second in ((A, B), (B, A), (100 * A, B / 7)):
        assert value(NTXent(temperature), first, second) == expected


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 2.0)])
def test_vicreg_is_the_papers(weights):
    """NumPy's own variances and covariances in float64 agree, in both orders."""
    expected = pytest.approx(naive_vicreg(weights), rel=1e-5)
    for first, second in ((A, B), (B, A)):
        assert value(VICReg(*weights), first, second) == expected


def test_what_the_losses_like():
    """They like similar views of one image and different images; VICReg dislikes a collapse."""
    for loss in (NTXent(0.5), VICReg()):
        assert value(loss, A, A) < value(loss, A, B)
    assert value(NTXent(0.5), A, A) < value(NTXent(0.5), A, A[::-1])
    collapsed = np.ones_like(A)
    assert value(VICReg(), collapsed, collapsed) == pytest.approx(25 * 0.99, rel=1e-3)


def test_losses_survive_saving():
    """A configuration makes an equal loss, under a name of this package."""
    for loss in (NTXent(0.3), VICReg(2.0, 3.0, 4.0)):
        again = keras.losses.deserialize(keras.losses.serialize(loss))
        assert type(again) is type(loss)
        assert value(again, A, B) == value(loss, A, B)
    with pytest.raises(ValueError, match="`temperature` must be above 0"):
        NTXent(0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", [NTXent, VICReg])
def test_16_bits_are_promoted(kind, dtype):
    """The loss is that of float32, by its own dtype or Keras's default; its dtype is saved."""
    right = value(kind(), A, B)
    loss = kind(dtype=dtype)
    assert value(loss, A, B) == right
    assert loss.get_config()["dtype"] == dtype
    assert type(loss).from_config(loss.get_config()).dtype == "float32"
    in_16_bits = [ops.cast(ops.convert_to_tensor(view), "bfloat16") for view in (A, B)]
    assert float(loss(*in_16_bits)) == pytest.approx(right, rel=0.02)
    if dtype == "bfloat16":
        keras.config.set_floatx(dtype)
        try:
            assert value(kind(), A, B) == right
        finally:
            keras.config.set_floatx("float32")


@pytest.mark.parametrize("kind", [NTXent, VICReg])
@pytest.mark.parametrize("rows", [[0], [2, 3], [0, 1, 2, 3, 4, 5]])
def test_vectors_of_length_0_have_a_finite_gradient(kind, rows):
    """Weights stay finite after a step, whether one projection is 0, two or all are."""
    x = np.ones((6, 2, 2, 2, 1), "float32") + np.arange(6).reshape(6, 1, 1, 1, 1)
    x[:, 1, 0] -= 1.5
    x[rows] = 0
    parts = [keras.layers.Flatten(), keras.layers.Dense(3, use_bias=False)]
    network = keras.Sequential([keras.Input((2, 2, 1)), *parts])
    head = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, use_bias=False)])
    model = SiameseModel(network, head, kind())
    model.compile(keras.optimizers.SGD(0.01))
    assert np.isfinite(model.fit(x, verbose=0).history["loss"][0])
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    assert max(np.abs(weights).max() for weights in model.get_weights()) < 100


def test_each_image_has_its_loss():
    """Without reduction there is one number for each image, as with any Keras loss."""
    for loss in (NTXent(reduction=None), VICReg(reduction=None)):
        assert tuple(loss(*map(ops.convert_to_tensor, (A, B))).shape) == (6,)


@pytest.fixture(scope="module")
def images():
    """Forty small gray images."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:16, :16]
    middles = rng.uniform(4, 12, (40, 2))
    spots = np.exp(-((y - middles[:, :1, None]) ** 2 + (x - middles[:, 1:, None]) ** 2) / 8)
    return (255 * spots[..., None]).astype(np.uint8)


def test_pairs_are_two_views_of_each_image(images):
    """Each batch holds two warps of each image; another epoch, other warps; no image twice."""
    batches = PairedViews(images, ELASTIC, batch_size=15, seed=3)
    assert len(batches) == 2
    batches.set_epoch(4)
    order, pair = batches.order[:15], batches[0]
    assert pair.shape == (15, 2, 16, 16, 1)
    x = images[order] / np.float32(255)
    expected = [warp(x, order, 8 + view, 3, ELASTIC) for view in (0, 1)]
    np.testing.assert_array_equal(pair, np.stack(expected, 1))
    assert len(PairedViews(images[:7], ELASTIC)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_pretraining_learns_and_repeats(images, method):
    """The loss falls; twice the same is the same bits; another seed is another encoder."""
    model, history = pretrain(images, method, epochs=4, width=4, seed=1)
    assert history.loss[-1] < history.loss[0]
    assert np.isnan(history.training_accuracy).all()
    again, same = pretrain(images, method, epochs=4, width=4, seed=1)
    assert same.loss == history.loss
    np.testing.assert_equal(get_weights(again), get_weights(model))
    assert pretrain(images, method, epochs=1, width=4, seed=2)[1].loss[0] != history.loss[0]


@pytest.mark.slow
def test_a_siamese_model_of_any_parts(images):
    """Encoder, projector and loss are the caller's; only their weights are trained."""
    network = encoder((16, 16, 1), width=2)
    head = projector(network.output_shape[-1], 8, 1, seed=0)
    assert head.output_shape == (None, 8)
    before = get_weights(network)
    model = SiameseModel(network, head, keras.losses.CosineSimilarity())
    model.compile("adam")
    batches = PairedViews(images, ELASTIC, batch_size=20)
    model.fit(batches, epochs=1, shuffle=False, verbose=0)
    assert any(np.any(weights != before[path]) for path, weights in get_weights(network).items())
    # The loss is that of the projections of both views.
    pairs = batches[0]
    features = [network.predict_on_batch(pairs[:, view]) for view in (0, 1)]
    expected = np.stack([head.predict_on_batch(part) for part in features], 1)
    np.testing.assert_allclose(model.predict_on_batch(pairs), expected, rtol=1e-4, atol=1e-5)


def siamese(head=None, **dense):
    """Return a small compiled model, whose encoder has a dense layer of these options."""
    network = [keras.layers.Flatten(), keras.layers.Dense(4, **dense)]
    network = keras.Sequential([keras.Input((4, 4, 1)), *network], name="network")
    head = head or keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="head")
    model = SiameseModel(network, head, NTXent(0.2))
    model.compile(keras.optimizers.Adam(0.01))
    return model


PAIRS = np.random.default_rng(0).random((8, 2, 4, 4, 1), dtype=np.float32)


def test_a_siamese_model_is_saved(tmp_path):
    """A checkpoint gives the same projections and objective, and trains on as the model does."""
    model, path = siamese(), tmp_path / "siamese.keras"
    model.fit(PAIRS, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(path)])
    loaded = keras.saving.load_model(path)
    assert type(loaded) is SiameseModel
    assert loaded.objective.get_config() == model.objective.get_config()
    projections = [one.predict(PAIRS, verbose=0) for one in (loaded, model)]
    np.testing.assert_array_equal(*projections)
    losses = [one.fit(PAIRS, epochs=2, verbose=0).history["loss"] for one in (loaded, model)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class Adding(keras.layers.Layer):
    """Adds a constant to the loss."""

    def call(self, inputs):
        self.add_loss(0.25 * ops.ones((2,)))
        return inputs


def test_what_parts_add_to_the_loss_counts():
    """Regularizers and `add_loss` of encoder and projector are in the loss that is minimized."""
    plain, decayed = siamese(), siamese(kernel_regularizer=keras.regularizers.L2(0.1))
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Adding()])
    adding = siamese(head=head)
    for model in (decayed, adding):
        model(PAIRS)
        model.set_weights(plain.get_weights())
    penalty = 0.1 * np.square(plain.get_weights()[0]).sum()
    objective, with_penalty, with_constant = (
        model.evaluate(PAIRS, verbose=0) for model in (plain, decayed, adding)
    )
    assert with_penalty == pytest.approx(objective + penalty, rel=1e-5)
    assert with_constant == pytest.approx(objective + 0.5, rel=1e-5)
    assert decayed.fit(PAIRS, verbose=0).history["loss"] == [pytest.approx(with_penalty, rel=1e-5)]


@pytest.mark.any_backend
@pytest.mark.parametrize("classes", [2, 4])
def test_a_linear_probe_is_logistic_regression(classes):
    """Its logits are those of scikit-learn's own pipeline, up to a constant for all classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 30)
    features = rng.normal(size=(len(labels), 6)) * [1, 5, 0.1, 2, 3, 0] + labels[:, None]
    features[:, 5] = 7.0  # a feature that is always the same
    kernel, bias = linear_probe(features, labels, 0.1)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    reference.fit(features, labels)
    logits = features @ kernel + bias
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(shares, reference.predict_proba(features), atol=1e-4)
