"""What probabilities are worth, compared with scikit-learn and with the definitions."""

import json

import numpy as np
import pytest
from sklearn import metrics

from mnist_keras._foundations.statistics import wilson_interval
from mnist_keras.inference.evaluation import as_document, evaluate

pytestmark = pytest.mark.any_backend

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def answers():
    """Probabilities of 500 images of four classes, mostly right, and the true classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    logits = rng.normal(0, 1.5, (500, 4)) + 2 * np.eye(4)[labels]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels


def test_scores_are_scikit_learns(answers):
    """Accuracy, precision, recall, confusion, likelihood and Brier score are the library's."""
    probabilities, labels = answers
    given = probabilities.argmax(1)
    found = evaluate(probabilities, labels, NAMES)
    assert found.n == 500
    assert found.accuracy == metrics.accuracy_score(labels, given)
    assert found.accuracy_interval == wilson_interval((labels == given).sum(), 500)
    precision, recall, _, counts = metrics.precision_recall_fscore_support(labels, given)
    np.testing.assert_allclose([score.precision for score in found.classes], precision)
    np.testing.assert_allclose([score.recall for score in found.classes], recall)
    assert [score.n for score in found.classes] == counts.tolist()
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, given))
    assert found.negative_log_likelihood == pytest.approx(metrics.log_loss(labels, probabilities))
    right = np.eye(4, dtype=bool)[labels].T
    assert found.brier == pytest.approx(sum(map(metrics.brier_score_loss, right, probabilities.T)))
    for name in ("negative_log_likelihood", "brier"):
        low, high = getattr(found, f"{name}_interval")
        assert low < getattr(found, name) < high
    first = found.classes[0]
    hits = int(found.confusion[0, 0])
    assert first.recall_interval == wilson_interval(hits, int(found.confusion[0].sum()))
    assert first.precision_interval == wilson_interval(hits, int(found.confusion[:, 0].sum()))


def test_calibration_error_is_its_definition(answers):
    """It is the sum over fifteen bins, found here one by one."""
    probabilities, labels = answers
    right = probabilities.argmax(1) == labels
    confidence = probabilities.max(1)
    expected = 0.0
    for number in range(15):
        own = (number / 15 < confidence) & (confidence <= (number + 1) / 15)
        expected += abs(right[own].sum() - confidence[own].sum()) / 500
    found = evaluate(probabilities, labels, NAMES)
    assert found.calibration_error == pytest.approx(expected)
    assert sum(b.n for b in found.bins) == 500
    assert found.overconfidence == pytest.approx(confidence.mean() - right.mean())


@pytest.mark.parametrize(
    ("confidence", "accuracy", "error"), [(0.7, 0.7, 0.0), (0.9, 0.6, 0.3), (0.6, 0.9, 0.3)]
)
def test_known_calibration(confidence, accuracy, error):
    """A calibrated model has no error; over- and underconfidence are the difference."""
    rows = np.tile([confidence, 1 - confidence], (1000, 1))
    labels = (np.arange(1000) >= 1000 * accuracy).astype(int)
    found = evaluate(rows, labels, ("yes", "no"))
    assert found.calibration_error == pytest.approx(error, abs=1e-12)
    assert found.overconfidence == pytest.approx(confidence - accuracy)


def test_a_bins_upper_edge_is_its_own():
    """Bins are open below and closed above, as in the definition."""
    edge = float(np.linspace(0, 1, 16)[10])
    found = evaluate(np.array([[edge, 1 - edge]]), np.array([0]), ("yes", "no"))
    assert [number for number, b in enumerate(found.bins) if b.n] == [9]


def test_edges():
    """A single image, an absent class, a class never given and probability 0 are defined."""
    found = evaluate(np.array([[0.0, 1.0, 0.0]]), np.array([0]), ("a", "b", "c"))
    assert found.accuracy == 0
    assert found.brier == 2
    assert 700 < found.negative_log_likelihood < 720
    assert found.negative_log_likelihood_interval is None
    a, b, c = found.classes
    assert np.isnan([a.precision, b.recall, c.precision, c.recall]).all()
    assert a.precision_interval is b.recall_interval is None
    assert (a.recall, b.precision) == (0, 0)
    assert found.bins[-1].n == 1
    document = as_document(found)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["classes"][0]["precision"] is None
    assert document["confusion"] == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("probabilities", "labels", "said"),
    [
        (np.ones((2, 3)) / 3, np.zeros(2, int), r"shape \(2, 4\)"),
        (np.ones((0, 4)), np.zeros(0, int), "n >= 1"),
        (np.full((1, 4), np.nan), np.zeros(1, int), "are not finite"),
    ],
)
def test_wrong_arguments(probabilities, labels, said):
    """Shapes that do not fit, zero images, and NaN are refused."""
    with pytest.raises(ValueError, match=said):
        evaluate(probabilities, labels, NAMES)
