"""From an experiment's TOML file to a results folder, verdicts and a report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
