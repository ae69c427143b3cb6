"""The Muon optimizer for convolution kernels."""

import math
from typing import Any

import keras

ops = keras.ops

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of a quintic polynomial that moves all singular values of a matrix towards 1 (Jordan 2024)."""
NEWTON_SCHULZ_STEPS = 3
ADAM_BETAS = (0.9, 0.95)
EPSILON = 1e-7
"""Avoids division by zero."""


@keras.saving.register_keras_serializable("fmnist")
class Muon(keras.optimizers.Optimizer):
    """Muon for convolution kernels, Adam for all other variables.

    Muon orthogonalizes the Nesterov momentum of a kernel as a matrix, so that all directions are learned equally fast.
    Here it also keeps each kernel at a fixed norm. `keras.optimizers.Muon` uses Adam for four-dimensional kernels.
    Source: Jordan 2024, "Muon", and its use in the CIFAR-10 speedrun.
    """

    def __init__(self, learning_rate: Any, momentum: float, adam_lr_ratio: float, **options: Any):
        """Initialize the optimizer.

        Args:
            learning_rate: learning rate of the kernels, a number or a schedule.
            momentum: momentum of the kernels, 0 to 1.
            adam_lr_ratio: learning rate of the other variables divided by `learning_rate`.
            options: arguments of `keras.optimizers.Optimizer`.
        """
        super().__init__(learning_rate=learning_rate, **options)
        self.momentum, self.adam_lr_ratio = momentum, adam_lr_ratio

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "momentum": self.momentum, "adam_lr_ratio": self.adam_lr_ratio}

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the momentum of each variable and, for Adam, its second moment."""
        if self.built:
            return
        super().build(variables)
        self.momentums = [self.add_variable_from_reference(variable, "momentum") for variable in variables]
        self.velocities = [
            None if _is_kernel(variable) else self.add_variable_from_reference(variable, "velocity")
            for variable in variables
        ]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Update one variable by its gradient."""
        index = self._get_variable_index(variable)
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        if _is_kernel(variable):
            self._muon_step(gradient, variable, rate, self.momentums[index])
        else:
            rate = rate * self.adam_lr_ratio
            self._adam_step(gradient, variable, rate, self.momentums[index], self.velocities[index])

    def _muon_step(self, gradient: Any, kernel: keras.Variable, rate: Any, momentum: keras.Variable) -> None:
        self.assign(momentum, momentum * self.momentum + gradient)
        update = orthogonalize(gradient + momentum * self.momentum)
        norm = math.sqrt(min(kernel.shape[-1], math.prod(kernel.shape[:-1])))  # that of an orthogonal matrix
        rescaled = kernel * (norm / (ops.sqrt(ops.sum(ops.square(kernel))) + EPSILON))
        self.assign(kernel, rescaled - rate * update)

    def _adam_step(
        self, gradient: Any, variable: keras.Variable, rate: Any, momentum: keras.Variable, velocity: keras.Variable
    ) -> None:
        step = ops.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = ADAM_BETAS
        self.assign(momentum, momentum * beta_1 + gradient * (1 - beta_1))
        self.assign(velocity, velocity * beta_2 + ops.square(gradient) * (1 - beta_2))
        unbiased = momentum / (1 - beta_1**step)
        scale = ops.sqrt(velocity / (1 - beta_2**step)) + EPSILON
        self.assign(variable, variable - rate * unbiased / scale)


def _is_kernel(variable: keras.Variable) -> bool:
    return len(variable.shape) == 4


def orthogonalize(kernel: Any) -> Any:
    """Move the singular values of a convolution kernel towards 1, by Newton-Schulz iteration.

    Args:
        kernel: (height, width, inputs, outputs), which is taken as a matrix of height * width * inputs rows.

    Returns:
        A tensor of the same shape. The singular values of its matrix are near 1.
    """
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    is_tall = matrix.shape[0] >= matrix.shape[1]
    x = matrix if is_tall else ops.transpose(matrix)  # so that the Gram matrix has the smaller size
    x = x / (ops.sqrt(ops.sum(ops.square(x))) + EPSILON)
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = ops.matmul(ops.transpose(x), x)
        x = a * x + ops.matmul(x, b * gram + c * ops.matmul(gram, gram))
    return ops.reshape(x if is_tall else ops.transpose(x), kernel.shape)
