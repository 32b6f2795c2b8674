"""Settings: everything that decides a training but its data, its seed and the machine."""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

# The words of an experiment's file; `networks` and `classical` say what they build.
NETWORKS = {"basic_net": "sigmoid", "cnn": "relu", "small_cnn": "relu"}  # and their activations
NO_NETWORKS = ("nearest_neighbor", "svm", "hog_svm")
MODELS = (*NETWORKS, *NO_NETWORKS)
LOSSES = ("crossentropy", "focal")
OPTIMIZERS = ("adam", "radam", "sgd")
SCHEDULES = ("constant", "one_cycle")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid")
AUGMENTATIONS = ("none", "shifts", "affine", "elastic")
PRETRAININGS = ("none", "simclr", "vicreg")
SELF_TRAININGS = ("none", "transductive", "inductive")


class ExperimentError(ValueError):
    """An experiment that is unknown, or whose file or settings are wrong."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides a training, apart from the data, the seed and the machine.

    Arguments left out are written out, so that equal trainings have equal settings.

    Attributes:
        model: A network, `"basic_net"`, `"cnn"` or `"small_cnn"`; or none,
            `"nearest_neighbor"` or `"svm"` on pixels, `"hog_svm"` on histograms of oriented
            gradients of the deskewed image. Of these, only `augmentation`, `copies` and the split
            are settings.
        width: Channels of the first convolution of `small_cnn`, 16 by default.
        activation: Of the hidden layers. Defaults to the model's own.
        loss: `"crossentropy"` or `"focal"`.
        gamma: Focusing parameter of the focal loss, 2 by default; `None` with cross entropy.
        alpha: Scale of the focal loss, 1 by default; `None` with cross entropy.
        label_smoothing: Share of each label that is given to all classes alike.
        optimizer: `"adam"`, `"radam"` or `"sgd"`.
        learning_rate: The constant, or the highest one of the cycle.
        schedule: `"constant"`, or `"one_cycle"`: up over the first tenth of the epochs, then
            down to 0 along a cosine. What follows needs a cycle.
        weight_decay: Share of each kernel that a step at learning rate 1 would take away.
        epochs: How often the training images are seen.
        batch_size: Images a step.
        augmentation: How the views of the training images are warped: see `augmentation`.
        copies: Warped copies of each training image that an SVM is trained on besides.
        members: Networks whose probabilities are averaged.
        views: Views warped by half of `augmentation` that are averaged with each image scored.
        pretraining: `"none"`, `"simclr"` or `"vicreg"`, on the training and the held-out images
            without labels.
        pretraining_epochs: How often those are seen.
        frozen: Whether the pretrained features stay as they are, and a linear layer is fitted.
        self_training: `"none"`, `"transductive"`: a student learns what the members say of the
            held-out images, which it is scored on; or `"inductive"`: two students learn of one
            half each, and each is scored on the other half.
        self_training_epochs: How often a student sees its images.
        self_training_rounds: How often the images are labeled: first by the members, then by
            their students. Each member has one, but in the last round only the first.
        validation_split: Share of the images that is the test set.
        stratify: Whether the test set takes that share of each class.

    Raises:
        ExperimentError: If a value is unknown, out of range, of the wrong type, or means nothing
            beside the others.
    """

    model: str = "cnn"
    width: int | None = None
    activation: str | None = None
    loss: str = "focal"
    gamma: float | None = None
    alpha: float | None = None
    label_smoothing: float = 0.0
    optimizer: str = "adam"
    learning_rate: float = 0.001
    schedule: str = "constant"
    weight_decay: float = 0.0
    epochs: int = 10
    batch_size: int = 100
    augmentation: str = "none"
    copies: int = 0
    members: int = 1
    views: int = 0
    pretraining: str = "none"
    pretraining_epochs: int = 0
    frozen: bool = False
    self_training: str = "none"
    self_training_epochs: int = 0
    self_training_rounds: int = 1
    validation_split: float = 0.2
    stratify: bool = True

    def __post_init__(self) -> None:
        self._check_each()
        if self.model in NO_NETWORKS:
            self._settle_no_network()
        else:
            self._settle_network()

    def _check_each(self) -> None:
        for name, known in (
            ("model", MODELS),
            ("loss", LOSSES),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("augmentation", AUGMENTATIONS),
            ("pretraining", PRETRAININGS),
            ("self_training", SELF_TRAININGS),
        ):
            check_word(name, getattr(self, name), known)
        for name in ("gamma", "alpha", "learning_rate", "weight_decay"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_number(name, value))
        for name, least in (("validation_split", 1e-9), ("label_smoothing", 0)):
            value = check_number(name, getattr(self, name))
            if not least <= value < 1:
                raise ExperimentError(
                    f"`{name}` must be between 0 and 1. Received: {name}={value!r}"
                )
            object.__setattr__(self, name, value)
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("members", 1),
            ("copies", 0),
            ("views", 0),
            ("pretraining_epochs", 0),
            ("self_training_epochs", 0),
            ("self_training_rounds", 1),
            *([] if self.width is None else [("width", 1)]),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ExperimentError(
                    f"`{name}` must be an integer >= {least}. Received: {name}={value!r}"
                )
        for name in ("stratify", "frozen"):
            if type(value := getattr(self, name)) is not bool:
                raise ExperimentError(f"`{name}` must be a bool. Received: {name}={value!r}")

    def _settle_no_network(self) -> None:
        """Take the settings of networks back to their defaults: they decide nothing."""
        own = ("model", "augmentation", "copies", "validation_split", "stratify")
        for field in fields(self):
            if field.name not in own:
                object.__setattr__(self, field.name, field.default)
        object.__setattr__(self, "epochs", 1)
        self._need(bool(self.copies) == (self.augmentation != "none"),
                   "`copies` and `augmentation` need each other")  # fmt: skip
        self._need(not self.copies or self.model != "nearest_neighbor", "`copies` are for SVMs")

    def _settle_network(self) -> None:
        self._default("activation", NETWORKS[self.model])
        check_word("activation", self.activation, ACTIVATIONS)
        if self.loss == "focal":
            self._default("gamma", 2.0)
            self._default("alpha", 1.0)
        else:
            self._need(self.gamma is None and self.alpha is None,
                       "`gamma` and `alpha` belong to loss = 'focal'")  # fmt: skip
        small = self.model == "small_cnn"
        if small:
            self._default("width", 16)
        self._need(small or self.width is None, "`width` belongs to model = 'small_cnn'")
        self._need(not self.copies, "`copies` belong to an SVM; networks see a view each epoch")
        self._need(not self.views or self.augmentation != "none", "`views` need an augmentation")
        pretrained, self_trained = self.pretraining != "none", self.self_training != "none"
        self._need(small or not pretrained, "`pretraining` needs model = 'small_cnn'")
        for word in ("pretraining", "self_training"):
            self._need((getattr(self, word) != "none") == (getattr(self, f"{word}_epochs") > 0),
                       f"`{word}` and `{word}_epochs` need each other")  # fmt: skip
        self._need(self_trained or self.self_training_rounds == 1,
                   "`self_training_rounds` needs `self_training`")  # fmt: skip
        self._need(pretrained or not self.frozen, "`frozen` needs a pretraining")
        self._need(not self.frozen or self.members == 1, "`frozen` needs members = 1")
        stages = pretrained or self_trained or self.members > 1 or self.views > 0
        self._need(self.schedule == "one_cycle" or not stages,
                   "`members`, `views`, `pretraining` and `self_training` need "
                   "schedule = 'one_cycle'")  # fmt: skip

    def _default(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    @staticmethod
    def _need(condition: bool, sentence: str) -> None:
        if not condition:
            raise ExperimentError(sentence)

    @property
    def all_epochs(self) -> int:
        """Epochs of all trainings of the arm, one after the other."""
        supervised = 0 if self.frozen else self.members * self.epochs
        return self.pretraining_epochs + supervised + self.students * self.self_training_epochs

    @property
    def students(self) -> int:
        """Networks that learn from pools: in each round one a member, in the last round one."""
        pools = {"none": 0, "transductive": 1, "inductive": 2}[self.self_training]
        return pools * (self.members * (self.self_training_rounds - 1) + 1)

    @property
    def is_one_training(self) -> bool:
        """Whether the arm is one network trained once, with labels."""
        network = self.model not in NO_NETWORKS
        return network and self.members == 1 and not self.uses_heldout

    @property
    def uses_heldout(self) -> bool:
        """Whether held-out images are learned from, without their labels."""
        return self.pretraining != "none" or self.self_training != "none"


def check_word(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse a word that is not known, and point to the nearest one that is."""
    known = list(known)
    if value in known:
        return
    near = difflib.get_close_matches(str(value), known, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}"
    raise ExperimentError(f"unknown {name} {value!r}. {hint}")


def check_number(name: str, value: Any) -> float:
    """Return a finite number >= 0 as a float, or refuse it."""
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ExperimentError(f"`{name}` must be a number >= 0. Received: {name}={value!r}")
    return float(value)
