"""The original's two networks, and the small modern one with its encoder."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal

import mnist_keras
from mnist_keras import basic_net, cnn
from mnist_keras.models import encoders, original
from mnist_keras.models.encoders import encoder, small_cnn
from mnist_keras.models.torch_weights import load_torch_state, torch_state
from mnist_keras.training.networks import get_weights

X = np.random.default_rng(0).random((3, 28, 28, 3), dtype=np.float32)


@pytest.mark.parametrize(("build", "count"), [(basic_net, 1_338_634), (cnn, 21_923_258)])
def test_parameters_and_logits(build, count):
    """The networks have the original's parameters and return ten logits, not probabilities."""
    model = build()
    assert model.count_params() == count
    logits = convert_to_numpy(model(X))
    assert logits.shape == (3, 10)
    assert not np.allclose(logits.sum(-1), 1)


@pytest.mark.parametrize("build", [basic_net, cnn])
def test_seed_decides_the_weights(build):
    """Equal seeds give equal weights, other seeds others; every tensor has its own bound."""
    model, again, other = build(seed=1), build(seed=1), build(seed=2)
    for a, b, c in zip(*(m.get_weights() for m in (model, again, other)), strict=True):
        assert_array_equal(a, b)
        assert np.abs(a - c).max() > 0
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            bound = 1 / np.sqrt(np.prod(kernel.shape[:-1]))
            assert 0.7 * bound < abs(kernel).max() <= bound * (1 + 1e-6)
            assert abs(bias).max() <= bound * (1 + 1e-6)


def test_activation_replaces_relu_but_not_in_conv2():
    """Another activation is used everywhere but after the second convolution, which has none."""
    model = cnn(activation="tanh")
    found = {layer.name: layer.activation.__name__ for layer in model.layers if layer.weights}
    tanh, linear = ("conv1", "conv3", "fc1", "fc2"), ("conv2", "fc3")
    assert found == dict.fromkeys(tanh, "tanh") | dict.fromkeys(linear, "linear")


