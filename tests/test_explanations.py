"""Maps of what a model looked at, by their formulas and on every backend; features and t-SNE."""

import functools
import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal

from mnist_keras._foundations import backends
from mnist_keras.datasets.images import scaled
from mnist_keras.explanations.embeddings import features, nearest_neighbor_score, tsne
from mnist_keras.explanations.erasure import erasure
from mnist_keras.explanations.maps import (
    ExplanationError,
    convolutions,
    grad_cam,
    hires_cam,
    occlusion,
)
from mnist_keras.models.prediction import softmax
from mnist_keras.portable import GlorotUniform

IMAGES = np.random.default_rng(0).random((5, 12, 10, 1), np.float32)
POOL, FLATTEN = keras.layers.GlobalAveragePooling2D, keras.layers.Flatten


@pytest.fixture(autouse=True)
def _seeded():
    """The same initial weights in each run of a test."""
    keras.utils.set_random_seed(0)


def after_convolution(layer):
    """Return a network of a convolution, that layer, and a dense one, with the same weights."""
    inputs = keras.Input((12, 10, 1))
    conv, dense = (
        {"name": name, "kernel_initializer": GlorotUniform(1, path=f"{name}/kernel")}
        for name in ("conv", "dense")
    )
    x = keras.layers.Conv2D(4, 3, padding="same", data_format="channels_last", **conv)(inputs)
    x = layer(data_format="channels_last")(x)
    return keras.Model(inputs, keras.layers.Dense(3, **dense)(x))


def outputs(model, images):
    """Return what a model gives when it is called."""
    return convert_to_numpy(model(ops.convert_to_tensor(images), training=False))


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
    """Thirty held-out digits as the models take them."""
    chosen = digits_data.heldout.take(np.arange(0, 1297, 43)[:30])
    return replace(chosen, images=scaled(chosen.images))


@pytest.mark.parametrize(
    ("cam", "layer", "positions"), [(grad_cam, POOL, (1, 1)), (hires_cam, FLATTEN, (12, 10))]
)
def test_maps_are_the_papers_formulas(cam, layer, positions):
    """Where gradients are the dense layer's weights, maps are the channels' weighted sums."""
    model, classes = after_convolution(layer), np.array([0, 1, 2, 0, 1])
    channels = outputs(keras.Model(model.input, model.get_layer("conv").output), IMAGES)
    weights = convert_to_numpy(model.get_layer("dense").kernel)[:, classes].T.astype(np.float64)
    expected = (channels * weights.reshape(5, *positions, 4)).sum(-1).clip(0)
    expected /= np.maximum(expected.max((1, 2), keepdims=True), 1e-9)
    assert_allclose(cam(model, IMAGES, classes), expected, atol=1e-5)


class Chain(keras.Model):
    """A subclassed model that calls its layers one after the other."""

    def __init__(self, layers, end=None):
        super().__init__()
        self.chain, self.end = layers, end

    def call(self, x):
        for layer in self.chain:
            x = layer(x)
        return self.end(x) if self.end else x


class Block(keras.layers.Layer):
    """A layer made of layers."""

    def __init__(self, layers):
        super().__init__(name="block")
        self.inner = layers

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


class Gate(keras.layers.Layer):
    """A layer whose activation is not its end."""

    def __init__(self):
        super().__init__()
        self.activation = keras.activations.sigmoid

    def call(self, x):
        return x * self.activation(x)


def sequential(*layers, shape=(12, 10, 1), name=None):
    """Return these layers one after the other as a model."""
    return keras.Sequential([keras.Input(shape), *layers], name=name)


def then(operation):
    """Return the arrangement of layers as a functional model that ends in an operation."""

    def arrange(*layers):
        x = inputs = keras.Input((12, 10, 1))
        for layer in layers:
            x = layer(x)
        return keras.Model(inputs, operation(x))

    return arrange


