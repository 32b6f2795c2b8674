"""Runs: the trainings that arms ask for, and a plan that trains each once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace

from mnist_keras.training.settings import NO_NETWORKS, Settings

_UNSAID = ("model", "activation", "loss", "optimizer", "epochs", "stratify", "frozen")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: everything that decides its numbers but the data and the versions.

    Attributes:
        settings: What is trained.
        seed: Decides draw, split, initial weights, batch order and dropout.
        scored_at: Epochs after which the test and held-out images are classified, ascending.
    """

    settings: Settings
    seed: int
    scored_at: tuple[int, ...] = field(compare=False)

    @property
    def title(self) -> str:
        """The run in a few words, with the settings that are not the original's."""
        s = self.settings
        words: list[object] = [s.model]
        if s.model not in NO_NETWORKS:
            words += [s.activation, s.loss, s.optimizer, f"{s.epochs} epochs"]
        usual = Settings(model=s.model, loss=s.loss)
        for name in (f.name for f in fields(s) if f.name not in _UNSAID):
            value = getattr(s, name)
            if value != getattr(usual, name):
                words.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
        words += ["frozen"] * s.frozen + ["not stratified"] * (not s.stratify)
        return f"{' '.join(map(str, words))} seed {self.seed}"

    def covers(self, settings: Settings) -> bool:
        """Whether a training of `settings` is this one, or the first epochs of it."""
        if self.settings.schedule != "constant":
            return self.settings == settings
        epochs = settings.epochs
        same = replace(self.settings, epochs=epochs) == settings
        return same and epochs <= self.settings.epochs


def fingerprint(run: Run, data: str, versions: Mapping[str, str]) -> str:
    """Return the name of a run: a hash of everything that decides its numbers."""
    decides = {
        "settings": asdict(run.settings),
        "seed": run.seed,
        "data": data,
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