def test_other_shapes_and_channels_first_default():
    """Other images and class counts build, whatever data format keras.json prefers."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        for build in (basic_net, cnn):
            model = build((20, 24, 1), num_classes=4)
            assert model(np.zeros((2, 20, 24, 1), np.float32)).shape == (2, 4)
        assert cnn().count_params() == 21_923_258
    finally:
        keras.config.set_image_data_format(before)


def test_save_and_load(tmp_path):
    """A saved network gives equal logits."""
    model = basic_net(seed=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_array_equal(convert_to_numpy(loaded(X)), convert_to_numpy(model(X)))


@pytest.mark.parametrize("build", [basic_net, cnn])
def test_torch_state_has_pytorchs_layout(build):
    """Outputs come first, channels before rows and columns; what is read back is the same."""
    model = build((20, 24, 3), num_classes=4, seed=1)
    state = torch_state(model)
    kernels = {layer.name: layer.get_weights()[0] for layer in model.layers if layer.weights}
    height, width, channels = model.get_layer("flatten").input.shape[1:]
    for y, x, c in np.ndindex(height, width, channels):
        ours = kernels["fc1"][(y * width + x) * channels + c]
        assert_array_equal(ours, state["fc1.weight"][:, (c * height + y) * width + x])
    assert_array_equal(kernels["fc2"], state["fc2.weight"].T)
    if build is cnn:
        for o, i, y, x in np.ndindex(4, 32, 3, 3):
            assert kernels["conv2"][y, x, i, o] == state["conv2.weight"][o, i, y, x]
    other = build((20, 24, 3), num_classes=4, seed=2)
    load_torch_state(other, state)
    for mine, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        assert_array_equal(mine, theirs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_states(dtype):
    """Weights in 16 bits go in, and those of a 16-bit model come out in a type of NumPy's."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    state = torch_state(basic_net((4, 4, 1), 3, seed=1))
    in_16_bits = {
        name: array.astype(getattr(ml_dtypes, dtype, dtype)) for name, array in state.items()
    }
    model = basic_net((4, 4, 1), 3)
    load_torch_state(model, in_16_bits)
    for name, array in torch_state(model).items():
        assert_array_equal(array, in_16_bits[name].astype("float32"))
    keras.config.set_dtype_policy(dtype)
    try:
        small = basic_net((4, 4, 1), 3, seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    for name, array in torch_state(small).items():
        assert array.dtype == ("float16" if dtype == "float16" else "float32")
        assert_allclose(array, state[name], atol=2e-3)


def conv(**options):
    return keras.layers.Conv2D(2, 1, name="conv", **options)


def chain(*parts):
    return keras.Sequential([keras.Input((2, 3, 3)), *parts])


def dense(**options):
    return keras.layers.Dense(4, name="dense", **options)


@pytest.mark.parametrize(
    "between",
    [[], ["Dropout"], ["ReLU", "Dropout"], ["portable"]],
)
def test_other_chains_have_the_order_of_pytorch(between):
    """Pixels are put in order through what leaves them in place after they were flattened."""
    made = {"Dropout": keras.layers.Dropout(0.5), "ReLU": keras.layers.ReLU()}
    made["portable"] = mnist_keras.Dropout(0.5)
    model = chain(conv(), keras.layers.Flatten(), *(made[name] for name in between), dense())
    state = torch_state(model)
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 3)).astype("float32")
    # PyTorch: channels come first, and are flattened first.
    kernel = state["conv.weight"][:, :, 0, 0]
    y = np.einsum("nyxc,oc->noyx", x, kernel) + state["conv.bias"][:, None, None]
    y = np.maximum(y, 0) if "ReLU" in between else y
    expected = y.reshape(5, -1) @ state["dense.weight"].T + state["dense.bias"]
    assert_allclose(convert_to_numpy(model(x)), expected, rtol=1e-4, atol=1e-5)
    before = model.get_weights()
    model.set_weights([0 * weights for weights in before])
    load_torch_state(model, state)
    for mine, right in zip(model.get_weights(), before, strict=True):
        assert_array_equal(mine, right)


def branched():
    inputs = keras.Input((2, 3, 3))
    x = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, keras.layers.Dense(4, name="a")(x) + keras.layers.Dense(4)(x))


