"""Why a Keras model decides as it does: maps, a check of the maps, and embeddings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
