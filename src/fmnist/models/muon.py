"""The optimizer of the quick presets."""

import math
from typing import Any

import keras
import numpy as np

from fmnist.errors import FmnistError

ops = keras.ops

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that pulls all singular values of a matrix towards 1 (Jordan 2024)."""
NEWTON_SCHULZ_STEPS = 3
ADAM_BETAS = (0.9, 0.95)
TINY = 1e-7


class Muon(keras.optimizers.Optimizer):
    """Orthogonalised momentum on convolution kernels, Adam on everything else.

    A kernel's Nesterov momentum, as a matrix, is replaced by the nearest orthogonal one, so that every direction is
    learned equally fast; the kernel itself is kept at a fixed norm. `keras.optimizers.Muon` leaves kernels of four
    dimensions to Adam. Source: Jordan 2024, "Muon", and its use in the CIFAR-10 speedrun.
    """

    def __init__(self, learning_rate: Any, momentum: float, adam_share: float, **options: Any):
        """Make the optimizer.

        Args:
            learning_rate: for kernels, a number or a schedule.
            momentum: of kernels, 0 to 1.
            adam_share: the rate of the other variables as a share of `learning_rate`.
            options: of `keras.optimizers.Optimizer`.
        """
        super().__init__(learning_rate=learning_rate, **options)
        self.momentum, self.adam_share = momentum, adam_share

    def build(self, variables: list[keras.Variable]) -> None:
        """Make the momenta, and for Adam the mean squares, of the variables."""
        if self.built:
            return
        super().build(variables)
        self.means = [self.add_variable_from_reference(variable, "mean") for variable in variables]
        self.squares = [
            None if _is_kernel(variable) else self.add_variable_from_reference(variable, "square")
            for variable in variables
        ]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Change one variable by its gradient."""
        index = self._get_variable_index(variable)
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        if _is_kernel(variable):
            self._orthogonal_step(gradient, variable, rate, self.means[index])
        else:
            self._adam_step(gradient, variable, rate * self.adam_share, self.means[index], self.squares[index])

    def _orthogonal_step(self, gradient: Any, variable: keras.Variable, rate: Any, mean: keras.Variable) -> None:
        self.assign(mean, mean * self.momentum + gradient)
        update = orthogonalise(gradient + mean * self.momentum)
        norm = math.sqrt(min(variable.shape[-1], math.prod(variable.shape[:-1])))
        rescaled = variable * (norm / (ops.sqrt(ops.sum(ops.square(variable))) + TINY))
        self.assign(variable, rescaled - rate * update)

    def _adam_step(
        self, gradient: Any, variable: keras.Variable, rate: Any, mean: keras.Variable, square: keras.Variable
    ) -> None:
        step = ops.cast(self.iterations + 1, variable.dtype)
        first, second = ADAM_BETAS
        self.assign(mean, mean * first + gradient * (1 - first))
        self.assign(square, square * second + ops.square(gradient) * (1 - second))
        unbiased = mean / (1 - first**step)
        scale = ops.sqrt(square / (1 - second**step)) + TINY
        self.assign(variable, variable - rate * unbiased / scale)


def get_state(optimizer: keras.optimizers.Optimizer) -> dict[str, np.ndarray]:
    """Give the step count, the momenta and whatever else an optimizer keeps, by number and name."""
    return {
        f"{number}/{variable.name}": ops.convert_to_numpy(variable)
        for number, variable in enumerate(optimizer.variables)
    }


def set_state(optimizer: keras.optimizers.Optimizer, state: dict[str, np.ndarray]) -> None:
    """Put back what `get_state` gave of an optimizer built for the same variables.

    Raises:
        FmnistError: if it is of another kind of optimizer or of other variables.
    """
    expected = get_state(optimizer)
    if {name: array.shape for name, array in expected.items()} != {name: array.shape for name, array in state.items()}:
        raise FmnistError(f"the state does not fit the optimizer {optimizer.name}; train again")
    for variable, array in zip(optimizer.variables, (state[name] for name in expected), strict=True):
        variable.assign(array)


def _is_kernel(variable: keras.Variable) -> bool:
    return len(variable.shape) == 4


def orthogonalise(kernel: Any) -> Any:
    """Give a tensor of the same shape whose singular values, as a matrix, are all near 1.

    Args:
        kernel: (height, width, inputs, outputs); the matrix has `outputs` columns.
    """
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    is_tall = matrix.shape[0] >= matrix.shape[1]
    # The products below are then of the smaller size.
    x = matrix if is_tall else ops.transpose(matrix)
    x = x / (ops.sqrt(ops.sum(ops.square(x))) + TINY)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = ops.matmul(ops.transpose(x), x)
        x = a * x + ops.matmul(x, b * gram + c * ops.matmul(gram, gram))
    return ops.reshape(x if is_tall else ops.transpose(x), kernel.shape)
