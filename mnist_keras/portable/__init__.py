"""Initializers and dropout under Keras's names, whose numbers are equal on every backend."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
