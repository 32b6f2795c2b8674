"""Maps of what a model looked at, by their formulas and on every backend; features and t-SNE."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal

from mnist_keras._foundations import backends
from mnist_keras.explanations.embeddings import features, nearest_neighbor_score, tsne
from mnist_keras.explanations.erasure import erasure
from mnist_keras.explanations.maps import (
    ExplanationError,
    convolutions,
    grad_cam,
    hires_cam,
    occlusion,
)
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.portable import GlorotUniform

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 12, 10, 1), dtype=np.uint8)
POOL, FLATTEN = keras.layers.GlobalAveragePooling2D, keras.layers.Flatten


def after_convolution(layer):
    """Return a network of a convolution, that layer, and a dense one, with the same weights."""
    inputs = keras.Input((12, 10, 1))
    conv, dense = (
        {"name": name, "kernel_initializer": GlorotUniform(f"{name}/kernel", seed=1)}
        for name in ("conv", "dense")
    )
    x = keras.layers.Conv2D(4, 3, padding="same", data_format="channels_last", **conv)(inputs)
    x = layer(data_format="channels_last")(x)
    return keras.Model(inputs, keras.layers.Dense(3, **dense)(x))


def linear_in_pixels(weights):
    """Return a network of two logits: 0, and the sum of the pixels times their weights."""
    inputs = keras.Input(weights.shape)
    x = keras.layers.Flatten(data_format="channels_last")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    kernel = np.stack([np.zeros(weights.size), weights.ravel()], axis=1)
    model.layers[-1].set_weights([kernel, np.zeros(2)])
    return model


@pytest.fixture(scope="module")
def linear():
    """A convolution, the mean over positions, and a dense layer."""
    return after_convolution(POOL)


@pytest.fixture(scope="module")
def digits(digits_data):
    """Thirty held-out digits."""
    return digits_data.heldout.take(np.arange(0, 1297, 43)[:30])


@pytest.mark.parametrize(
    ("cam", "layer", "positions"), [(grad_cam, POOL, (1, 1)), (hires_cam, FLATTEN, (12, 10))]
)
def test_maps_are_the_papers_formulas(cam, layer, positions):
    """Where gradients are the dense layer's weights, maps are the channels' weighted sums."""
    model, classes = after_convolution(layer), np.array([0, 1, 2, 0, 1])
    channels = predict(keras.Model(model.input, model.get_layer("conv").output), IMAGES)
    weights = convert_to_numpy(model.get_layer("dense").kernel)[:, classes].T.astype(np.float64)
    expected = (channels * weights.reshape(5, *positions, 4)).sum(-1).clip(0)
    expected /= np.maximum(expected.max((1, 2), keepdims=True), 1e-9)
    assert_allclose(cam(model, IMAGES, classes), expected, atol=1e-5)


def test_grad_cam_of_finite_differences(trained, digits):
    """The gradient of a deep layer is that of finite differences of its logit."""
    model = trained("cnn").model
    front = keras.Model(model.input, model.get_layer("conv3").output)
    back = keras.Model(model.get_layer("conv3").output, model.output)
    channels = predict(front, digits.images[:1])
    label = int(predict(model, digits.images[:1]).argmax())
    step = 1e-2
    slopes = []
    for shift in step * np.eye(channels.shape[-1], dtype=np.float32):
        shifted = np.concatenate([channels + shift, channels - shift])
        up, down = convert_to_numpy(back(shifted, training=False))[:, label]
        slopes.append((up - down) / (2 * step))  # the sum over positions of the gradient
    weights = np.array(slopes) / np.prod(channels.shape[1:3])
    expected = (channels[0] @ weights).clip(0)
    found = grad_cam(model, digits.images[:1])[0]
    # Enlarged four times; the middles of 4×4 pixels are between the 7×7 positions' values.
    expected = expected[..., np.newaxis].astype("float32")
    enlarged = convert_to_numpy(ops.image.resize(expected, (28, 28), data_format="channels_last"))
    assert_allclose(found, enlarged[..., 0] / enlarged.max(), atol=0.02)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_grad_cam_of_any_layer_and_class(layer, trained, digits):
    """Every convolution gives maps of the image's size in 0…1, other ones for other classes."""
    model = trained("cnn").model
    assert convolutions(model) == ["conv1", "conv2", "conv3"]
    ways = itertools.product((grad_cam, hires_cam), (0, 1))
    maps = [cam(model, digits.images, np.full(30, c), layer) for cam, c in ways]
    for found in maps:
        assert (found.shape, found.dtype) == ((30, 28, 28), np.float32)
        assert found.min() >= 0
        assert set(found.max((1, 2)).tolist()) <= {0.0, 1.0}
    for one, other in ((0, 1), (2, 3), (0, 2)):
        assert np.abs(maps[one] - maps[other]).mean() > 0.03


