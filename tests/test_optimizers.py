"""Adam and RAdam against their recurrences, PyTorch and Keras, and as citizens of Keras."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal

from mnist_keras import Adam, RAdam

GRADIENTS = np.random.default_rng(0).normal(0, [[1.0], [1e-3], [1e-7]], (12, 3, 4))


def moments(gradients, beta_1, beta_2):
    """Yield each step, the corrected mean of the gradients, and the mean of their squares."""
    m = v = 0
    for t, g in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        yield t, m / (1 - beta_1**t), v


def adam(theta, gradients, lr=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Algorithm 1 of Kingma & Ba, in float64."""
    for t, m_hat, v in moments(gradients, beta_1, beta_2):
        theta = theta - lr * m_hat / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
    return theta


def radam(theta, gradients, lr=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Algorithm 2 of Liu et al. with the threshold of their program, in float64."""
    rho_inf = 2 / (1 - beta_2) - 1
    for t, m_hat, v in moments(gradients, beta_1, beta_2):
        rho = rho_inf - 2 * t * beta_2**t / (1 - beta_2**t)
        step = lr * m_hat
        if rho > 5:
            top, bottom = (rho - 4) * (rho - 2) * rho_inf, (rho_inf - 4) * (rho_inf - 2) * rho
            step *= np.sqrt(top / bottom) * np.sqrt(1 - beta_2**t) / (np.sqrt(v) + epsilon)
        theta = theta - step
    return theta


def run(optimizer, gradients, start):
    variable = keras.Variable(start, dtype="float32")
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [variable])
    return convert_to_numpy(variable)


@pytest.mark.parametrize(("optimizer", "recurrence"), [(Adam, adam), (RAdam, radam)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-4},
        {"beta_1": 0.0},
        {"beta_2": 0.0, "epsilon": 1e-4},
        {"beta_1": 0, "beta_2": 0, "epsilon": 1e-4},
        {"beta_2": 0.6},
    ],
)
@pytest.mark.parametrize("steps", [1, 5, 6, 12])
def test_equal_to_the_published_recurrence(optimizer, recurrence, settings, steps):
    """Gradients from 1 down to 1e-7 move the weights as the recurrence in float64 says."""
    start = np.zeros((3, 4))
    ours = run(optimizer(0.01, **settings), GRADIENTS[:steps], start)
    expected = recurrence(start, GRADIENTS[:steps], lr=0.01, **settings)
    # Of one square alone, the root has the rounding of the mean as it changes its sign.
    assert_allclose(ours, expected, rtol=3e-6, atol=1e-5 if settings.get("beta_2") == 0 else 1e-9)


def test_epsilon_is_where_the_paper_has_it():
    """On tiny gradients Keras's Adam steps a quarter as far as the paper's in the first step."""
    gradient = np.full((1, 1, 1), 1e-7)
    ours = run(Adam(0.001, epsilon=1e-8), gradient, np.zeros((1, 1)))
    theirs = run(keras.optimizers.Adam(0.001, epsilon=1e-8), gradient, np.zeros((1, 1)))
    assert ours[0, 0] == pytest.approx(-0.001 / 1.1, rel=1e-4)
    assert theirs[0, 0] == pytest.approx(-0.001 / (1 + 0.1 / np.sqrt(0.001)), rel=1e-3)


@pytest.mark.parametrize("optimizer", [Adam, RAdam])
def test_what_keras_optimizers_inherit(optimizer):
    """Weight decay, clipping, EMA and gradient accumulation work as in any Keras optimizer."""
    start = np.ones((1, 1))
    decayed = run(optimizer(0.1, weight_decay=0.5), np.zeros((1, 1, 1)), start)
    assert decayed[0, 0] == pytest.approx(0.95)

    clipped = run(optimizer(0.1, clipvalue=1e-3), np.full((6, 1, 1), 5.0), start)
    small = run(optimizer(0.1), np.full((6, 1, 1), 1e-3), start)
    assert_allclose(clipped, small, rtol=1e-6)

    averaging = optimizer(0.1, use_ema=True, ema_momentum=0.5)
    variable = keras.Variable(start, dtype="float32")
    for _ in range(2):
        averaging.apply([ops.ones((1, 1))], [variable])
    moved = float(convert_to_numpy(variable)[0, 0])
    averaging.finalize_variable_values([variable])
    assert moved < float(convert_to_numpy(variable)[0, 0]) < 1

    accumulated = run(optimizer(0.1, gradient_accumulation_steps=2), np.ones((2, 1, 1)), start)
    once = run(optimizer(0.1), np.ones((1, 1, 1)), start)
    assert_allclose(accumulated, once, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("optimizer", "recurrence"), [(Adam, adam), (RAdam, radam)])
def test_16_bit_weights(optimizer, recurrence, dtype):
    """Weights of 16 bits go where those of float32 go, also by gradients that are 0 or tiny."""
    gradients = np.tile([[[0.0, 1e-5, -1e-3, 0.5]]], (7, 1, 1))
    variable = keras.Variable(np.zeros((1, 4)), dtype=dtype)
    made = optimizer(0.01, amsgrad=True, use_ema=True)
    made.build([variable])
    for gradient in gradients:
        made.apply([ops.convert_to_tensor(gradient, dtype)], [variable])
    assert keras.backend.standardize_dtype(variable.dtype) == dtype
    expected = recurrence(np.zeros((1, 4)), gradients, lr=0.01)
    found = convert_to_numpy(ops.cast(variable.value, "float32"))
    assert_allclose(found, expected, rtol=0.03)
    made.finalize_variable_values([variable])
    assert np.isfinite(convert_to_numpy(ops.cast(variable.value, "float32"))).all()


KERAS_OPTIONS = {
    "amsgrad": True,
    "learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5),
    "weight_decay": 0.3,
    "clipnorm": 0.5,
    "clipvalue": 0.1,
    "global_clipnorm": 0.5,
    "use_ema": True,
    "ema_momentum": 0.5,
    "ema_overwrite_frequency": 2,
    "loss_scale_factor": 4.0,
    "gradient_accumulation_steps": 3,
}


@pytest.mark.parametrize("option", KERAS_OPTIONS)
def test_options_do_what_they_do_in_kerass_adam(option):
    """With an epsilon of next to nothing Adam is Keras's, and so is every option of it."""
    # With a beta_2 near 1, v would only grow, and be its own maximum.
    options = {"learning_rate": 0.1, "beta_2": 0.5, "epsilon": 1e-30}
    options["use_ema"] = option.startswith("ema")
    options[option] = KERAS_OPTIONS[option]
    weights = []
    for kind in Adam, keras.optimizers.Adam:
        made = kind(**options)
        kernel, bias = (
            keras.Variable(np.ones(3, "float32"), name=name) for name in ("kernel", "bias")
        )
        made.exclude_from_weight_decay(var_names=["bias"])
        for gradient in GRADIENTS[:6, 0, :3].reshape(6, 3):
            pair = [ops.convert_to_tensor(scale * gradient, "float32") for scale in (1, 3)]
            made.apply(pair, [kernel, bias])
        made.finalize_variable_values([kernel, bias])
        weights.append(np.stack([convert_to_numpy(kernel), convert_to_numpy(bias)]))
    assert_allclose(*weights, rtol=2e-5)


@pytest.mark.parametrize("optimizer", [Adam, RAdam])
def test_embeddings_learn(optimizer):
    """Gradients of a few rows, which TensorFlow keeps sparse, move as dense ones do."""
    model = keras.Sequential([keras.layers.Embedding(5, 2), keras.layers.Flatten()])
    model.compile(optimizer(0.1), "mse")
    tokens = np.array([[0, 1], [1, 3]])
    before = convert_to_numpy(model(tokens))
    table = convert_to_numpy(model.weights[0])
    model.fit(tokens, before + 1, epochs=2, verbose=0)
    moved = convert_to_numpy(model.weights[0]) - table
    assert np.all(moved[[0, 1, 3]] > 0.01)
    assert np.all(moved[[2, 4]] == 0)


@pytest.mark.parametrize("optimizer", [Adam, RAdam])
def test_serializable(optimizer, tmp_path):
    """The configuration gives an equal optimizer; a saved model goes on with its moments."""
    made = optimizer(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-5, weight_decay=0.1, name="mine")
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert type(again) is optimizer
    assert again.get_config() == made.get_config()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(optimizer(0.01), "mse")
    x, y = np.ones((8, 4), np.float32), np.zeros((8, 2), np.float32)
    model.fit(x, y, epochs=7, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        one.fit(x, y, epochs=2, verbose=0)
    assert_array_equal(convert_to_numpy(model.weights[0]), convert_to_numpy(loaded.weights[0]))


@pytest.mark.several_backends
@pytest.mark.parametrize(
    ("optimizer", "name", "option"),
    [
        (Adam, "AdamW", {"amsgrad": False}),
        (Adam, "AdamW", {"amsgrad": True}),
        (RAdam, "RAdam", {"decoupled_weight_decay": True}),
    ],
)
def test_300_steps_of_pytorch(optimizer, name, option):
    """With PyTorch's epsilon and decay, the weights are where its optimizer brings them."""
    torch = pytest.importorskip("torch")
    gradients = np.random.default_rng(1).normal(0, [[1.0], [1e-4]], (300, 2, 3))
    gradients *= np.linspace(2, 0.01, 300)[:, None, None]  # so that the largest v stays behind
    parameter = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, name)([parameter], 0.01, weight_decay=0.1, **option)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        theirs.step()
    amsgrad = option.get("amsgrad", False)
    made = optimizer(0.01, epsilon=1e-8, amsgrad=amsgrad, weight_decay=0.1)
    expected = parameter.detach().numpy()
    assert_allclose(run(made, gradients, np.ones((2, 3))), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("kinds", [(Adam, keras.optimizers.Adam), (keras.optimizers.Adam, Adam)])
def test_the_state_of_kerass_adam_loads_here_and_back(kinds, amsgrad, tmp_path):
    """Weights, moments and the step go from file to model and from list to list, both ways."""
    source, target, listed = (
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")], name="model")
        for _ in range(3)
    )
    for model, kind in zip((source, target, listed), (*kinds, kinds[1]), strict=True):
        model.compile(kind(0.1, amsgrad=amsgrad, name="adam"), "mse")
        model.optimizer.build(model.trainable_variables)
    source.optimizer.apply([ops.ones((3, 2)), ops.ones(2)])
    source.save(tmp_path / "source.keras")
    target.load_weights(tmp_path / "source.keras")
    listed.set_weights(source.get_weights())
    listed.optimizer.set_weights([convert_to_numpy(v) for v in source.optimizer.variables])
    for model in target, listed:
        pairs = [(source, model), (source.optimizer, model.optimizer)]
        for a, b in (pair for ab in pairs for pair in zip(*(x.variables for x in ab), strict=True)):
            assert a.path == b.path
            assert_array_equal(convert_to_numpy(a), convert_to_numpy(b))
    assert len(target.optimizer.variables) == (8 if amsgrad else 6)
