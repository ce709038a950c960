"""Adam (Kingma and Ba, ICLR 2015) on numpy arrays, upwards: it maximises."""

from __future__ import annotations

import math

import numpy as np

from spinenas.controller.policy.choice_sequence import Floats

DECAY_MEAN, DECAY_SQUARE, EPSILON = 0.9, 0.999, 1e-8
"""The paper's."""


class Adam:
    """Moves parameters, in place, along gradients of what shall grow."""

    def __init__(self, parameters: dict[str, Floats], *, learning_rate: float) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._means = {name: np.zeros_like(values) for name, values in parameters.items()}
        self._squares = {name: np.zeros_like(values) for name, values in parameters.items()}
        self._num_steps = 0

    def step(self, gradient: dict[str, Floats]) -> None:
        """Take one step."""
        self._num_steps += 1
        correction = math.sqrt(1 - DECAY_SQUARE**self._num_steps)
        rate = self._learning_rate * correction / (1 - DECAY_MEAN**self._num_steps)
        for name, slope in gradient.items():
            mean, square = self._means[name], self._squares[name]
            mean += (1 - DECAY_MEAN) * (slope - mean)
            square += (1 - DECAY_SQUARE) * (slope * slope - square)
            self._parameters[name] += rate * mean / (np.sqrt(square) + EPSILON * correction)