def branched(conv, flatten, dense):
    """Return a model in which the convolution is one of two branches."""
    inputs = keras.Input((12, 10, 1))
    x = conv(inputs)
    aside = keras.layers.Conv2D(4, 1, name="aside", data_format="channels_last")(inputs)
    return keras.Model(inputs, dense(flatten(x + 3 * aside)))


ARRANGEMENTS = {
    "sequential": sequential,
    "not built": lambda *layers: keras.Sequential([*layers]),
    "functional": then(lambda x: x),
    "branched": branched,
    "subclassed": lambda *layers: Chain(layers),
    "inside a layer": lambda conv, *after: sequential(Block([conv]), *after),
    "a model in a model": lambda conv, *after: sequential(sequential(conv, name="base"), *after),
    "twice inside": lambda conv, *after: sequential(
        sequential(sequential(conv, name="inner"), name="outer"), *after
    ),
    "shared pooling": lambda conv, *after: sequential(
        pool := keras.layers.MaxPooling2D(1, data_format="channels_last"),
        conv,
        Block([pool]),
        *after,
    ),
    "dropout": lambda conv, *after: sequential(conv, keras.layers.Dropout(0.9), *after),
    "softmax layer": lambda *layers: sequential(*layers, keras.layers.Softmax()),
    "softmax activation": lambda *layers: sequential(*layers, keras.layers.Activation("softmax")),
    "softmax operation": then(ops.softmax),
    "log-softmax operation": then(ops.log_softmax),
    "sigmoid operation": then(ops.sigmoid),
    "sigmoid in a model": lambda *layers: sequential(
        *layers, sequential(keras.layers.Activation("sigmoid"), shape=(3,))
    ),
    "subclassed softmax": lambda *layers: Chain([*layers, keras.layers.Softmax()]),
}
# Operations after the last layer, and what they do to its weights.
ENDS = {
    "negative": (lambda x: -x, -np.eye(3)),
    "halved": (lambda x: x / 2, np.eye(3) / 2),
    "reversed": (lambda x: ops.flip(x, -1), np.eye(3)[::-1]),
    "differences": (lambda x: x - ops.roll(x, 1, -1), np.eye(3) - np.roll(np.eye(3), 1, 1)),
    "joined": (
        lambda x: ops.concatenate([x[:, 1:], 2 * x[:, :1]], -1),
        np.diag([2, 1, 1])[:, [1, 2, 0]],
    ),
}
CONVOLUTIONS = {
    "plain": lambda **o: keras.layers.Conv2D(4, 3, **o),
    "1×1": lambda **o: keras.layers.Conv2D(4, 1, **o),
    "dilated": lambda **o: keras.layers.Conv2D(4, 3, dilation_rate=2, **o),
    "transposed": lambda **o: keras.layers.Conv2DTranspose(4, 3, **o),
    "separable": lambda **o: keras.layers.SeparableConv2D(4, 3, **o),
    "depthwise": lambda **o: keras.layers.DepthwiseConv2D(3, depth_multiplier=4, **o),
}
CLASSES = np.array([0, 1, 2, 0, 1])


def three_layers(kind="plain", **dense):
    """Return a convolution, a layer that flattens, and a dense layer of three units."""
    conv = CONVOLUTIONS[kind](padding="same", name="conv", data_format="channels_last")
    flatten = keras.layers.Flatten(data_format="channels_last")
    return conv, flatten, keras.layers.Dense(3, name="dense", **dense)


def check_maps(model, images, features, kernel, classes=CLASSES, atol=1e-5, **options):
    """Compare maps with the formulas for logits that are `features` times `kernel`."""
    slopes = np.moveaxis(kernel[:, classes].reshape(12, 10, 4, len(classes)), -1, 0)
    for cam, weights in ((hires_cam, slopes), (grad_cam, slopes.mean((1, 2), keepdims=True))):
        expected = (weights * features).sum(-1).clip(0)
        expected /= np.maximum(expected.max((1, 2), keepdims=True), 1e-9)
        found = cam(model, images, classes, **options)
        assert found.dtype == np.float32
        assert_allclose(found, expected, atol=atol)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_maps_of_any_arrangement(arrangement):
    """Maps are those of the logits, however a model is put together and whatever head it has."""
    conv, flatten, dense = three_layers()
    model = ARRANGEMENTS[arrangement](conv, flatten, dense)
    grad_cam(model, IMAGES, layer="conv")  # builds it
    seen = outputs(conv, IMAGES)
    check_maps(model, IMAGES, seen, convert_to_numpy(dense.kernel), layer="conv")
    if arrangement != "branched":
        assert_allclose(features(model, IMAGES), outputs(flatten, seen), atol=1e-5)


