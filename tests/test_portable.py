"""Initial weights and dropout masks: equal on every backend, bit for bit."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal

import mnist_keras
from mnist_keras import Dropout, FanInUniform, GlorotUniform, HeUniform, SpatialDropout2D
from mnist_keras._foundations.seeds import generator
from mnist_keras.portable import _mix


def numpys(shape):
    """The numbers of seed 3 for the weights fc/kernel, uniform in ±1."""
    return generator(3, "fc/kernel").random(shape, dtype=np.float32) * 2 - 1


def test_fan_in_uniform_is_numpys():
    """The weights are NumPy's numbers, uniform in ±1/√fan_in, whatever the backend."""
    weights = convert_to_numpy(FanInUniform("fc/kernel", seed=3)((400, 50)))
    assert_allclose(weights, numpys((400, 50)) / 20, rtol=0, atol=1e-8)
    assert abs(weights).max() <= 1 / 20
    assert weights.std() == pytest.approx(1 / 20 / np.sqrt(3), rel=0.02)


def test_fan_in_of_kernels_and_biases():
    """A kernel knows its fan-in; a bias is told it; a wrong one is refused."""
    conv = convert_to_numpy(FanInUniform("conv/kernel")((3, 3, 11, 5)))
    assert 0.98 / np.sqrt(99) < abs(conv).max() <= 1 / np.sqrt(99)
    bias = convert_to_numpy(FanInUniform("conv/bias", fan_in=9)((1000,)))
    assert 0.33 < abs(bias).max() <= 1 / 3
    with pytest.raises(ValueError, match="`fan_in` must be at least 1"):
        FanInUniform("x", fan_in=0)


@pytest.mark.parametrize(
    ("kind", "options"), [(FanInUniform, {"fan_in": 7}), (GlorotUniform, {}), (HeUniform, {})]
)
def test_initializer_is_serializable(kind, options):
    """Its configuration gives an equal initializer, which draws equal weights."""
    initializer = kind("fc/kernel", seed=3, **options)
    again = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    assert_array_equal(convert_to_numpy(again((4, 5))), convert_to_numpy(initializer((4, 5))))


def mix(x):
    """The hash in NumPy's unsigned integers."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def test_hash_is_the_unsigned_one():
    """The hash in signed integers is the published one in unsigned integers."""
    x = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32)
    ours = convert_to_numpy(_mix(ops.convert_to_tensor(x.view(np.int32))))
    assert_array_equal(ours.view(np.uint32), mix(x))


def reference_mask(layer, step, count):
    key = generator(layer.seed, f"{layer.name}/mask").integers(2**31)
    key, step = (np.array([value], np.uint32) for value in (key, step))
    bits = mix(np.arange(count, dtype=np.uint32) ^ mix(key ^ mix(step))) & np.uint32(2**24 - 1)
    return bits >= round(layer.rate * 2**24)


@pytest.mark.parametrize(
    ("kind", "shape", "mask_shape"),
    [(SpatialDropout2D, (6, 3, 2, 64), (6, 1, 1, 64)), (Dropout, (6, 7, 64), (6, 7, 64))],
)
def test_mask_is_the_references_bit_for_bit(kind, shape, mask_shape):
    """Channels or elements are dropped or scaled, step by step, as NumPy's hash says."""
    layer = kind(0.25, seed=5, name="dropout1")
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    for step in range(3):
        y = convert_to_numpy(layer(x, training=True))
        kept = reference_mask(layer, step, np.prod(mask_shape)).reshape(mask_shape)
        assert_allclose(y, x * kept / 0.75, rtol=1e-6)


def test_no_dropout_outside_training():
    """At inference, or at rate 0, the input passes, and no step is counted."""
    layer = SpatialDropout2D(0.5)
    x = np.ones((2, 3, 3, 8), np.float32)
    assert_array_equal(convert_to_numpy(layer(x)), x)
    assert_array_equal(convert_to_numpy(SpatialDropout2D(0.0)(x, training=True)), x)
    assert convert_to_numpy(layer.seed_generator.state)[1] == 0


def masks(seed=0, name="dropout", steps=64, rate=0.25):
    """Return keep masks of shape (steps, images, channels)."""
    layer = SpatialDropout2D(rate, seed=seed, name=name)
    x = np.ones((100, 1, 1, 64), np.float32)
    outputs = [convert_to_numpy(layer(x, training=True)) for _ in range(steps)]
    return np.stack(outputs)[:, :, 0, 0] > 0


def test_rate_holds_per_channel_per_step_and_in_all():
    """The share dropped is within five binomial deviations for every channel, step and in all."""
    kept = masks()
    for axes in ((0, 1), (1, 2), (0, 2), (0, 1, 2)):
        share = kept.mean(axes)
        deviation = np.sqrt(0.25 * 0.75 / (kept.size / share.size))
        assert np.all(abs(share - 0.75) < 5 * deviation)


def test_neighbors_are_not_correlated():
    """Masks of neighboring steps, images, channels, seeds and layers are independent."""
    kept = masks().astype(float) - 0.75
    pairs = {
        "steps": (kept[1:], kept[:-1]),
        "images": (kept[:, 1:], kept[:, :-1]),
        "channels": (kept[..., 1:], kept[..., :-1]),
        "seeds": (kept, masks(seed=1) - 0.75),
        "layers": (kept, masks(name="dropout_1") - 0.75),
    }
    for name, (a, b) in pairs.items():
        correlation = (a * b).mean() / (0.25 * 0.75)
        assert abs(correlation) < 5 / np.sqrt(a.size), name