def test_a_map_without_evidence_is_zero(linear):
    """A map that is negative everywhere is 0 and never NaN."""
    model = keras.models.clone_model(linear)
    model.get_layer("conv").set_weights([np.zeros((3, 3, 1, 4)), np.full(4, -1.0)])
    model.get_layer("dense").set_weights([np.ones((4, 3)), np.zeros(3)])
    assert not grad_cam(model, IMAGES, np.zeros(5, int)).any()
    assert grad_cam(model, IMAGES[:0]).shape == (0, 12, 10)
    assert occlusion(model, IMAGES[:0], patch=3).shape == (0, 12, 10)


def test_occlusion_is_its_definition(linear):
    """Each pixel is the mean fall of the log-probability over the patches that cover it."""
    image, label = IMAGES[0], 2

    def log_probability(x):
        return np.log(softmax(predict(linear, x[np.newaxis]))[0, label])

    total, count = np.zeros((12, 10)), np.zeros((12, 10))
    for top, left in itertools.product(range(-2, 11, 3), range(-2, 9, 3)):
        covered = image.copy()
        where = slice(max(top, 0), top + 4), slice(max(left, 0), left + 4)
        covered[where] = 100
        total[where] += log_probability(image) - log_probability(covered)
        count[where] += 1
    expected = (total / count).clip(0)
    found = occlusion(linear, IMAGES[:1], np.array([label]), patch=4, stride=3, background=100)
    assert_allclose(found[0], expected / expected.max(), atol=1e-4)


def test_occlusion_finds_what_counts():
    """A network that looks at one corner is shown to look there."""
    weights = np.zeros((28, 28, 3))
    weights[2:6, 20:24] = 1
    images = np.full((1, 28, 28, 3), 200, np.uint8)
    found = occlusion(linear_in_pixels(weights), images, np.array([1]))[0]
    assert found[2:6, 20:24].min() > 0.5
    found[:11, 15:] = 0
    assert not found.any()


def test_a_network_that_branches(digits):
    """Grad-CAM of a network that is not a chain of layers is refused, not wrong."""
    inputs = keras.Input((28, 28, 3))
    x = keras.layers.Conv2D(2, 3, padding="same", data_format="channels_last", name="conv")(inputs)
    x = keras.layers.Add()([x, keras.layers.Conv2D(2, 1, data_format="channels_last")(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(ExplanationError, match="not a chain of layers after conv"):
        grad_cam(model, digits.images[:1], layer="conv")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model, x: grad_cam(model, x, layer="fc1"), "no convolution 'fc1'. Known: conv1"),
        (lambda model, x: grad_cam(model, x, np.array([10] * 30)), r"one class in 0…9 for each"),
        (lambda model, x: grad_cam(model, x, np.array([-1] * 30)), r"one class in 0…9 for each"),
        (lambda model, x: occlusion(model, x, np.array([1])), r"one class in 0…9 for each of 30"),
        (lambda model, x: occlusion(model, x, patch=29), "a patch of 29 pixels"),
        (lambda model, x: occlusion(model, x, stride=0), "0 apart"),
        (lambda model, x: occlusion(model, x, patch=4, stride=5), "5 apart"),
    ],
)
def test_wrong_arguments(call, said, trained, digits):
    """A layer, class or patch that cannot be is named."""
    with pytest.raises(ExplanationError, match=said):
        call(trained("cnn").model, digits.images)


def test_a_network_without_convolutions(trained, digits):
    """Grad-CAM says what to use instead; occlusion needs no convolution."""
    model = trained("basic_net").model
    with pytest.raises(ExplanationError, match="occlusion maps need none"):
        grad_cam(model, digits.images)
    assert occlusion(model, digits.images[:2], stride=6).max() == 1


def test_random_weights_give_other_maps(trained, digits):
    """Maps depend on what was learned: those of the untrained network hardly resemble them."""
    model, before = trained("cnn").model, trained("cnn").untrained()
    classes = predict(model, digits.images).argmax(1)
    for method in (grad_cam, lambda *a: occlusion(*a, stride=4)):
        maps, others = (method(m, digits.images[:10], classes[:10]) for m in (model, before))
        pairs = [(a, b) for a, b in zip(maps, others, strict=True) if a.any() and b.any()]
        assert np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]) < 0.7