FLATTEN = keras.layers.Flatten
REFUSED = {
    "normalized": lambda: small_cnn((16, 16, 1)),
    "no bias": lambda: chain(FLATTEN(), dense(use_bias=False)),
    "permuted": lambda: chain(keras.layers.Permute((3, 1, 2)), FLATTEN(), dense()),
    "reshaped": lambda: chain(conv(), keras.layers.Reshape((12,)), dense()),
    "dense on images": lambda: chain(dense(), FLATTEN()),
    "channels first": lambda: chain(FLATTEN(data_format="channels_first"), dense()),
    "depthwise": lambda: chain(keras.layers.DepthwiseConv2D(1), FLATTEN(), dense()),
    "transposed": lambda: chain(keras.layers.Conv2DTranspose(2, 1), FLATTEN(), dense()),
    "branched": branched,
    "not built": lambda: keras.Sequential([FLATTEN(), dense()]),
    "nested": lambda: chain(chain(conv(), FLATTEN()), dense()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_without_a_certain_order_are_refused(name):
    """Neither do their weights come out, nor do any go in."""
    model = REFUSED[name]()
    for refuse in torch_state, lambda model: load_torch_state(model, {}):
        with pytest.raises(ValueError, match="must be a built chain of `Dense`"):
            refuse(model)


def test_wrong_torch_states_are_one_error_and_change_nothing():
    """Missing and unknown names, wrong shapes and values that are not arrays are named."""
    model = basic_net()
    before = model.get_weights()
    state = torch_state(basic_net(seed=1))
    cases = {
        "Missing: fc1.bias; unknown: fc9.bias": {"fc1.bias": None, "fc9.bias": state["fc1.bias"]},
        r"fc1.weight has shape \(2, 2\) instead of \(512, 2352\)": {"fc1.weight": np.ones((2, 2))},
        "no array at 'fc3.bias'": {"fc3.bias": [[1.0], [2.0, 3.0]]},
        "floats. Received: fc3.bias of int64": {"fc3.bias": np.arange(10)},
    }
    for message, change in cases.items():
        wrong = {k: v for k, v in (state | change).items() if v is not None}
        with pytest.raises(ValueError, match=message):
            load_torch_state(model, wrong)
    with pytest.raises(ValueError, match="is not that of basic_net"):
        load_torch_state(model, torch_state(cnn()))
    for mine, old in zip(model.get_weights(), before, strict=True):
        assert_array_equal(mine, old)


@pytest.mark.parametrize("shape", [(28, 28, 3), (20, 26, 1), (9, 8, 4)])
@pytest.mark.parametrize("name", ["basic_net", "cnn"])
def test_count_parameters(name, shape):
    """The count that is known without a network is the network's."""
    for classes in (2, 10):
        built = getattr(original, name)(shape, classes)
        assert original.count_parameters(name, shape, classes) == built.count_params()


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("shape", "classes", "width"),
    [((28, 28, 1), 10, 16), ((28, 28, 3), 10, 24), ((40, 33, 1), 2, 5)],
)
def test_parameters_are_counted_without_building(shape, classes, width):
    """Of every shape, of the network with classes and of the encoder, which has none."""
    network, features = small_cnn(shape, classes, width=width), encoder(shape, width=width)
    assert network.count_params() == encoders.count_parameters(shape, classes, width)
    assert features.count_params() == encoders.count_parameters(shape, 0, width)


def test_the_encoder_is_the_beginning_of_the_network():
    """Same names, same initial weights, so that the weights of one are those of the other."""
    own, whole = get_weights(encoder(seed=3)), get_weights(small_cnn(seed=3))
    assert set(whole) - set(own) == {"logits/kernel", "logits/bias"}
    for path, weights in own.items():
        assert_array_equal(weights, whole[path])
    assert np.any(own["conv1/kernel"] != get_weights(encoder(seed=4))["conv1/kernel"])


def test_features_by_hand():
    """The encoder is what its docstring says, computed here with plain operations."""
    model = encoder((8, 8, 1), width=2, seed=1)
    x = np.random.default_rng(0).random((3, 8, 8, 1), dtype=np.float32)
    expected = x
    for number in range(1, 6):
        kernel = model.get_layer(f"conv{number}").kernel
        expected = ops.conv(expected, kernel, padding="same", data_format="channels_last")
        expected = ops.relu(expected / np.sqrt(1 + 1e-3))  # mean 0, variance 1 at first
        if number in (1, 3, 5):
            expected = ops.max_pool(expected, 2, 2, data_format="channels_last")
    expected = convert_to_numpy(expected).reshape(3, -1)
    assert_allclose(convert_to_numpy(model(x)), expected, rtol=1e-4, atol=1e-6)


def test_all_classes_are_equally_likely_at_first():
    """The first loss is the logarithm of the number of classes, whatever the image."""
    x = np.random.default_rng(0).random((3, 28, 28, 1), dtype=np.float32)
    assert not convert_to_numpy(small_cnn(num_classes=7)(x)).any()


def test_masks_differ_from_step_to_step():
    """Dropout stands before the logits, and is the portable one."""
    layer = small_cnn().get_layer("dropout")
    ones = np.ones((2, 576), "float32")
    first, second = (convert_to_numpy(layer(ones, training=True)) for _ in range(2))
    assert np.any(first != second)
    assert 0.5 < (first > 0).mean() < 0.7
