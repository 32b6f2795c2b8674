"""Initial weights and dropout masks: equal on every backend, bit for bit."""

import random

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, truncnorm

import mnist_keras
from mnist_keras import (
    AlphaDropout,
    Dropout,
    FanInUniform,
    Orthogonal,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
from mnist_keras._foundations.seeds import generator
from mnist_keras.portable.dropout import _mix

SCALED = ["GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal"]


def numpys(shape):
    """The numbers of seed 3 for the weights fc/kernel, uniform in ±1."""
    return generator(3, "fc/kernel").random(shape, dtype=np.float32) * 2 - 1


def test_fan_in_uniform_is_numpys():
    """The weights are NumPy's numbers, uniform in ±1/√fan_in, whatever the backend."""
    weights = convert_to_numpy(FanInUniform(3, path="fc/kernel")((400, 50)))
    assert_allclose(weights, numpys((400, 50)) / 20, rtol=0, atol=1e-8)
    assert abs(weights).max() <= 1 / 20
    assert weights.std() == pytest.approx(1 / 20 / np.sqrt(3), rel=0.02)


def test_fan_in_of_kernels_and_biases():
    """A kernel knows its fan-in; a bias is told it; a wrong one is refused."""
    conv = convert_to_numpy(FanInUniform(0, path="conv/kernel")((3, 3, 11, 5)))
    assert 0.98 / np.sqrt(99) < abs(conv).max() <= 1 / np.sqrt(99)
    bias = convert_to_numpy(FanInUniform(0, path="conv/bias", fan_in=9)((1000,)))
    assert 0.33 < abs(bias).max() <= 1 / 3
    with pytest.raises(ValueError, match="`fan_in` must be at least 1"):
        FanInUniform(fan_in=0)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((300, 40), {}),
        ((3, 3, 20, 50), {}),
        ((5000,), {}),
        ((32, 5, 40), {"input_axes": [0], "output_axes": [1, 2]}),
    ],
)
def test_kerass_distribution_and_numpys_numbers(name, shape, axes):
    """The range and deviation are those of Keras's initializer of the name; numbers are NumPy's."""
    ours, theirs = (
        convert_to_numpy(getattr(module, name)(3, **axes, **path)(shape))
        for module, path in ((mnist_keras, {"path": "fc/kernel"}), (keras.initializers, {}))
    )
    limit = abs(ours).max()
    assert limit == pytest.approx(abs(theirs).max(), rel=3e-3)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.03)
    if name.endswith("Uniform"):
        assert_allclose(ours / limit, numpys(shape), atol=2e-3)
        return
    normal = generator(3, "fc/kernel").standard_normal(shape)
    inside = abs(normal) <= 2
    ratio = ours[inside] / normal[inside]
    assert_allclose(ratio, ratio.mean(), rtol=1e-5)
    assert kstest(ours.ravel() / ratio.mean(), truncnorm(-2, 2).cdf).pvalue > 0.01


@pytest.mark.parametrize("shape", [(6, 6), (3, 8), (8, 3), (3, 3, 4, 50)])
def test_orthogonal_is_the_factor_of_numpys_matrix(shape):
    """Columns, or else rows, are orthonormal times the gain, and R has a positive diagonal."""
    weights = convert_to_numpy(Orthogonal(2.0, 3, path="kernel")(shape)).reshape(-1, shape[-1])
    q = (weights if len(weights) >= shape[-1] else weights.T) / 2
    assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-6)
    r = q.T @ generator(3, "kernel").standard_normal(q.shape)
    assert_allclose(np.tril(r, -1), 0, atol=1e-5)
    assert np.all(np.diag(r) > 0)
    with pytest.raises(ValueError, match="must be at least two-dimensional"):
        Orthogonal()((3,))


@pytest.mark.parametrize("name", [*SCALED, "FanInUniform", "Orthogonal"])
def test_seeds_of_initializers(name):
    """One seed gives one array, a generator one a call, and `None` what Python's `random` says."""
    make = getattr(mnist_keras, name)

    def values(initializer, dtype=None):
        return convert_to_numpy(initializer((4, 5), dtype))

    first = values(make(seed=3))
    assert_array_equal(values(make(seed=3), "float16"), first.astype("float16"))
    for other in {"seed": 4}, {"seed": 3, "path": "fc/kernel"}:
        initializer = make(**other)
        assert np.all(values(initializer) != first)
        again = keras.initializers.deserialize(keras.initializers.serialize(initializer))
        for same in initializer, initializer.clone(), again:
            assert_array_equal(values(same), values(initializer))

    one = make(seed=keras.random.SeedGenerator(3))
    two = one.clone()
    calls = [values(one), values(one)]
    assert np.all(calls[0] != calls[1])
    assert_array_equal([values(two), values(two)], calls)
    random.seed(7)
    unseeded = make()
    expected = make(seed=random.Random(7).randint(1, 10**9))
    assert_array_equal(values(unseeded), values(expected))


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
    ("kind", "data_format", "shape", "mask_shape"),
    [
        (Dropout, None, (6, 7, 64), (6, 7, 64)),
        (SpatialDropout1D, None, (6, 3, 64), (6, 1, 64)),
        (SpatialDropout2D, None, (6, 3, 2, 64), (6, 1, 1, 64)),
        (SpatialDropout2D, "Channels_First", (6, 64, 3, 2), (6, 64, 1, 1)),
        (SpatialDropout3D, "channels_last", (6, 3, 2, 1, 64), (6, 1, 1, 1, 64)),
        (SpatialDropout3D, "channels_first", (6, 64, 3, 2, 2), (6, 64, 1, 1, 1)),
    ],
)
def test_mask_is_the_references_bit_for_bit(kind, data_format, shape, mask_shape):
    """Channels or elements are dropped or scaled, step by step, as NumPy's hash says."""
    layer = kind(0.25, **({"data_format": data_format} if data_format else {}), seed=5, name="d1")
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    for step in range(3):
        y = convert_to_numpy(layer(x, training=True))
        kept = reference_mask(layer, step, np.prod(mask_shape)).reshape(mask_shape)
        assert_allclose(y, x * kept / 0.75, rtol=1e-6)


