"""Ours against the original's program in plain PyTorch: equal weights, logits, losses and steps."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose

from mnist_keras import Adam, FocalLoss, RAdam, basic_net, cnn
from mnist_keras.datasets import sources
from mnist_keras.datasets.splits import draw
from mnist_keras.models.prediction import log_softmax
from mnist_keras.models.torch_weights import load_torch_state, torch_state

pytestmark = pytest.mark.several_backends  # ours on any of them, the original's on PyTorch


@pytest.fixture
def digits(floatx):
    """Forty digits as the original reads them: values in [0, 1], three channels."""
    images = draw(sources.load("digits", channels=3), 4, seed=0)[0]
    order = np.random.default_rng(0).permutation(40)
    return (images.images[order].astype(np.float64) / 255).astype(floatx), images.labels[order]


@pytest.fixture(params=["float32", "float64"])
def floatx(request, torch):
    """The float type both sides compute in."""
    if request.param == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless the whole process asks for it")
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def torch(original_program):
    return original_program.torch


@pytest.fixture(params=["basic_net", "cnn"])
def pair(request, original_program, floatx, torch):
    """The same network twice, with the weights of ours: ours, and the original's."""
    networks = {"basic_net": (basic_net, original_program.Net), "cnn": (cnn, original_program.CNN)}
    ours, theirs = (build() for build in networks[request.param])
    theirs.to(getattr(torch, floatx))
    theirs.load_state_dict({k: torch.tensor(v) for k, v in torch_state(ours).items()})
    return ours, theirs.eval()


def log_probabilities(ours, theirs, x):
    """Return what our network and the original's make of images."""
    output = theirs(channels_first(theirs, x)).detach().numpy()
    return log_softmax(convert_to_numpy(ours(x))), output


def channels_first(network, x):
    """Return images as tensors that the original's network takes."""
    return network.fc1.weight.new_tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def test_equal_logits_and_losses(pair, digits, original_program, torch):
    """Log-softmax of our logits is the original's output; both losses are equal."""
    ours, theirs = pair
    x, y = digits
    assert_allclose(*log_probabilities(*pair, x), rtol=0, atol=1e-5)
    for loss, originals in (
        (FocalLoss, original_program.FocalLoss()),
        (keras.losses.SparseCategoricalCrossentropy, torch.nn.CrossEntropyLoss()),
    ):
        expected = originals(theirs(channels_first(theirs, x)), torch.tensor(y)).item()
        found = convert_to_numpy(loss(from_logits=True)(y, ours(x)))
        assert found == pytest.approx(expected, abs=1e-5)


def test_the_originals_weights(pair, digits, floatx, torch):
    """Weights that the original drew give our model the original's output."""
    ours, theirs = pair
    torch.manual_seed(1)
    theirs = type(theirs)().to(getattr(torch, floatx)).eval()
    load_torch_state(ours, theirs.state_dict())
    assert_allclose(*log_probabilities(ours, theirs, digits[0]), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "floatx", "optimizer"),
    [
        *(("basic_net", "float32", optimizer) for optimizer in ("Adam", "SGD", "RAdam")),
        *(("cnn", "float32", optimizer) for optimizer in ("SGD", "RAdam")),
        ("cnn", "float64", "Adam"),
    ],
    indirect=["pair", "floatx"],
)
def test_ten_equal_steps(pair, digits, floatx, optimizer, torch):
    """Without dropout, ten steps of each optimizer give the original's logits.

    In float32 Adam's division by √v̂ makes rounding of the CNN's vanishing gradients visible: two
    float32 programs drift apart by about 0.02 in ten steps. There the test is in float64.
    """
    ours, theirs = pair
    x, y = digits
    for layer in ours.layers:
        if layer.name.startswith("dropout"):
            layer.rate = 0
    keras_optimizer = {"Adam": Adam, "SGD": keras.optimizers.SGD, "RAdam": RAdam}[optimizer]
    epsilon = {} if optimizer == "SGD" else {"epsilon": 1e-8}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours.compile(keras_optimizer(0.001, **epsilon), loss)
    torch_optimizer = getattr(torch.optim, optimizer)(theirs.parameters(), lr=0.001)
    criterion = torch.nn.CrossEntropyLoss()
    for step in range(10):
        part = slice(step % 2 * 20, step % 2 * 20 + 20)
        torch_optimizer.zero_grad()
        criterion(theirs(channels_first(theirs, x[part])), torch.tensor(y[part])).backward()
        torch_optimizer.step()
        ours.train_on_batch(x[part], y[part])
    atol = {"float32": 1e-4, "float64": 1e-5}[floatx]
    assert_allclose(*log_probabilities(*pair, x), rtol=0, atol=atol)