@pytest.mark.parametrize("end", ENDS)
def test_maps_are_of_the_models_own_output(end):
    """Operations after the last layer belong to the function that is explained."""
    conv, flatten, dense = three_layers()
    operation, matrix = ENDS[end]
    for model in (then(operation)(conv, flatten, dense), Chain([conv, flatten, dense], operation)):
        grad_cam(model, IMAGES + 9)  # builds it
        dense.bias.assign([7, 8, 9])  # numbers in 0…1 might be probabilities
        kernel = convert_to_numpy(dense.kernel) @ matrix
        check_maps(model, IMAGES, outputs(conv, IMAGES), kernel)


def test_an_activation_that_is_not_the_end():
    """A layer of one's own is explained as it is, whatever its attributes are called."""
    conv, flatten, dense = three_layers(kernel_initializer=keras.initializers.RandomNormal(0, 1))
    model = sequential(conv, flatten, dense, Gate())
    x = outputs(sequential(conv, flatten, dense), IMAGES)
    sigmoid = 1 / (1 + np.exp(-x))
    slopes = sigmoid * (1 + x * (1 - sigmoid))  # of x times its sigmoid
    kernel = convert_to_numpy(dense.kernel)
    for row in range(5):
        seen, one = outputs(conv, IMAGES[row : row + 1]), IMAGES[row : row + 1]
        check_maps(model, one, seen, slopes[row] * kernel, CLASSES[row : row + 1])


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_maps_of_any_convolution(kind):
    """The last convolution of whatever kind is explained if no other is asked for."""
    conv, flatten, dense = three_layers(kind)
    first = keras.layers.Conv2D(1, 3, padding="same", name="first", data_format="channels_last")
    for model in (
        sequential(first, conv, flatten, dense),
        sequential(first, sequential(conv), flatten, dense),
    ):
        assert convolutions(model) == ["first", "conv"]
        check_maps(
            model, IMAGES, outputs(conv, outputs(first, IMAGES)), convert_to_numpy(dense.kernel)
        )


def test_a_convolution_in_the_head_is_not_the_default():
    """One that has a single position has nowhere to point to."""
    conv, _, _ = three_layers()
    pool = keras.layers.GlobalAveragePooling2D(keepdims=True, data_format="channels_last")
    head = keras.layers.Conv2D(3, 1, name="head", data_format="channels_last")
    model = sequential(conv, pool, head, keras.layers.Flatten(data_format="channels_last"))
    kernel = np.tile(convert_to_numpy(head.kernel)[0, 0], (120, 1))
    check_maps(model, IMAGES, outputs(conv, IMAGES), kernel)


def test_names_inside_models():
    """A name that two models have is given with its model."""
    sides = []
    for side in ("left", "right"):
        conv, flatten, _ = three_layers()
        sides.append(sequential(conv, flatten, name=side))
    inputs, dense = keras.Input((12, 10, 1)), keras.layers.Dense(3)
    joined = keras.layers.Concatenate()([side(inputs) for side in sides])
    model = keras.Model(inputs, dense(joined))
    kernels = np.split(convert_to_numpy(dense.kernel), 2)
    for side, kernel in zip(sides, kernels, strict=True):
        seen = outputs(side.get_layer("conv"), IMAGES)
        check_maps(model, IMAGES, seen, kernel, layer=f"{side.name}/conv")
    with pytest.raises(ExplanationError, match=r"'conv'. Known: left/conv, right/conv"):
        grad_cam(model, IMAGES, layer="conv")


