"""The type that Keras has no name for."""

from typing import Any

# Keras and its backends ship no types: this is a tensor of any of them, or a Keras variable.
Tensor = Any
