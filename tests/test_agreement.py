"""The same seed is the same run on every installed backend."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mnist_keras import backends

EXPERIMENT = """
title = "Agreement"
[settings]
epochs = 3
[[arms]]
name = "Basic Net"
model = "basic_net"
loss = "crossentropy"
[[arms]]
name = "My CNN"
[[arms]]
name = "RAdam"
model = "basic_net"
optimizer = "radam"
[[arms]]
name = "SGD"
model = "basic_net"
optimizer = "sgd"
"""


@pytest.mark.slow
@pytest.mark.skipif(len(backends.installed()) < 2, reason="needs two backends")
def test_losses_and_predictions_agree(tmp_path):
    """Losses differ by rounding, and nearly all held-out images get the same class."""
    (tmp_path / "agreement.toml").write_text(EXPERIMENT)
    tables = {}
    for backend in backends.installed():
        output = tmp_path / backend
        subprocess.run(
            [
                *(sys.executable, "-m", "mnist_keras", "run", tmp_path / "agreement.toml"),
                *("--source", "digits", "--seeds", "1", "--backend", backend),
                *("--output", output),
            ],
            check=True,
            capture_output=True,
            env=os.environ,
        )
        document = json.loads((output / "tables.json").read_text())
        tables[backend] = document["experiments"][0]["arms"]

    first, *others = tables.values()
    for arms in others:
        for ours, theirs in zip(first, arms, strict=True):
            differences = np.abs(np.subtract(ours["loss"][0], theirs["loss"][0]))
            assert differences[0] <= 1e-5, ours["name"]
            assert differences.max() <= 1e-3, ours["name"]
            assert ours["heldout"]["mean"] == pytest.approx(theirs["heldout"]["mean"], abs=0.005)
