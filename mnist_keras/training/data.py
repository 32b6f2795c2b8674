"""The images of one seed."""

from dataclasses import dataclass

import numpy as np

from mnist_keras._foundations.hashing import fingerprint
from mnist_keras.datasets.images import LabeledImages
from mnist_keras.datasets.splits import sides, split_indices
from mnist_keras.training.settings import Settings


@dataclass(frozen=True)
class Data:
    """The images of one seed: what is trained and tested on, and what never was drawn for it.

    Attributes:
        images: The original's 500, to be split by the seed.
        heldout: Images of the same classes that are in no training or test set; may be empty.
        test: Content hashes of the images to test on; by default the run's seed draws them.
        unlabeled: Images to learn from without labels. Defaults to the held-out ones.
    """

    images: LabeledImages
    heldout: LabeledImages
    test: np.ndarray | None = None
    unlabeled: LabeledImages | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of all parts, and of the split if it is given."""
        parts = [self.images.fingerprint, self.heldout.fingerprint]
        parts += [] if self.test is None else [fingerprint(np.sort(self.test))]
        parts += [] if self.unlabeled is None else [self.unlabeled.fingerprint]
        return "-".join(parts)

    @property
    def pool(self) -> LabeledImages:
        """The images to learn from without labels."""
        return self.heldout if self.unlabeled is None else self.unlabeled

    def split(self, settings: Settings, seed: int) -> tuple[LabeledImages, LabeledImages]:
        """Return the images to train on and those to test on.

        Both are sorted by content, so that batches do not depend on the files' names and order.
        """
        images = self.images.canonical()
        training, test = (
            split_indices(images, settings.validation_split, seed, settings.stratify)
            if self.test is None
            else sides(images, self.test)
        )
        return images.take(training), images.take(test)
