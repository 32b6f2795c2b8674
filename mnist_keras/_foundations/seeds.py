"""One NumPy generator for each (seed, purpose).

These are all purposes in use; a test compares the list with the code:

    "draw"                     images of each class (datasets.splits)
    "split"                    training and test images (datasets.splits)
    "order of epoch {epoch}"   order of the batches (datasets.batches)
    "warps"                    key of the hash that warps images (datasets.augmentation)
    "{path}"                   initial weights, e.g. "fc1/kernel" (portable)
    "{path}/{step}"            initial weights of a `keras.random.SeedGenerator` (portable)
    "{name}/mask"              key of the hash that drops elements (portable)
    "{kind} {number}"          seed of a further member or student (training.stages)
    "halves"                   halves of the unlabeled images (training.stages)
    "erasure"                  regions to erase (explanations.erasure)
    "checked maps"             images whose maps are checked (inference.portrait)
    "embedded images"          images in a t-SNE map (inference.portrait)
    "exported images"          images to compare an exported model on (inference.export)
    "sign flips"               assignments of signs (statistics)

Only scikit-learn and Keras's order of files draw their own numbers, from the same seeds. Where
Keras lets a seed be `None`, it is a number from Python's or NumPy's generator, as in Keras.
"""

import hashlib

import numpy as np


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the generator of `seed` for one purpose.

    Two purposes never share a stream. Drawing more numbers for one of them (more images, another
    layer) leaves every other number of the run as it was.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"`seed` must be an integer >= 0. Received: seed={seed!r}")
    key = hashlib.sha256(purpose.encode()).digest()[:8]
    return np.random.default_rng([int(seed), int.from_bytes(key, "big")])