LEVELS = (255 * IMAGES).astype(np.uint8)


@pytest.mark.parametrize(
    ("layer", "images"),
    [
        (lambda: keras.layers.Rescaling(1 / 255), LEVELS),
        (lambda: keras.layers.Rescaling(1 / 127.5, offset=-1), LEVELS.astype(np.float64)),
        (lambda: keras.layers.Normalization(mean=100.0, variance=2500.0), LEVELS),
    ],
)
def test_images_are_given_as_to_predict(layer, images):
    """Nothing is divided by 255 but by the model itself, in maps, erasure and features."""
    first, (conv, flatten, dense) = layer(), three_layers()
    model, inner = sequential(first, conv, flatten, dense), sequential(conv, flatten, dense)
    given = outputs(first, images)
    check_maps(model, images, outputs(conv, given), convert_to_numpy(dense.kernel))
    assert_allclose(features(model, images), features(inner, given), atol=1e-5)
    level = outputs(first, np.full((1, 12, 10, 1), 100.0))[0, 0, 0, 0]
    maps = occlusion(model, images, CLASSES, patch=4, background=100)
    assert_allclose(maps, occlusion(inner, given, CLASSES, patch=4, background=level), atol=1e-4)
    found = erasure(model, images, maps, CLASSES, background=100)
    expected = erasure(inner, given, maps, CLASSES, background=level)
    assert_allclose(found.pointed, expected.pointed, atol=1e-5)
    with pytest.raises(ExplanationError, match="expected maps of shape"):
        erasure(model, images, maps[:, :5])


@pytest.mark.parametrize("moved", ["no", "permuted", "transposed"])
def test_channels_first(moved):
    """Maps have the height and width of images whose channels come first, or are refused."""
    data_format = "channels_first" if moved == "no" else "channels_last"
    conv = keras.layers.Conv2D(4, 3, padding="same", data_format=data_format)
    after = [keras.layers.Flatten(data_format=data_format), dense := keras.layers.Dense(3)]
    front = {
        "no": keras.layers.Activation("linear"),
        "permuted": keras.layers.Permute((2, 3, 1)),
        "transposed": keras.layers.Lambda(lambda x: ops.transpose(x, (0, 2, 3, 1))),
    }[moved]
    model = sequential(front, conv, *after, shape=(2, 12, 10))
    images = np.random.default_rng(1).random((5, 2, 12, 10), np.float32)
    try:
        seen = outputs(conv, outputs(front, images))
    except Exception:  # TensorFlow on some processors
        with pytest.raises(ExplanationError, match="does not run on images"):
            grad_cam(model, images)
        return
    check_maps(
        model,
        images,
        seen if moved != "no" else np.moveaxis(seen, 1, -1),
        convert_to_numpy(dense.kernel),
    )
    assert occlusion(model, images, CLASSES, patch=4).shape == (5, 12, 10)
    assert erasure(model, images, np.ones((5, 12, 10)), CLASSES).pointed.shape == (5,)


