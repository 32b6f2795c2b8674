"""A model that learns from pairs of views."""

from typing import Any, Self

import keras
from keras import ops

from mnist_keras._foundations.typing import Tensor


@keras.saving.register_keras_serializable(package="mnist_keras")
class SiameseModel(keras.Model):
    """An encoder that learns from pairs of views through a projector and a loss.

    `compile` takes an optimizer alone; `fit` takes batches of shape
    `(n, 2, height, width, channels)`, e.g. `PairedViews`. One definition trains on every backend:
    only `compute_loss` is overridden.

    Args:
        encoder: Model from images to features.
        projector: Model from features to projections; only training needs it.
        objective: Loss of two batches of projections, e.g. `NTXent` or `VICReg`. What the parts
            add, e.g. by regularizers, counts too.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projector: keras.Model,
        objective: keras.losses.Loss,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.projector = projector
        self.objective = objective

    def call(self, pairs: Tensor, training: bool = False) -> Tensor:
        """Return the projections of pairs of views, shape `(n, 2, size)`."""
        images = ops.reshape(pairs, (-1, *pairs.shape[2:]))
        features = self.encoder(images, training=training)
        projections = self.projector(features, training=training)
        return ops.reshape(projections, (-1, 2, projections.shape[-1]))

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Return the objective of both views' projections, and what the parts add."""
        loss = self.objective(y_pred[:, 0], y_pred[:, 1])
        for added in self.losses:
            loss += ops.sum(ops.cast(added, loss.dtype))
        return loss

    def get_config(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("encoder", "projector", "objective")}
        saved = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**super().get_config(), **saved}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        def loaded(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            return keras.saving.deserialize_keras_object(value, custom_objects)

        return cls(**{name: loaded(value) for name, value in config.items()})
