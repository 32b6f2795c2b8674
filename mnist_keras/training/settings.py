"""Settings: all that decides a run except its data, its seed and the machine."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, model_validator

from mnist_keras._foundations.fields import Fields, sentence, unknown

Network = Literal["basic_net", "cnn", "small_cnn"]
NoNetwork = Literal["nearest_neighbor", "svm", "hog_svm"]
Pretraining = Literal["simclr", "vicreg"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]


def _small(value: int, about: ValidationInfo) -> int:
    if value > 10**6:  # TOML writes numbers of thousands of digits, which nothing can count
        raise ValueError(f"`{about.field_name}` must be at most 1,000,000")
    return value


Count = Annotated[int, Field(ge=1), AfterValidator(_small)]
CountOrZero = Annotated[int, Field(ge=0), AfterValidator(_small)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ExperimentError(ValueError):
    """An experiment is unknown, or its file or settings are wrong."""


def check_word(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse an unknown word, and point to the nearest known one."""
    known = list(known)
    if value not in known:
        raise ExperimentError(unknown(name, value, known))


class ExperimentFields(Fields):
    """A part of an experiment: wrong fields raise an `ExperimentError`."""

    if not TYPE_CHECKING:  # for type checkers, the arguments are the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ExperimentError(sentence(error, type(self))) from None


class Settings(ExperimentFields):
    """All that decides a run except the data, the seed and the machine.

    Fields that are left out get their defaults, so that equal runs have equal settings.

    Raises:
        ExperimentError: If a value is unknown, out of range, of the wrong type, or does not go
            with the others.
    """

    model: Literal[Network, NoNetwork] = "cnn"
    """The model. "basic_net" and "cnn" are the original's, "small_cnn" is a small modern network.
    Others have no network and take only augmentation, copies and the split: "nearest_neighbor" and
    "svm" on pixels, "hog_svm" on histograms of oriented gradients of the deskewed image."""
    width: Count | None = None
    """Number of channels of the first convolution of small_cnn. The default is 16."""
    activation: Activation | None = None
    """Activation of the hidden layers. The default is relu, but sigmoid for basic_net."""
    loss: Literal["crossentropy", "focal"] = "focal"
    """Loss that the training minimizes."""
    gamma: Number | None = None
    """Focusing parameter of the focal loss. The default is 2."""
    alpha: Number | None = None
    """Balancing factor of the focal loss. The default is 1."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label that is spread evenly over all classes."""
    optimizer: Literal["adam", "radam", "sgd"] = "adam"
    """Optimizer that updates the weights."""
    learning_rate: Number = 0.001
    """Learning rate; with one_cycle, the highest one."""
    schedule: Literal["constant", "one_cycle"] = "constant"
    """How the learning rate changes. With one_cycle it rises over the first tenth of the epochs,
    then falls to 0 along a cosine."""
    weight_decay: Number = 0.0
    """Share of each kernel that a step at learning rate 1 removes."""
    epochs: Count = 10
    """Number of passes over the training images."""
    batch_size: Count = 100
    """Number of images in a batch."""
    augmentation: Literal["none", "shifts", "affine", "elastic"] = "none"
    """How the views of the training images are warped."""
    copies: CountOrZero = 0
    """Number of warped copies of each training image that an SVM also learns from."""
    members: Count = 1
    """Number of networks whose probabilities are averaged. More than one needs one_cycle."""
    views: CountOrZero = 0
    """Number of views that are averaged with each scored image. They are warped half as far as in
    training. Views need one_cycle."""
    pretraining: Literal["none", Pretraining] = "none"
    """Method that first learns from the training and the unlabeled images, without labels.
    Pretraining needs one_cycle."""
    pretraining_epochs: CountOrZero = 0
    """Number of passes of pretraining over its images."""
    frozen: bool = False
    """Whether the pretrained features stay as they are and only a linear layer is fitted."""
    self_training: Literal["none", "transductive", "inductive"] = "none"
    """Whether students learn from the members' answers on unlabeled images. A transductive student
    is scored on the images that it learned from. Two inductive students are each scored on the
    half that they never saw. Students need one_cycle."""
    self_training_epochs: CountOrZero = 0
    """Number of passes of a student over its images."""
    self_training_rounds: Count = 1
    """Number of times that the unlabeled images get soft labels: first from the members, then from
    their students. Each member has a student, but in the last round only the first has one."""
    validation_split: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the images that is in the test set."""
    stratify: bool = True
    """Whether the test set has the same share of each class."""

    # Settings that count without a network.
    _WITHOUT_NETWORK: ClassVar = ("model", "augmentation", "copies", "validation_split", "stratify")

    @model_validator(mode="wrap")
    @classmethod
    def _settle(cls, given: Any, check: Callable[[Any], Self]) -> Self:
        """Check the fields, then set the defaults that depend on other fields."""
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
        """Yield whether each rule between the fields holds, and the rule in a sentence."""
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
        for word in ("pretraining", "self_training"):
            used, epochs = getattr(self, word) != "none", getattr(self, f"{word}_epochs")
            yield used == (epochs > 0), f"`{word}` and `{word}_epochs` need each other"
        several = self.self_training_rounds > 1
        yield self_trained or not several, "`self_training_rounds` needs `self_training`"
        yield pretrained or not self.frozen, "`frozen` needs a pretraining"
        yield not self.frozen or self.members == 1, "`frozen` needs members = 1"
        yield (
            self.schedule == "one_cycle" or not stages,
            "`members`, `views`, `pretraining` and `self_training` need schedule = 'one_cycle'",
        )

    def replace(self, **changes: Any) -> Self:
        """Return the settings with some changes; defaults that depend on them change, too."""
        values = dict(self)
        if changes.get("model", self.model) != self.model:
            values |= {"activation": None, "width": None}
        if changes.get("loss", self.loss) != self.loss:
            values |= {"gamma": None, "alpha": None}
        return type(self)(**(values | changes))

    @property
    def all_epochs(self) -> int:
        """Number of epochs of all stages together."""
        supervised = 0 if self.frozen else self.members * self.epochs
        return self.pretraining_epochs + supervised + self.students * self.self_training_epochs

    @property
    def students(self) -> int:
        """Number of students: in the last round, one for each set of unlabeled images."""
        sets = {"none": 0, "transductive": 1, "inductive": 2}[self.self_training]
        return sets * (self.members * (self.self_training_rounds - 1) + 1)

    @property
    def has_network(self) -> bool:
        """Whether the model is a network."""
        return self.model in get_args(Network)

    @property
    def is_one_stage(self) -> bool:
        """Whether the only stage is the training of one network with labels."""
        return self.has_network and self.members == 1 and not self.uses_unlabeled

    @property
    def is_one_network(self) -> bool:
        """Whether a single network gives the last answers."""
        if self.self_training == "none":
            return self.has_network and self.members == 1
        return self.self_training == "transductive"

    @property
    def uses_unlabeled(self) -> bool:
        """Whether the run learns from unlabeled images."""
        return self.pretraining != "none" or self.self_training != "none"
