"""Losses of two views, the model that learns by them, and what a linear layer reads."""

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


@pytest.fixture
def projections():
    """Two views' projections of six images."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 6, 4)).astype("float32")


def value(loss, first, second):
    return float(loss(ops.convert_to_tensor(first), ops.convert_to_tensor(second)))


def naive_nt_xent(a, b, temperature):
    """The formula of the paper, view by view, in float64."""
    z = np.concatenate([a, b]).astype(float)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    n, total = len(a), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [np.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        total -= np.log(np.exp(z[i] @ z[partner] / temperature) / sum(others))
    return total / (2 * n)


def naive_vicreg(a, b, weights):
    """The formula of the paper, in float64."""
    a, b = a.astype(float), b.astype(float)
    size = a.shape[1]
    unlike = np.mean((a - b) ** 2)
    variance = covariance = 0.0
    for view in (a, b):
        variance += np.mean(np.maximum(0, 1 - np.sqrt(view.var(axis=0, ddof=1) + 1e-4))) / 2
        matrix = np.cov(view.T)
        covariance += (matrix[~np.eye(size, dtype=bool)] ** 2).sum() / size
    return weights[0] * unlike + weights[1] * variance + weights[2] * covariance


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
def test_nt_xent_is_the_papers(projections, temperature):
    """Against plain loops in float64, in both orders, whatever the length of the projections."""
    a, b = projections
    expected = naive_nt_xent(a, b, temperature)
    loss = NTXent(temperature)
    assert value(loss, a, b) == pytest.approx(expected, rel=1e-5)
    assert value(loss, b, a) == pytest.approx(expected, rel=1e-5)
    assert value(loss, 100 * a, b / 7) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 2.0)])
def test_vicreg_is_the_papers(projections, weights):
    """Against NumPy's own variances and covariances in float64, in both orders."""
    a, b = projections
    expected = naive_vicreg(a, b, weights)
    assert value(VICReg(*weights), a, b) == pytest.approx(expected, rel=1e-5)
    assert value(VICReg(*weights), b, a) == pytest.approx(expected, rel=1e-5)


def test_what_the_losses_like(projections):
    """Like views of one image, unlike images; VICReg dislikes features that collapse."""
    a, b = projections
    for loss in (NTXent(0.5), VICReg()):
        assert value(loss, a, a) < value(loss, a, b)
    assert value(NTXent(0.5), a, a) < value(NTXent(0.5), a, a[::-1])
    collapsed = np.ones_like(a)
    assert value(VICReg(), collapsed, collapsed) == pytest.approx(25 * 0.99, rel=1e-3)


def test_losses_survive_saving(projections):
    """A configuration makes an equal loss, under a name of this package."""
    a, b = projections
    for loss in (NTXent(0.3), VICReg(2.0, 3.0, 4.0)):
        again = keras.losses.deserialize(keras.losses.serialize(loss))
        assert type(again) is type(loss)
        assert value(again, a, b) == value(loss, a, b)
    with pytest.raises(ValueError, match="`temperature` must be above 0"):
        NTXent(0)


def test_each_image_has_its_loss(projections):
    """Without reduction there is one number an image, as of any Keras loss."""
    a, b = map(ops.convert_to_tensor, projections)
    for loss in (NTXent(reduction=None), VICReg(reduction=None)):
        assert tuple(loss(a, b).shape) == (6,)


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
    for view in (0, 1):
        expected = warp(images[order] / np.float32(255), order, 8 + view, 3, ELASTIC)
        np.testing.assert_array_equal(pair[:, view], expected)
    assert len(PairedViews(images[:7], ELASTIC)) == 1


@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_pretraining_learns_and_repeats(images, method):
    """The loss falls; twice the same is the same bits; another seed is another encoder."""
    model, history = pretrain(images, method, epochs=4, width=4, seed=1)
    assert history.loss[-1] < history.loss[0]
    assert np.isnan(history.accuracy).all()
    again, same = pretrain(images, method, epochs=4, width=4, seed=1)
    assert same.loss == history.loss
    for path, weights in get_weights(model).items():
        np.testing.assert_array_equal(get_weights(again)[path], weights)
    assert pretrain(images, method, epochs=1, width=4, seed=2)[1].loss[0] != history.loss[0]


def test_a_siamese_model_of_any_parts(images):
    """Encoder, projector and loss are the caller's; only their weights are trained."""
    network = encoder((16, 16, 1), width=2)
    head = projector(network.output_shape[-1], 8, 1, seed=0)
    assert head.output_shape == (None, 8)
    before = get_weights(network)
    model = SiameseModel(network, head, keras.losses.CosineSimilarity())
    model.compile("adam")
    model.fit(PairedViews(images, ELASTIC, batch_size=20), epochs=1, shuffle=False, verbose=0)
    assert any(np.any(weights != before[path]) for path, weights in get_weights(network).items())
    # The loss is that of the projections of both views.
    pairs = PairedViews(images, ELASTIC, batch_size=20)[0]
    both = model.predict_on_batch(pairs)
    first, second = (
        head.predict_on_batch(network.predict_on_batch(pairs[:, view])) for view in (0, 1)
    )
    np.testing.assert_allclose(both, np.stack([first, second], 1), rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("classes", [2, 4])
def test_a_linear_probe_is_logistic_regression(classes):
    """Its logits are those of scikit-learn's own pipeline, up to what all classes share."""
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
