"""Features, their map and their score."""

import numpy as np
import pytest
from keras.ops import convert_to_numpy
from numpy.testing import assert_allclose, assert_array_equal

from mnist_keras.explanations.embeddings import features, nearest_neighbor_score, tsne


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
