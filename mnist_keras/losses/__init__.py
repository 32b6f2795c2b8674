"""Losses for any Keras model: focal losses, and SimCLR's and VICReg's losses of two views."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
