"""Draw docs/focal_loss.png: loss and gradient against the margin, FocalLoss and Keras's own.

Run `KERAS_BACKEND=jax python docs/focal_loss.py`; any backend gives the same picture.
"""

from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from mnist_keras import FocalLoss
from mnist_keras._foundations.pictures import COLORS

MARGINS = np.linspace(-30, 30, 1201, dtype="float32")
GAMMAS = (0.0, 0.5, 2.0)


def loss_and_gradient(loss, margins):
    """Return the loss of logits (margin, 0), true class 0, and its derivative by the margin."""
    logits = np.stack([margins, np.zeros_like(margins)], axis=-1)
    labels = np.tile(np.float32([1, 0]), (len(margins), 1))
    if keras.backend.backend() == "jax":
        import jax

        values = loss(labels, logits)
        gradient = jax.grad(lambda z: loss(labels, z).sum())(logits)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        logits = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = loss(labels, logits)
        gradient = tape.gradient(values, logits)
    else:
        import torch

        logits = torch.tensor(logits, requires_grad=True)
        values = loss(labels, logits)
        (gradient,) = torch.autograd.grad(values.sum(), logits)
    return keras.ops.convert_to_numpy(values), keras.ops.convert_to_numpy(gradient)[:, 0]


def main():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for gamma, color in zip(GAMMAS, COLORS, strict=False):
        options = {"gamma": gamma, "alpha": 1.0, "from_logits": True, "reduction": None}
        ours = loss_and_gradient(FocalLoss(**options), MARGINS)
        keras_own = keras.losses.CategoricalFocalCrossentropy(**options)
        theirs = loss_and_gradient(keras_own, MARGINS)
        name = f"gamma = {gamma:g}"
        for axes, solid, dashed in zip((left, right), ours, theirs, strict=True):
            axes.plot(MARGINS, np.abs(solid), color=color, lw=3, alpha=0.5, label=name)
            axes.plot(MARGINS, np.abs(dashed), "--", color=color, lw=1.5, label=f"{name}, Keras")
    left.set(title="loss", ylabel="loss")
    right.set(title="gradient", ylabel="|d loss / d margin|", yscale="log", ylim=(1e-12, 5))
    for axes in (left, right):
        axes.set_xlabel("margin: logit of the true class minus the other")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.suptitle(
        "FocalLoss (solid) and CategoricalFocalCrossentropy of "
        f"Keras {keras.__version__} (dashed), two classes, float32",
        fontsize=10,
    )
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
