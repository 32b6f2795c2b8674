"""Runs: one arm at one seed, with everything that decides its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mnist_keras._foundations.hashing import fingerprint_of_json
from mnist_keras.training.settings import Settings

# Measured on two cores with 400 images; a large epoch has 9,900 unlabeled ones. Only the plan and
# the time left use these.
_SECONDS_PER_EPOCH = {"basic_net": 0.05, "cnn": 0.85, "small_cnn": 0.25}
_SECONDS_PER_LARGE_EPOCH = 7
_SECONDS_WITHOUT_NETWORK = 5
_UNSAID = ("model", "activation", "loss", "optimizer", "epochs", "stratify", "frozen")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm at one seed: all that decides its numbers except the data and the versions.

    Attributes:
        settings: What is trained.
        seed: Decides draw, split, initial weights, batch order and dropout.
        scored_at: Epochs after which the test and held-out images are classified, ascending.
    """

    settings: Settings
    seed: int
    scored_at: tuple[int, ...] = field(compare=False)

    @classmethod
    def whole(cls, settings: Settings, seed: int) -> "Run":
        """Return the run of these settings that is scored only at its end."""
        return cls(settings=settings, seed=seed, scored_at=(settings.all_epochs,))

    @property
    def title(self) -> str:
        """The run in a few words, with the settings that are not the defaults."""
        s = self.settings
        words: list[object] = [s.model]
        if s.has_network:
            words += [s.activation, s.loss, s.optimizer, f"{s.epochs} epochs"]
        usual = dict(Settings(model=s.model, loss=s.loss))
        for name, value in s:
            if name not in _UNSAID and value != usual[name]:
                words.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
        words += ["frozen"] * s.frozen + ["not stratified"] * (not s.stratify)
        return f"{' '.join(map(str, words))} seed {self.seed}"

    @property
    def expected_seconds(self) -> float:
        """How many seconds the run takes on two cores."""
        s = self.settings
        if not s.has_network:
            return _SECONDS_WITHOUT_NETWORK
        labeled = 0 if s.frozen else s.members * s.epochs
        others = s.all_epochs - labeled
        seconds = labeled * _SECONDS_PER_EPOCH[s.model] + others * _SECONDS_PER_LARGE_EPOCH
        return float(seconds * ((s.width or 16) / 16) ** 1.5)

    def covers(self, settings: Settings) -> bool:
        """Whether a run of `settings` is this one, or the first epochs of it."""
        own = self.settings
        if own.schedule == "constant":
            own = own.replace(epochs=min(own.epochs, settings.epochs))
        return own == settings

    def fingerprint(self, data_fingerprint: str, versions: Mapping[str, str]) -> str:
        """Return a hash of everything that decides the run's numbers: the name of its record."""
        decides = {"settings": self.settings.model_dump(), "seed": self.seed}
        decides |= {"data": data_fingerprint, "versions": dict(versions)}
        return fingerprint_of_json(decides)