def test_axes_that_are_not_told():
    """Where an unknown layer may have moved the axes, maps are refused and not turned."""
    conv, flatten, dense = three_layers()
    front = keras.layers.Lambda(lambda x: ops.transpose(x, (0, 2, 3, 1))[:, 1:, 1:])
    model = sequential(front, conv, flatten, dense, shape=(2, 12, 10))
    with pytest.raises(ExplanationError, match="do not tell height, width and channels"):
        grad_cam(model, np.zeros((1, 2, 12, 10)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_maps_of_16_bits(policy):
    """Maps are float32 and those of the same weights in 32 bits, up to rounding."""
    made = []
    for dtype in ("float32", policy):
        options = {"data_format": "channels_last", "dtype": dtype}
        keras.utils.set_random_seed(1)
        made.append(
            sequential(
                keras.layers.Conv2D(4, 3, activation="relu", **options),
                keras.layers.MaxPooling2D(**options),
                keras.layers.GlobalAveragePooling2D(**options),
                keras.layers.Dense(3, activation="softmax", dtype=dtype),
            )
        )
    plain, short = made
    short.set_weights(plain.get_weights())
    for explain in (grad_cam, hires_cam, lambda *given: occlusion(*given, patch=4)):
        found = explain(short, IMAGES, CLASSES)
        assert found.dtype == np.float32
        assert np.abs(found - explain(plain, IMAGES, CLASSES)).mean() < 0.03
    assert features(short, IMAGES).dtype == np.float32


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_one_logit_speaks_for_class_1(activation):
    """It speaks against class 0; the predicted class is 1 where it is positive."""
    conv, flatten, _ = three_layers()
    dense = keras.layers.Dense(1, activation=activation)
    model = sequential(conv, flatten, dense)
    kernel, seen = convert_to_numpy(dense.kernel), outputs(conv, IMAGES)
    dense.bias.assign([-np.median(outputs(flatten, seen) @ kernel) + 1e-3])
    both, classes = np.hstack([-kernel, kernel]), np.array([0, 1, 1, 0, 1])
    check_maps(model, IMAGES, seen, both, classes)
    logits = outputs(flatten, seen) @ kernel + convert_to_numpy(dense.bias)
    predicted = (logits[:, 0] > 0).astype(int)
    assert 0 < predicted.sum() < 5
    check_maps(model, IMAGES, seen, both, predicted)
    two = sequential(conv, flatten, keras.layers.Dense(2))
    two.layers[-1].set_weights([np.hstack([0 * kernel, kernel]), np.append(0, dense.bias)])
    for given in (classes, None):  # as of two logits, one of which is 0
        maps = occlusion(model, IMAGES, given, patch=4)
        assert_allclose(maps, occlusion(two, IMAGES, given, patch=4), atol=1e-4)
    falls = [erasure(m, IMAGES, maps, classes).pointed for m in (model, two)]
    assert_allclose(*falls, atol=1e-5)


@pytest.mark.parametrize("units", [1, 3])
def test_occlusion_of_a_saturated_model(units):
    """Falls of probabilities that round to 1 keep their proportions."""
    model = sequential(keras.layers.Flatten(data_format="channels_last"), keras.layers.Dense(units))
    weights = np.zeros((12, 10))
    weights[:6, :5] = 50.0
    kernel = np.zeros((120, units))
    kernel[:, -1] = weights.ravel()
    model.layers[-1].set_weights([kernel, np.full(units, 0.5)])
    found = occlusion(model, IMAGES + 1, np.full(5, max(1, units - 1)), patch=4, stride=2)
    assert found[:, 1:5, 1:4].mean() > 0.1
    found[:, :8, :7] = 0
    assert not found.any()


def test_occlusion_of_classes_that_do_not_exclude_each_other():
    """After a sigmoid, a class's probability is its own."""
    conv, flatten, dense = three_layers(activation="sigmoid")
    model = sequential(conv, flatten, dense)
    alone = sequential(conv, flatten, keras.layers.Dense(1))
    alone.layers[-1].set_weights([w[..., 2:] for w in dense.get_weights()])
    found = occlusion(model, IMAGES, np.full(5, 2), patch=4)
    assert_allclose(found, occlusion(alone, IMAGES, np.full(5, 1), patch=4), atol=1e-4)


def test_what_images_and_classes_may_be(linear):
    """Lists and tensors are arrays; a single image is refused, and it is said what is needed."""
    expected = grad_cam(linear, IMAGES, CLASSES)
    for images in (list(IMAGES), ops.convert_to_tensor(IMAGES), IMAGES.astype(np.float64)):
        for classes in (CLASSES, list(CLASSES), ops.convert_to_tensor(CLASSES)):
            assert_allclose(grad_cam(linear, images, classes), expected, atol=1e-6)
        assert occlusion(linear, images, CLASSES, patch=4).shape == (5, 12, 10)
    half = ops.cast(IMAGES, "bfloat16")
    assert_allclose(grad_cam(linear, half, CLASSES), expected, atol=0.05)
    with pytest.raises(ExplanationError, match=r"given as image\[np.newaxis\]"):
        grad_cam(linear, IMAGES[0])
    with pytest.raises(ExplanationError, match="not one array"):
        occlusion(linear, [IMAGES[0], IMAGES[0, :5]])


@pytest.mark.any_backend
def test_a_level_that_bytes_cannot_hold(linear):
    """A background between two levels is not rounded."""
    found = occlusion(linear, LEVELS, CLASSES, patch=4, background=127.5)
    expected = occlusion(linear, LEVELS.astype(np.float32), CLASSES, patch=4, background=127.5)
    assert_array_equal(found, expected)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="is about PyTorch's contexts")
@pytest.mark.parametrize("context", ["no_grad", "inference_mode"])
def test_maps_where_pytorch_takes_no_gradients(linear, context):
    """They are the same, also for images that were made there, and frozen weights."""
    import torch

    expected = hires_cam(linear, IMAGES, CLASSES)
    linear.trainable = False
    with getattr(torch, context)():
        found = hires_cam(linear, ops.convert_to_tensor(IMAGES), CLASSES)
    linear.trainable = True
    assert_allclose(found, expected, atol=1e-6)


def test_a_model_is_left_as_it_was():
    """Neither its state nor its layers change, also where maps are refused."""
    conv, flatten, dense = three_layers(activation="softmax")
    norm = keras.layers.BatchNormalization(axis=-1)
    model = Chain([conv, functools.partial(norm, training=True), flatten, dense])
    model.norm = norm
    grad_cam(model, IMAGES)  # builds it
    weights, parts = model.get_weights(), [dict(vars(layer)) for layer in model.layers]
    grad_cam(model, IMAGES)
    occlusion(model, IMAGES, patch=4)
    with pytest.raises(ExplanationError):
        grad_cam(model, IMAGES * np.nan)
    for before, after in zip(weights, model.get_weights(), strict=True):
        assert_array_equal(before, after)
    for before, layer in zip(parts, model.layers, strict=True):
        assert before.keys() == vars(layer).keys()
        assert before.get("activation") is vars(layer).get("activation")
    assert_allclose(outputs(model, IMAGES).sum(1), 1, atol=1e-5)


def two_inputs(conv, flatten, dense):
    inputs = [keras.Input((12, 10, 1)), keras.Input((12, 10, 1))]
    return keras.Model(inputs, dense(flatten(conv(inputs[0]) + inputs[1])))


def two_outputs(conv, flatten, dense):
    return then(lambda x: [x, -x])(conv, flatten, dense)


def shared(conv, flatten, dense):
    return sequential(conv, keras.layers.Conv2D(1, 1), Block([conv]), flatten, dense)


def binary(conv, flatten, dense):
    join = keras.layers.Dense(1, activation="sigmoid")
    return then(lambda x: ops.concatenate([1 - join(x), join(x)], -1))(conv, flatten, dense)


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (two_inputs, "several inputs"),
        (two_outputs, r"one vector for each image. .* gives \[\(1, 3\), \(1, 3\)\]"),
        (lambda conv, *_: sequential(conv), r"gives \(1, 12, 10, 4\)"),
        (lambda *layers: sequential(*layers, keras.layers.Reshape((3, 1))), r"gives \(1, 3, 1\)"),
        (shared, "does not call conv exactly once"),
        (binary, "gives probabilities"),
        (then(lambda x: ops.clip(ops.softmax(x), 1e-7, 1)), "gives probabilities"),
        (then(lambda x: ops.sigmoid(x) / 2), "ends before the softmax or sigmoid"),
        (lambda *layers: Chain(layers, ops.softmax), "gives probabilities"),
        (lambda *layers: Chain(layers, ops.sigmoid), "gives probabilities"),
        (then(lambda x: ops.softmax(ops.softmax(x))), "gives probabilities"),
        (lambda *layers: sequential(Block([Chain(layers, ops.sigmoid)])), "gives probabilities"),
        (then(keras.layers.Activation(lambda x: ops.sigmoid(x))), "gives probabilities"),
        (then(keras.layers.Lambda(lambda x: ops.sigmoid(x))), "gives probabilities"),
        (lambda *layers: sequential(*layers, shape=(9, 9, 1)), "does not run on images"),
        (then(lambda x: x / 0), "not finite"),
    ],
)
def test_models_that_are_refused(arrange, said):
    """What has no map of its own is refused, and never explained by another function."""
    model = arrange(*three_layers())
    for cam in (grad_cam, hires_cam):
        with pytest.raises(ExplanationError, match=said):
            cam(model, IMAGES)
    if arrange is not shared:
        with pytest.raises(ExplanationError, match=said):
            occlusion(model, IMAGES, patch=4)


