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

BUILDS = {"basic_net": basic_net, "cnn": cnn}


@pytest.fixture(scope="module")
def digits():
    """Forty digits as the original reads them: values in [0, 1], three channels."""
    images = draw(sources.load("digits", channels=3), 4, seed=0)[0]
    order = np.random.default_rng(0).permutation(40)
    return images.images[order].astype(np.float64) / 255, images.labels[order]


@pytest.fixture(params=["float32", "float64"])
def floatx(request):
    """The float type both sides compute in."""
    if request.param == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 unless the whole process asks for it")
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(params=["basic_net", "cnn"])
def pair(request, original_program, floatx):
    """The same network twice, with the weights of ours: ours, and the original's."""
    import torch

    ours = BUILDS[request.param]()
    theirs = {"basic_net": original_program.Net, "cnn": original_program.CNN}[request.param]()
    theirs.to(getattr(torch, floatx))
    theirs.load_state_dict({k: torch.tensor(v) for k, v in torch_state(ours).items()})
    return ours, theirs.eval()


def log_probabilities(pair, x, floatx):
    """Return what our network and the original's make of images."""
    import torch

    ours, theirs = pair
    with torch.no_grad():
        output = theirs(torch_images(x, floatx)).numpy()
    return log_softmax(convert_to_numpy(ours(x.astype(floatx)))), output


def torch_images(x, floatx):
    import torch

    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2), floatx))


def test_equal_logits_and_losses(pair, digits, floatx, original_program):
    """Log-softmax of our logits is the original's output; both losses are equal."""
    import torch

    ours, theirs = pair
    x, y = digits
    with torch.no_grad():
        output = theirs(torch_images(x, floatx))
        focal = float(original_program.FocalLoss()(output, torch.tensor(y)))
        cross_entropy = float(torch.nn.functional.cross_entropy(output, torch.tensor(y)))
    logits = ours(x.astype(floatx))

    assert_allclose(*log_probabilities(pair, x, floatx), rtol=0, atol=1e-5)
    for loss, expected in (
        (FocalLoss(from_logits=True), focal),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), cross_entropy),
    ):
        assert convert_to_numpy(loss(y, logits)) == pytest.approx(expected, abs=1e-5)


def test_the_originals_weights(pair, digits, floatx):
    """Weights that the original drew give our model the original's output."""
    import torch

    ours, theirs = pair
    torch.manual_seed(1)
    theirs = type(theirs)().to(getattr(torch, floatx)).eval()
    load_torch_state(ours, theirs.state_dict())
    assert_allclose(*log_probabilities((ours, theirs), digits[0], floatx), rtol=0, atol=1e-5)


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
def test_ten_equal_steps(pair, digits, floatx, optimizer):
    """Without dropout, ten steps of each optimizer give the original's logits.

    In float32 Adam's division by √v̂ makes rounding of the CNN's vanishing gradients visible: two
    float32 programs drift apart by about 0.02 in ten steps. There the test is in float64.
    """
    import torch

    ours, theirs = pair
    x, y = digits
    for layer in ours.layers:
        if layer.name.startswith("dropout"):
            layer.rate = 0
    keras_optimizer = {"Adam": Adam, "SGD": keras.optimizers.SGD, "RAdam": RAdam}[optimizer]
    ours.compile(
        keras_optimizer(0.001), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    torch_optimizer = getattr(torch.optim, optimizer)(theirs.parameters(), lr=0.001)
    criterion = torch.nn.CrossEntropyLoss()

    for step in range(10):
        part = slice(step % 2 * 20, step % 2 * 20 + 20)
        torch_optimizer.zero_grad()
        criterion(theirs(torch_images(x[part], floatx)), torch.tensor(y[part])).backward()
        torch_optimizer.step()
        ours.train_on_batch(x[part].astype(floatx), y[part])

    atol = {"float32": 1e-4, "float64": 1e-5}[floatx]
    assert_allclose(*log_probabilities(pair, x, floatx), rtol=0, atol=atol)