def test_state_is_saved(tmp_path):
    """A saved model goes on with the mask that would have come next."""
    model = keras.Sequential([keras.Input((1, 1, 64)), SpatialDropout2D(0.5, 3, name="d")])
    x = np.ones((4, 1, 1, 64), np.float32)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    y, expected = (convert_to_numpy(one(x, training=True)) for one in (loaded, model))
    assert_array_equal(y, expected)
    assert model.count_params() == 0


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("kind", "shape"), [(SpatialDropout2D, (2, 2, 8)), (Dropout, (8,))])
def test_fit_counts_steps(kind, shape, jit_compile):
    """Each step takes the next mask, compiled or not, whatever the number of images in it."""
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("compiling takes PyTorch a minute")
    layer = kind(0.5, name="d")
    dense = [keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input(shape), layer, *dense])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    x = np.ones((7, *shape), np.float32)
    model.fit(x, np.zeros((7, 1), np.float32), batch_size=3, epochs=2, verbose=0)
    assert convert_to_numpy(layer.seed_generator.state)[1] == 6


def test_mixed_precision_and_gradient():
    """The mask is of the input's type, and the gradient passes through what is kept."""
    layer = SpatialDropout2D(0.5, name="d", dtype="float16")
    y = layer(np.ones((2, 2, 2, 8), np.float16), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert set(np.unique(convert_to_numpy(y))) == {0.0, 2.0}


@pytest.mark.parametrize("rate", [-0.1, 1.1, 2, float("nan")])
def test_bad_rate(rate):
    """A rate outside [0, 1] is refused."""
    with pytest.raises(ValueError, match=r"`rate` must be in \[0, 1\]"):
        SpatialDropout2D(rate)


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 1e38, -0.0])
@pytest.mark.parametrize("rate", [0.5, 1])
@pytest.mark.parametrize("name", ["Dropout", "SpatialDropout2D"])
def test_any_number_is_dropped(name, rate, number):
    """Dropped elements are 0 and kept ones scaled, whatever they are, as in Keras's layer."""
    x = np.full((4, 2, 2, 16), number, np.float32)
    ours, theirs = (
        getattr(mnist_keras, name)(rate, seed=1),
        getattr(keras.layers, name)(rate, seed=1),
    )
    found, right = (convert_to_numpy(layer(x, training=True)) for layer in (ours, theirs))
    for y in found, right:
        assert y.shape == x.shape
        assert np.any(y == 0)
        assert number == 0 or np.all(y == 0) == (rate == 1)
        kept = y[y != 0]
        assert_array_equal(kept, np.full(kept.shape, number, np.float32) * np.float32(2))


def network(*dropout):
    """Return a small network with this dropout before its last layer."""
    first, last = keras.layers.Conv2D(4, 1), keras.layers.Conv2D(2, 1)
    return keras.Sequential([keras.Input((2, 2, 3)), first, *dropout, last])


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("name", ["Dropout", "SpatialDropout2D", None])
def test_weights_fit_networks_with_kerass_dropout_or_none(name, suffix, tmp_path):
    """Files of weights go both ways; only ours know the step, and they keep it."""
    ours = network(getattr(mnist_keras, name or "Dropout")(0.5, name="mine"))
    theirs = network(*([getattr(keras.layers, name)(0.5)] if name else []))
    ours(np.ones((1, 2, 2, 3), np.float32), training=True)
    for source, target in ((theirs, ours), (ours, theirs)):
        path = tmp_path / f"{source.name}{suffix}"
        source.save(path) if suffix == ".keras" else source.save_weights(path)
        target.set_weights([0 * weights for weights in target.get_weights()])
        target.load_weights(path)
        assert len(source.get_weights()) == 4
        for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
            assert_array_equal(a, b)
        source.set_weights([1 + weights for weights in source.get_weights()])
    again = network(getattr(mnist_keras, name or "Dropout")(0.5, name="mine"))
    again.load_weights(path)
    state = [convert_to_numpy(one.layers[1].seed_generator.state) for one in (again, ours)]
    assert_array_equal(*state)
    assert state[0][1] == 1


@pytest.mark.parametrize("kind", [GlorotUniform, HeUniform])
@pytest.mark.parametrize("shape", [(300, 40), (3, 3, 20, 50), (5000,), (5, 40, 30)])
def test_glorot_and_he_have_kerass_limits(kind, shape):
    """The range is that of Keras's initializer of the same name; the numbers are NumPy's."""
    weights = convert_to_numpy(kind("fc/kernel", seed=3)(shape))
    keras_own = getattr(keras.initializers, kind.__name__)(seed=0)
    limit = abs(convert_to_numpy(keras_own(shape))).max()
    assert abs(weights).max() == pytest.approx(limit, rel=2e-3)
    assert_allclose(weights / abs(weights).max(), numpys(shape), atol=2e-3)


def test_noise_shape():
    """Where the mask has size 1 it is the same all along; None stands for the inputs' size."""
    layer = Dropout(0.5, noise_shape=(None, 1, 8), name="d")
    y = convert_to_numpy(layer(np.ones((40, 5, 8), np.float32), training=True))
    assert (y == y[:, :1]).all()
    assert 0.3 < (y[:, 0] > 0).mean() < 0.7
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert_array_equal(convert_to_numpy(again(np.ones((40, 5, 8), np.float32), training=True)), y)