@pytest.mark.slow
def test_grad_cam_of_finite_differences(trained, digits):
    """The gradient of a deep layer is that of finite differences of its logit."""
    model = trained("cnn").model
    front = keras.Model(model.input, model.get_layer("conv3").output)
    back = keras.Model(model.get_layer("conv3").output, model.output)
    channels = outputs(front, digits.images[:1])
    label = int(outputs(model, digits.images[:1]).argmax())
    step = 1e-2
    shifts = step * np.eye(channels.shape[-1], dtype=np.float32)[:, np.newaxis, np.newaxis]
    up, down = (outputs(back, channels + shift)[:, label] for shift in (shifts, -shifts))
    slopes = (up - down) / (2 * step)  # of each channel, the sum over positions of the gradient
    weights = slopes / np.prod(channels.shape[1:3])
    expected = (channels[0] @ weights).clip(0)
    found = grad_cam(model, digits.images[:1])[0]
    # Enlarged four times; the middles of 4×4 pixels are between the 7×7 positions' values.
    expected = expected[..., np.newaxis].astype("float32")
    enlarged = convert_to_numpy(ops.image.resize(expected, (28, 28), data_format="channels_last"))
    assert_allclose(found, enlarged[..., 0] / enlarged.max(), atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["conv1", "conv3", "conv5"])
