"""Adam and RAdam as the original's program had them, as Keras optimizers."""

import math
from typing import Any

import keras
from keras import ops

from mnist_keras._foundations.typing import Tensor


@keras.saving.register_keras_serializable(package="mnist_keras")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with the epsilon where the paper and PyTorch have it.

        θ ← θ − lr · m̂ / (√v̂ + ε),   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)

    Keras adds `epsilon` to √v instead of √v̂ (the paper's ε̂), which makes it up to
    1/√(1 − β₂) = 32 times larger in the first steps. Measured on the original's CNN after ten steps
    from equal weights, the logits differ from PyTorch's by up to 0.7 with Keras's Adam. With this
    class and `epsilon=1e-8` they differ by 0.02, which is float noise.

    Everything else is as documented there: every argument, its default (`epsilon=1e-7`; the paper
    and PyTorch have `1e-8`) and the variables, so that states saved by the one load into the other.

    Reference:
        - [Kingma & Ba, 2014](https://arxiv.org/abs/1412.6980), algorithm 1.
        - [Reddi et al., 2018](https://openreview.net/forum?id=ryQu7f-RZ), for `amsgrad`: v is its
          largest value so far.
    """

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """Update `variable` and the moments of its gradient."""
        m, v = self._update_moments(gradient, variable)
        # With scalars gathered, so that there is one division of whole tensors:
        # m̂ / (√v̂ + ε) = m · (√c₂ / c₁) / (√v + ε √c₂),  c₁ = 1 − β₁ᵗ,  c₂ = 1 − β₂ᵗ
        _, c1, c2 = self._bias_corrections(m.dtype)
        root_c2 = ops.sqrt(c2)
        step = ops.cast(learning_rate, m.dtype) * root_c2 / c1
        change = m * step / (ops.sqrt(v) + self.epsilon * root_c2)
        self.assign_sub(variable, ops.cast(change, variable.dtype))

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """Add a variable shaped like a weight; moments are in float32 if that has 16 bits.

        The square of a gradient of 1e-4 is 0 in float16.
        """
        dtype = reference_variable.dtype
        is_wide = keras.backend.result_type(dtype, "float32") == dtype
        if is_wide or name not in ("momentum", "velocity", "velocity_hat"):
            return super().add_variable_from_reference(reference_variable, name, initializer)
        name = f"{reference_variable.path.replace('/', '_')}_{name}"
        return self.add_variable(reference_variable.shape, initializer, "float32", name=name)

    def _update_moments(self, gradient: Tensor, variable: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decaying means m of the gradient and v of its square, after this step."""
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        # TensorFlow's gradients of embeddings know Keras's operations, but no operators.
        gradient = ops.cast(gradient, m.dtype)
        self.assign_add(m, ops.multiply(ops.subtract(gradient, m), 1 - self.beta_1))
        self.assign_add(v, ops.multiply(ops.subtract(ops.square(gradient), v), 1 - self.beta_2))
        if not self.amsgrad:
            return m, v
        self.assign(self._velocity_hats[index], ops.maximum(self._velocity_hats[index], v))
        return m, self._velocity_hats[index]

    def _bias_corrections(self, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return t, 1 − β₁ᵗ and 1 − β₂ᵗ of the coming step."""
        t = ops.cast(self.iterations + 1, dtype)
        return t, _one_minus_power(self.beta_1, t), _one_minus_power(self.beta_2, t)


def _one_minus_power(beta: float, t: Tensor) -> Tensor:
    # Through expm1: in float32 the plain difference loses four digits at t = 1, β = 0.999.
    return -ops.expm1(t * math.log(beta)) if beta else ops.ones_like(t)


@keras.saving.register_keras_serializable(package="mnist_keras")
class RAdam(Adam):
    """Rectified Adam, which Keras does not have.

    It scales Adam's step by r, the rectification of the adaptive learning rate's variance. While
    that variance is not yet tractable, its step does not adapt. With the default `beta_2` these
    are the first five steps (ρ ≤ 5):

        θ ← θ − lr · r · m̂ / (√v̂ + ε)    if ρ > 5,    θ ← θ − lr · m̂    otherwise

        ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ),    ρ∞ = 2 / (1 − β₂) − 1
        r² = (ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ)

    The threshold 5 is that of the authors' program and of PyTorch; the paper's text has 4. As in
    PyTorch, ε is added to √v.

    Arguments and their defaults are those of `Adam`.

    Reference:
        [Liu et al., 2019](https://arxiv.org/abs/1908.03265), algorithm 2.
    """

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """Update `variable` and the moments of its gradient."""
        m, v = self._update_moments(gradient, variable)
        t, c1, c2 = self._bias_corrections(m.dtype)
        step = ops.cast(learning_rate, m.dtype) / c1
        rho_inf = 2 / (1 - self.beta_2) - 1
        if rho_inf <= 5:  # and ρ is less: no step adapts
            self.assign_sub(variable, ops.cast(m * step, variable.dtype))
            return
        log_beta = math.log(self.beta_2)
        x = t * log_beta
        # ρ is a small difference of large numbers in the first steps: float32 would lose four of
        # its digits, and the backends their agreement. There it is the series of the difference.
        series = (rho_inf + 2 / log_beta) + t * (1 + x / 6 - x**3 / 360)
        rho = ops.where(x > -0.25, series, rho_inf - 2 * t * (1 - c2) / c2)
        tractable = rho > 5
        safe = ops.where(tractable, rho, 6.0)  # keeps the root real in the branch not taken
        top = (safe - 4) * (safe - 2) * rho_inf
        bottom = (rho_inf - 4) * (rho_inf - 2) * safe
        rectified = ops.sqrt(top / bottom * c2) / (ops.sqrt(v) + self.epsilon)
        direction = m * ops.where(tractable, rectified, 1.0)
        self.assign_sub(variable, ops.cast(direction * step, variable.dtype))
