"""Maps of what a model looked at: the published formula, on every backend, and sanity checks."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose

from mnist_keras._foundations import backends
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


def after_convolution(layer):
    """Return a network of a convolution, that layer, and a dense one, with weights drawn once."""
    inputs = keras.Input((12, 10, 1))
    drawn = {name: GlorotUniform(f"{name}/kernel", seed=1) for name in ("conv", "dense")}
    convolution = keras.layers.Conv2D(
        *(4, 3, 1, "same", "channels_last"), name="conv", kernel_initializer=drawn["conv"]
    )
    dense = keras.layers.Dense(3, name="dense", kernel_initializer=drawn["dense"])
    return keras.Model(inputs, dense(layer(convolution(inputs))))


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
    """A convolution, the mean over positions, and a dense layer: its Grad-CAM can be written down.

    With `z_c = Σₖ w_kc mean(A_k)`, every gradient is `w_kc / (height · width)`.
    """
    return after_convolution(keras.layers.GlobalAveragePooling2D(data_format="channels_last"))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 12, 10, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def digits(digits_data):
    """Thirty held-out digits."""
    return digits_data.heldout.take(np.arange(0, 1297, 43)[:30])


def test_grad_cam_is_the_papers_formula(linear, images):
    """On a network whose gradients are known, the map is the weighted sum of its channels."""
    classes = np.array([0, 1, 2, 0, 1])
    features = predict(keras.Model(linear.input, linear.get_layer("conv").output), images)
    weights = convert_to_numpy(linear.get_layer("dense").kernel).astype(np.float64)
    expected = np.einsum("nyxk,kn->nyx", features, weights[:, classes] / 120).clip(0)
    expected /= np.maximum(expected.max((1, 2), keepdims=True), 1e-9)
    assert_allclose(grad_cam(linear, images, classes), expected, atol=1e-5)


def test_hires_cam_is_its_formula(images):
    """Before a dense layer, it is what each position adds to the logit, written down."""
    model = after_convolution(keras.layers.Flatten(data_format="channels_last"))
    classes = np.array([0, 1, 2, 0, 1])
    features = predict(keras.Model(model.input, model.get_layer("conv").output), images)
    kernel = convert_to_numpy(model.get_layer("dense").kernel).reshape(12, 10, 4, 3)
    expected = np.einsum("nyxk,yxkn->nyx", features, kernel[..., classes].astype(float)).clip(0)
    expected /= expected.max((1, 2), keepdims=True)
    assert_allclose(hires_cam(model, images, classes), expected, atol=1e-5)


def test_grad_cam_of_finite_differences(trained, digits):
    """The gradient of a deep layer is that of finite differences of its logit."""
    model = trained("cnn").model
    front = keras.Model(model.input, model.get_layer("conv3").output)
    back = keras.Model(model.get_layer("conv3").output, model.output)
    features = predict(front, digits.images[:1])
    label = int(predict(model, digits.images[:1]).argmax())
    step = 1e-2
    slopes = []
    for channel in range(features.shape[-1]):
        shifted = np.repeat(features, 2, axis=0)
        shifted[0, ..., channel] += step
        shifted[1, ..., channel] -= step
        up, down = convert_to_numpy(back(shifted, training=False))[:, label]
        slopes.append((up - down) / (2 * step))  # the sum over positions of the gradient
    weights = np.array(slopes) / np.prod(features.shape[1:3])
    expected = (features[0] @ weights).clip(0)
    found = grad_cam(model, digits.images[:1])[0]
    # Enlarged four times; the middles of 4×4 pixels are between the 7×7 positions' values.
    enlarged = ops.image.resize(
        expected[..., np.newaxis].astype("float32"), (28, 28), data_format="channels_last"
    )
    enlarged = convert_to_numpy(enlarged)[..., 0]
    assert_allclose(found, enlarged / enlarged.max(), atol=0.02)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_grad_cam_of_any_layer_and_class(layer, trained, digits):
    """Every convolution gives maps of the image's size in 0…1, other ones for other classes."""
    model = trained("cnn").model
    assert convolutions(model) == ["conv1", "conv2", "conv3"]
    maps = [
        cam(model, digits.images, np.full(30, c), layer)
        for cam in (grad_cam, hires_cam)
        for c in (0, 1)
    ]
    for found in maps:
        assert found.shape == (30, 28, 28)
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert set(found.max((1, 2)).tolist()) <= {0.0, 1.0}
    for one, other in ((0, 1), (2, 3), (0, 2)):
        assert np.abs(maps[one] - maps[other]).mean() > 0.03


def test_a_map_without_evidence_is_zero(linear, images):
    """A map that is negative everywhere is 0 and never NaN."""
    model = keras.models.clone_model(linear)
    model.get_layer("conv").set_weights([np.zeros((3, 3, 1, 4)), np.full(4, -1.0)])
    model.get_layer("dense").set_weights([np.ones((4, 3)), np.zeros(3)])
    assert not grad_cam(model, images, np.zeros(5, int)).any()
    assert grad_cam(model, images[:0]).shape == (0, 12, 10)
    assert occlusion(model, images[:0], patch=3).shape == (0, 12, 10)


def test_occlusion_is_its_definition(linear, images):
    """Each pixel is the mean fall of the log-probability over the patches that cover it."""
    image, label = images[0], 2

    def log_probability(x):
        return np.log(softmax(predict(linear, x[np.newaxis]))[0, label])

    total, count = np.zeros((12, 10)), np.zeros((12, 10))
    for top in range(-2, 11, 3):
        for left in range(-2, 9, 3):
            covered = image.copy()
            where = slice(max(top, 0), top + 4), slice(max(left, 0), left + 4)
            covered[where] = 100
            total[where] += log_probability(image) - log_probability(covered)
            count[where] += 1
    expected = (total / count).clip(0)
    found = occlusion(linear, images[:1], np.array([label]), patch=4, stride=3, background=100)
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
        correlations = [
            np.corrcoef(a.ravel(), b.ravel())[0, 1]
            for a, b in zip(maps, others, strict=True)
            if a.any() and b.any()
        ]
        assert np.mean(correlations) < 0.7


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

    def probability(pixels):
        return 1 / (1 + np.exp(-0.5 * pixels))

    assert found.pointed[0] == pytest.approx(probability(8) - probability(4), abs=1e-6)
    assert found.ink[0] == pytest.approx(probability(8) - probability(4), abs=1e-6)
    assert 0 <= found.elsewhere[0] <= found.pointed[0] + 1e-6


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
found = {
    f"{cam.__name__} {layer}": cam(model, images, classes, layer)
    for cam in (grad_cam, hires_cam)
    for layer in ("conv1", "conv2", "conv3")
}
np.savez(sys.argv[2], occlusion=occlusion(model, images, classes, stride=4), **found)
"""


@pytest.mark.several_backends
@pytest.mark.skipif(len(backends.installed()) < 2, reason="needs two backends")
def test_maps_are_equal_on_every_backend(model_file, tmp_path, monkeypatch):
    """Of one model file, every backend draws the same maps within 1e-5."""
    found = {}
    for backend in backends.installed():
        monkeypatch.setenv("KERAS_BACKEND", backend)
        out = tmp_path / f"{backend}.npz"
        subprocess.run([sys.executable, "-c", MAPS, model_file("cnn"), out], check=True)
        found[backend] = dict(np.load(out))
    first, *others = found.values()
    for other in others:
        for name, maps in first.items():
            assert_allclose(other[name], maps, atol=1e-5, err_msg=name)
