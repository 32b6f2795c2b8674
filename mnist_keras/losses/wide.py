"""What our losses have in common: 16 bits are too few for a loss."""

from typing import Any

import keras


class WideLoss(keras.losses.Loss):
    """A loss that computes in float32, or in float64 if asked to, and is saved with its dtype."""

    def __init__(self, name: str, reduction: str | None, dtype: Any):
        policy = keras.dtype_policies.get(dtype or keras.config.floatx())
        compute_dtype = "float64" if policy.compute_dtype == "float64" else "float32"
        super().__init__(name=name, reduction=reduction, dtype=compute_dtype)
        self._given_dtype = dtype and policy.name

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self._given_dtype}