def test_grad_cam_of_any_layer_and_class(layer, trained, digits):
    """Every convolution gives maps of the image's size in 0…1, other ones for other classes."""
    model = trained("small_cnn").model
    assert convolutions(model) == [f"conv{number}" for number in range(1, 6)]
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
        return np.log(softmax(outputs(linear, x[np.newaxis]))[0, label])

    total, count = np.zeros((12, 10)), np.zeros((12, 10))
    for top, left in itertools.product(range(-2, 11, 3), range(-2, 9, 3)):
        covered = image.copy()
        where = slice(max(top, 0), top + 4), slice(max(left, 0), left + 4)
        covered[where] = 0.4
        total[where] += log_probability(image) - log_probability(covered)
        count[where] += 1
    expected = (total / count).clip(0)
    found = occlusion(linear, IMAGES[:1], np.array([label]), patch=4, stride=3, background=0.4)
    assert_allclose(found[0], expected / expected.max(), atol=1e-4)


def test_occlusion_finds_what_counts():
    """A network that looks at one corner is shown to look there."""
    weights = np.zeros((28, 28, 3))
    weights[2:6, 20:24] = 1
    images = np.full((1, 28, 28, 3), 0.8, np.float32)
    found = occlusion(linear_in_pixels(weights), images, np.array([1]))[0]
    assert found[2:6, 20:24].min() > 0.5
    found[:11, 15:] = 0
    assert not found.any()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model, x: grad_cam(model, x, layer="fc"), "no convolution 'fc'. Known: conv1"),
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
        call(trained("small_cnn").model, digits.images)


def test_a_network_without_convolutions(trained, digits):
    """Grad-CAM says what to use instead; occlusion needs no convolution."""
    model = trained("basic_net").model
    with pytest.raises(ExplanationError, match="occlusion maps need none"):
        grad_cam(model, digits.images)
    assert occlusion(model, digits.images[:2], stride=6).max() == 1