def test_erasing_what_a_map_points_to(trained, digits):
    """It lowers the probability more than erasing as much elsewhere; a wrong map does not."""
    model = trained("cnn").model
    right = np.flatnonzero(predict(model, digits.images).argmax(1) == digits.labels)
    images, labels = digits.images[right], digits.labels[right]
    for maps in (hires_cam(model, images, labels), occlusion(model, images, labels, stride=4)):
        found = erasure(model, images, maps, labels)
        assert found.pointed.mean() > found.elsewhere.mean() + 0.1
        assert found.pointed.mean() > found.ink.mean() + 0.1
    wrong = erasure(model, images, 1 - maps, labels)
    assert wrong.pointed.mean() < found.pointed.mean() - 0.1


def test_erasure_erases_what_it_says():
    """On a network that adds up pixels, the falls are those of the pixels that are erased."""
    model = linear_in_pixels(np.full((10, 10, 1), 0.5))
    image = np.zeros((1, 10, 10, 1), np.uint8)
    image[0, 0, :8] = 255
    maps = np.zeros((1, 10, 10))
    maps[0, 0, :4] = 1
    found = erasure(model, image, maps, np.array([1]), share=0.04)
    of_eight, of_four = 1 / (1 + np.exp(-0.5 * np.array([8, 4])))
    assert found.pointed[0] == pytest.approx(of_eight - of_four, abs=1e-6)
    assert found.ink[0] == pytest.approx(of_eight - of_four, abs=1e-6)
    assert 0 <= found.elsewhere[0] <= found.pointed[0] + 1e-6


def test_features_are_what_the_last_layer_takes(trained, digits_data):
    """The last layer makes the logits of them."""
    model = trained("cnn").model
    images = digits_data.heldout.images[:20]
    found = features(model, images)
    assert found.shape == (20, 1000)
    logits = convert_to_numpy(model.layers[-1](found))
    expected = convert_to_numpy(model(images.astype("float32") / 255, training=False))
    assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.any_backend
def test_score_is_leave_one_out():
    """Each vector is scored by the nearest other one, found here by trying all."""
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    vectors[:, 0] += 2 * labels
    distances = np.linalg.norm(vectors[:, np.newaxis] - vectors, axis=-1)
    np.fill_diagonal(distances, np.inf)
    expected = (labels[distances.argmin(1)] == labels).mean()
    assert nearest_neighbor_score(vectors, labels) == expected
    assert nearest_neighbor_score(np.array([[0.0], [0.1], [5.0]]), np.array([1, 1, 2])) == 2 / 3


@pytest.mark.any_backend
def test_tsne_keeps_groups_and_repeats():
    """Groups stay groups; the same seed gives the same map, and a few images have a map, too."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    vectors = rng.normal(size=(60, 8)) + 20 * np.eye(8)[labels]
    found = tsne(vectors, seed=1)
    assert found.shape == (60, 2)
    assert nearest_neighbor_score(found, labels) == 1
    assert_array_equal(found, tsne(vectors, seed=1))
    assert tsne(vectors[:10]).shape == (10, 2)
    with pytest.raises(ValueError, match="needs 10 images"):
        tsne(vectors[:9])


@pytest.mark.any_backend
def test_tsne_of_what_has_no_map():
    """Equal vectors lie on one point, and vectors without finite numbers are refused."""
    assert not tsne(np.ones((20, 5), np.float32)).any()
    with pytest.raises(ValueError, match="finite"):
        tsne(np.full((20, 5), np.nan))


MAPS = """
import sys
from mnist_keras._foundations import backends
backends.use(backends.choose())
import numpy as np
from pathlib import Path
from mnist_keras.datasets import sources
from mnist_keras.explanations.maps import grad_cam, hires_cam, occlusion
from mnist_keras.inference.model_file import load_model
model = load_model(Path(sys.argv[1])).model
images = sources.load("digits", channels=3).images[:12]
classes = np.arange(12) % 10
found = {}
for cam in (grad_cam, hires_cam):
    for layer in ("conv1", "conv2", "conv3"):
        found[f"{cam.__name__} {layer}"] = cam(model, images, classes, layer)
np.savez(sys.argv[2], occlusion=occlusion(model, images, classes, stride=4), **found)
"""


@pytest.mark.several_backends
@pytest.mark.skipif(len(backends.installed()) < 2, reason="needs two backends")
def test_maps_are_equal_on_every_backend(model_file, tmp_path, python):
    """Of one model file, every backend draws the same maps within 1e-5."""
    found = {}
    for backend in backends.installed():
        out = tmp_path / f"{backend}.npz"
        python("-c", MAPS, model_file("cnn"), out, environment={"KERAS_BACKEND": backend})
        found[backend] = dict(np.load(out))
    first, *others = found.values()
    for other, name in itertools.product(others, first):
        assert_allclose(other[name], first[name], atol=1e-5, err_msg=name)
