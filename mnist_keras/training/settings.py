"""Settings: everything that decides a training but its data, its seed and the machine."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from mnist_keras._foundations.fields import Fields, sentence, unknown

Network = Literal["basic_net", "cnn", "small_cnn"]
NoNetwork = Literal["nearest_neighbor", "svm", "hog_svm"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Pretraining = Literal["simclr", "vicreg"]

NETWORKS: tuple[Network, ...] = get_args(Network)

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ExperimentError(ValueError):
    """An experiment that is unknown, or whose file or settings are wrong."""


def check_word(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse a word that is not known, and point to the nearest one that is."""
    known = list(known)
    if value not in known:
        raise ExperimentError(unknown(name, value, known))


class ExperimentFields(Fields):
    """A part of an experiment: what is wrong with its fields is an `ExperimentError`."""

    if not TYPE_CHECKING:  # for type checkers, the arguments are the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ExperimentError(sentence(error, type(self))) from None


class Settings(ExperimentFields):
    """What decides a training, apart from the data, the seed and the machine.

    Fields left out are written out, so that equal trainings have equal settings.

    Raises:
        ExperimentError: If a value is unknown, out of range, of the wrong type, or means nothing
            beside the others.
    """

    model: Literal[Network, NoNetwork] = "cnn"
    """The network: the original's "basic_net" and "cnn", or "small_cnn". Without a network:
    "nearest_neighbor" or "svm" on pixels, "hog_svm" on histograms of oriented gradients of the
    deskewed image; of their settings only augmentation, copies and the split count."""
    width: Count | None = None
    """Channels of the first convolution of small_cnn, 16 by default."""
    activation: Activation | None = None
    """Activation of the hidden layers, sigmoid for basic_net and relu for the others by default."""
    loss: Literal["crossentropy", "focal"] = "focal"
    """The loss that is trained with."""
    gamma: Number | None = None
    """Focusing parameter of the focal loss, 2 by default."""
    alpha: Number | None = None
    """Balancing factor of the focal loss, 1 by default."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label that is given to all classes alike."""
    optimizer: Literal["adam", "radam", "sgd"] = "adam"
    """The optimizer."""
    learning_rate: Number = 0.001
    """The constant learning rate, or the highest one of the cycle."""
    schedule: Literal["constant", "one_cycle"] = "constant"
    """How the learning rate changes. one_cycle rises over the first tenth of the epochs and falls
    to 0 along a cosine."""
    weight_decay: Number = 0.0
    """Share of each kernel that a step at learning rate 1 would take away."""
    epochs: Count = 10
    """How often the training images are seen."""
    batch_size: Count = 100
    """Images in one step."""
    augmentation: Literal["none", "shifts", "affine", "elastic"] = "none"
    """How the views of the training images are warped."""
    copies: CountOrNone = 0
    """Warped copies of each training image that an SVM is trained on as well."""
    members: Count = 1
    """Networks whose probabilities are averaged. Needs one_cycle."""
    views: CountOrNone = 0
    """Views that are averaged with each image scored, warped half as far as in training. Needs
    one_cycle."""
    pretraining: Literal["none", Pretraining] = "none"
    """Method that learns from the training and the unlabeled images without labels. Needs
    one_cycle."""
    pretraining_epochs: CountOrNone = 0
    """How often pretraining sees the images."""
    frozen: bool = False
    """Whether the pretrained features stay as they are, and only a linear layer is fitted."""
    self_training: Literal["none", "transductive", "inductive"] = "none"
    """Whether students learn what the members say of unlabeled images. A transductive student is
    scored on the images that it learned from; of two inductive ones, each is scored on the half
    that it never saw. Needs one_cycle."""
    self_training_epochs: CountOrNone = 0
    """How often a student sees its images."""
    self_training_rounds: Count = 1
    """How often the images are labeled: first by the members, then by their students. Each member
    has one, but in the last round only the first."""
    validation_split: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the images that is the test set."""
    stratify: bool = True
    """Whether the test set takes that share of each class."""

    # What decides something without a network.
    _WITHOUT_NETWORK: ClassVar = ("model", "augmentation", "copies", "validation_split", "stratify")

    @model_validator(mode="wrap")
    @classmethod
    def _settle(cls, given: Any, check: Callable[[Any], Self]) -> Self:
        """Check the fields, then write out the defaults that depend on other fields."""
        s = check(given)
        said = s.model_dump(exclude_unset=True)
        if s.has_network:
            s = check(said | {k: v for k, v in s._defaults() if getattr(s, k) is None})
        else:
            own = {name: said[name] for name in cls._WITHOUT_NETWORK if name in said}
            s = check(own | {"epochs": 1})
        for holds, rule in s._rules():
            if not holds:
                raise ValueError(rule)
        return s

    def _defaults(self) -> Iterable[tuple[str, Any]]:
        """Yield the defaults that depend on other fields."""
        yield "activation", "sigmoid" if self.model == "basic_net" else "relu"
        if self.loss == "focal":
            yield from (("gamma", 2.0), ("alpha", 1.0))
        if self.model == "small_cnn":
            yield "width", 16

    def _rules(self) -> Iterable[tuple[bool, str]]:
        """Yield what has to hold between the fields, each in a sentence."""
        small = self.model == "small_cnn"
        pretrained, self_trained = self.pretraining != "none", self.self_training != "none"
        stages = pretrained or self_trained or self.members > 1 or self.views > 0
        if not self.has_network:
            yield (
                bool(self.copies) == (self.augmentation != "none"),
                "`copies` and `augmentation` need each other",
            )
            yield not self.copies or self.model != "nearest_neighbor", "`copies` are for SVMs"
            return
        yield (
            self.loss == "focal" or (self.gamma is None and self.alpha is None),
            "`gamma` and `alpha` belong to loss = 'focal'",
        )
        yield small or self.width is None, "`width` belongs to model = 'small_cnn'"
        yield not self.copies, "`copies` belong to an SVM; networks see a view each epoch"
        yield not self.views or self.augmentation != "none", "`views` need an augmentation"
        yield small or not pretrained, "`pretraining` needs model = 'small_cnn'"
        for word, used, epochs in (
            ("pretraining", pretrained, self.pretraining_epochs),
            ("self_training", self_trained, self.self_training_epochs),
        ):
            yield used == (epochs > 0), f"`{word}` and `{word}_epochs` need each other"
        yield (
            self_trained or self.self_training_rounds == 1,
            "`self_training_rounds` needs `self_training`",
        )
        yield pretrained or not self.frozen, "`frozen` needs a pretraining"
        yield not self.frozen or self.members == 1, "`frozen` needs members = 1"
        yield (
            self.schedule == "one_cycle" or not stages,
            "`members`, `views`, `pretraining` and `self_training` need schedule = 'one_cycle'",
        )

    def replace(self, **changes: Any) -> Self:
        """Return the settings with some changed, and with them the defaults that depend on them."""
        values = dict(self)
        if changes.get("model", self.model) != self.model:
            values |= {"activation": None, "width": None}
        if changes.get("loss", self.loss) != self.loss:
            values |= {"gamma": None, "alpha": None}
        return type(self)(**(values | changes))

    @property
    def all_epochs(self) -> int:
        """Epochs of all stages of the run, one after the other."""
        supervised = 0 if self.frozen else self.members * self.epochs
        return self.pretraining_epochs + supervised + self.students * self.self_training_epochs

    @property
    def students(self) -> int:
        """Networks that learn from unlabeled images: in the last round one for each set of them."""
        sets = {"none": 0, "transductive": 1, "inductive": 2}[self.self_training]
        return sets * (self.members * (self.self_training_rounds - 1) + 1)

    @property
    def has_network(self) -> bool:
        """Whether a network is trained at all."""
        return self.model in NETWORKS

    @property
    def is_one_stage(self) -> bool:
        """Whether one network is trained once, with labels."""
        return self.has_network and self.members == 1 and not self.uses_unlabeled

    @property
    def is_one_network(self) -> bool:
        """Whether a single network answers in the end."""
        if self.self_training == "none":
            return self.has_network and self.members == 1
        return self.self_training == "transductive"

    @property
    def uses_unlabeled(self) -> bool:
        """Whether the run learns from unlabeled images."""
        return self.pretraining != "none" or self.self_training != "none"