@pytest.mark.slow
def test_random_weights_give_other_maps(trained, digits):
    """Maps depend on what was learned: those of the untrained network hardly resemble them."""
    model, before = trained("cnn").model, trained("cnn").untrained()
    classes = outputs(model, digits.images).argmax(1)
    for method in (grad_cam, lambda *a: occlusion(*a, stride=4)):
        maps, others = (method(m, digits.images[:10], classes[:10]) for m in (model, before))
        pairs = [(a, b) for a, b in zip(maps, others, strict=True) if a.any() and b.any()]
        assert np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]) < 0.7


@pytest.mark.slow
def test_erasing_what_a_map_points_to(trained, digits):
    """It lowers the probability more than erasing as much elsewhere; a wrong map does not."""
    model = trained("cnn").model
    right = np.flatnonzero(outputs(model, digits.images).argmax(1) == digits.labels)
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
    image = np.zeros((1, 10, 10, 1), np.float32)
    image[0, 0, :8] = 1
    maps = np.zeros((1, 10, 10))
    maps[0, 0, :4] = 1
    found = erasure(model, image, maps, np.array([1]), share=0.04)
    of_eight, of_four = 1 / (1 + np.exp(-0.5 * np.array([8, 4])))
    assert found.pointed[0] == pytest.approx(of_eight - of_four, abs=1e-6)
    assert found.ink[0] == pytest.approx(of_eight - of_four, abs=1e-6)
    assert 0 <= found.elsewhere[0] <= found.pointed[0] + 1e-6


@pytest.mark.slow
def test_features_are_what_the_last_layer_takes(trained, digits_data):
    """The last layer makes the logits of them."""
    model = trained("small_cnn").model
    images = scaled(digits_data.heldout.images[:20])
    found = features(model, images)
    assert found.shape == (20, 576)
    logits = convert_to_numpy(model.layers[-1](found))
    assert_allclose(logits, outputs(model, images), atol=1e-4)


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
@pytest.mark.parametrize("scale", [1e-30, 1e-14, 1e20])
@pytest.mark.parametrize("offset", [0, 1])
def test_tsne_of_what_hardly_differs(scale, offset):
    """Rounding has no neighborhoods; scikit-learn draws some, or ends the process."""
    vectors = np.random.default_rng(0).random((20, 5)) * scale + offset
    if offset and scale < 1:
        vectors = 1 + np.random.default_rng(0).random((20, 5)) * 1e-7
    with pytest.raises(ExplanationError, match="needs vectors that differ"):
        tsne(vectors.astype(np.float32))
    assert np.isfinite(tsne(1 + 1e-3 * np.eye(20, dtype=np.float32))).all()


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
from mnist_keras.datasets.images import scaled
from mnist_keras.explanations.maps import grad_cam, hires_cam, occlusion
from mnist_keras.inference.model_file import load_model
from mnist_keras.models.prediction import predict
model = load_model(Path(sys.argv[1])).model
images = scaled(sources.load("digits", channels=3).images[:12])
classes = np.arange(12) % 10
found = {"logits": predict(model, images)}
for cam in (grad_cam, hires_cam):
    for layer in ("conv1", "conv3", "conv5"):
        found[f"{cam.__name__} {layer}"] = cam(model, images, classes, layer)
np.savez(sys.argv[2], occlusion=occlusion(model, images, classes, stride=4), **found)
"""


@pytest.mark.several_backends
@pytest.mark.skipif(len(backends.installed()) < 2, reason="needs two backends")
def test_a_file_gives_equal_logits_and_maps_on_every_backend(model_file, tmp_path, python):
    """In fresh processes, every backend gives the logits and the maps of one file within 1e-5."""
    found = {}
    for backend in backends.installed():
        out = tmp_path / f"{backend}.npz"
        python("-c", MAPS, model_file("small_cnn"), out, environment={"KERAS_BACKEND": backend})
        found[backend] = dict(np.load(out))
    first, *others = found.values()
    for other, name in itertools.product(others, first):
        assert_allclose(other[name], first[name], atol=1e-5, err_msg=name)