def test_alpha_dropout():
    """What is dropped becomes SELU's least value; then mean and variance are what they were."""
    x = np.random.default_rng(0).normal(size=(100, 200)).astype("float32")
    layer = AlphaDropout(0.3, seed=1, name="alpha")
    y = convert_to_numpy(layer(x, training=True))
    least = float(ops.selu(-1e3))
    dropped = np.where(reference_mask(layer, 0, x.size).reshape(x.shape), x, least)
    mean, variance = 0.3 * least, 0.7 * (1 + 0.3 * least**2)
    assert_allclose(y, (dropped - mean) / np.sqrt(variance), rtol=1e-5, atol=1e-5)
    assert abs(y.mean()) < 0.02
    assert y.std() == pytest.approx(1, rel=0.02)
    assert np.all(convert_to_numpy(AlphaDropout(1)(x, training=True)) == 0)


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
    model = keras.Sequential([keras.Input((1, 1, 64)), SpatialDropout2D(0.5, seed=3, name="d")])
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


WRONG = [
    *(("Dropout", {"rate": rate}) for rate in (-0.1, 1.1, 2, float("nan"))),
    *(
        ("Dropout", {"rate": 0.5, "noise_shape": shape})
        for shape in ("(1,)", 3, (2, 1.5), (2, -1), (0, None))
    ),
    *(("SpatialDropout3D", {"rate": 0.5, "data_format": name}) for name in ("last", 3)),
]


@pytest.mark.parametrize(("name", "arguments"), WRONG)
def test_wrong_arguments_are_refused_in_kerass_words(name, arguments):
    """What Keras refuses is refused, and the error says what the argument should have been."""
    with pytest.raises(ValueError, match="rgument") as theirs:
        getattr(keras.layers, name)(**arguments)
    with pytest.raises(ValueError, match="rgument") as ours:
        getattr(mnist_keras, name)(**arguments)
    said, right = (str(error.value).partition(". Expected ") for error in (ours, theirs))
    assert said[0].partition("{")[0] == right[0].partition("{")[0]
    assert said[2][:9] == right[2].replace("an iterable of", "a tuple or list of")[:9]


@pytest.mark.parametrize("name", [n for n in mnist_keras.__all__ if n.endswith(("ropout", "D"))])
def test_keras_counts_a_seed_and_no_weights(name):
    """Built when made unless `build` is overridden, with masks, one state and nothing to train."""
    ours, theirs = (getattr(module, name)(0.5) for module in (mnist_keras, keras.layers))
    for count in ("weights", "variables", "trainable_variables", "non_trainable_variables"):
        assert len(getattr(ours, count)) == len(getattr(theirs, count))
    assert ours.built
    assert ours.supports_masking
    own = {"build": lambda self, shape: None}
    assert not type("Own", (type(ours),), own)(0.5).built


def test_without_a_seed_masks_are_those_of_pythons_generator():
    """Unseeded layers differ from each other, and follow `random.seed` as Keras's do."""
    x = np.ones((4, 64), np.float32)

    def unseeded():
        random.seed(7)
        return [convert_to_numpy(Dropout(0.5, name="d")(x, training=True)) for _ in range(2)]

    (first, second), again = unseeded(), unseeded()
    assert np.any(first != second)
    assert_array_equal(again, [first, second])
    seeded = Dropout(0.5, seed=random.Random(7).randint(1, 10**9), name="d")
    assert_array_equal(convert_to_numpy(seeded(x, training=True)), first)


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


@pytest.mark.parametrize(
    ("noise_shape", "same"),
    [
        ((None, 1, 8), [1]),
        ([1, None, 1], [0, 2]),
        ((5, 1), [0, 2]),
        ((1,), [0, 1, 2]),
        ((40, 3, 8), None),
        ((None,), None),
        ((None, 1, 1, 8), None),
    ],
)
def test_noise_shape(noise_shape, same):
    """Along dimensions of size 1, or left out in front, the mask is the same; others must fit."""
    x = np.ones((40, 5, 8), np.float32)
    layer = Dropout(0.5, noise_shape, seed=0, name="d")
    if same is None:  # TensorFlow's and PyTorch's errors are their own
        with pytest.raises(Exception, match=r"Exception encountered when calling Dropout\.call"):
            layer(x, training=True)
        return
    y = convert_to_numpy(layer(x, training=True))
    first = y[tuple(slice(0, 1) if axis in same else slice(None) for axis in range(3))]
    assert_array_equal(y, np.broadcast_to(first, y.shape))
    assert len(same) == 3 or 0.3 < (first > 0).mean() < 0.7
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert_array_equal(convert_to_numpy(again(x, training=True)), y)
