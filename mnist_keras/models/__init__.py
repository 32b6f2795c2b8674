"""The original's two models, a small CNN and its encoder, PyTorch weights, and prediction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
