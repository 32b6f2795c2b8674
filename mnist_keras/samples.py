"""A few images of each class: whether the labels are right, only a look can tell."""

import base64

import numpy as np

from mnist_keras.images import LabeledImages, png

# Of each of so many classes, so many images, no larger than so many pixels a side.
_CLASSES, _IMAGES, _SIDE = 20, 8, 64


def class_samples(images: LabeledImages) -> dict[str, str]:
    """Return, by class, its first images in the order of their contents, side by side.

    Returns:
        PNG files in base64, of 20 classes at most.
    """
    ordered = images.canonical_order
    samples = {}
    for label, name in list(enumerate(images.class_names))[:_CLASSES]:
        chosen = ordered[images.labels[ordered] == label][:_IMAGES]
        if not len(chosen):
            continue
        few = np.rint(images.images[chosen]).astype(np.uint8)
        step = -(-max(few.shape[1:3]) // _SIDE)
        strip = np.concatenate(few[:, ::step, ::step], axis=1)
        samples[name] = base64.b64encode(png(strip)).decode("ascii")
    return samples
