"""The factorised policy: a logit for each feature of each choice, independent of the other choices.

Source: TuNAS (Bender et al., CVPR 2020). It uses numpy in float64; the gradient takes a few lines.

Shapes: B sequences, K choices, F features and O options of the largest choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spinenas.controller.policy.choice_sequence import ChoiceSequence, Floats, Integers
from spinenas.controller.policy.policy import Squash, draw

DECAY_MEAN, DECAY_SQUARE, EPSILON = 0.9, 0.999, 1e-8
"""Constants of Adam (Kingma and Ba, ICLR 2015)."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Probabilities of given sequences.

    Attributes:
        log_probs: (B,), of whole sequences.
        entropies: (K, B), in nats.
        log_softmax: (K, B, O); 0 for impossible options.
        softmax: (K, B, O).
    """

    log_probs: Floats
    entropies: Floats
    log_softmax: Floats
    softmax: Floats


class FactorisedPolicy:
    """Independent choices, except for the prior; all logits start at 0."""

    def __init__(self, sequence: ChoiceSequence, squash: Squash, *, learning_rate: float) -> None:
        self.sequence = sequence
        self.logits: Floats = np.zeros((sequence.num_choices, sequence.max_features))
        self._squash = squash
        self._learning_rate = learning_rate
        self._num_steps = 0
        self._mean, self._square = np.zeros_like(self.logits), np.zeros_like(self.logits)  # of the gradient, for Adam

    def sample(self, rng: np.random.Generator, num_samples: int) -> tuple[Integers, Floats]:
        sequence = self.sequence
        uniforms = 1.0 - rng.random((num_samples, sequence.num_choices))
        options = np.zeros((num_samples, sequence.num_choices), dtype=np.int64)
        scores = self._scores()
        log_probs = np.zeros(num_samples)
        for number in range(sequence.num_levels):
            priors = np.stack([sequence.level_log_prior(number, row) for row in options[:, :number].tolist()])
            options[:, number], gained = draw(scores[number] + priors, uniforms[:, number])
            log_probs += gained
        rest = slice(sequence.num_levels, None)
        options[:, rest], gained = draw(scores[rest] + sequence.constant_log_prior[rest], uniforms[:, rest])
        return options, log_probs + gained.sum(axis=1)

    def ascend(
        self,
        options: Integers,
        log_priors: Floats,
        weights: Callable[[Floats], Floats],
        entropy_weight: float,
    ) -> None:
        likelihood = self.likelihood(options, log_priors)
        self._adam_step(self.gradient(likelihood, options, weights(likelihood.log_probs), entropy_weight))

    def likelihood(self, options: Integers, log_priors: Floats) -> Likelihood:
        """Return the probabilities of sequences, options (B, K) with log priors (K, B, O)."""
        scores = self._scores()[:, None] + log_priors
        scores = scores - scores.max(axis=-1, keepdims=True)
        exponentials = np.exp(scores)
        total = exponentials.sum(axis=-1, keepdims=True)
        softmax = exponentials / total
        log_softmax = np.where(exponentials > 0, scores - np.log(total), 0.0)
        entropies = -(softmax * log_softmax).sum(axis=-1)
        chosen = np.take_along_axis(log_softmax, options.T[..., None], axis=-1)[..., 0]
        return Likelihood(chosen.sum(axis=0), entropies, log_softmax, softmax)

    def gradient(self, likelihood: Likelihood, options: Integers, weights: Floats, entropy_weight: float) -> Floats:
        """Return the gradient (K, F) of the objective that `ascend` increases."""
        softmax = likelihood.softmax
        grad_scores = -softmax * weights[:, None]
        rows, columns = np.indices(likelihood.entropies.shape)
        grad_scores[rows, columns, options.T] += weights
        grad_scores -= entropy_weight * softmax * (likelihood.log_softmax + likelihood.entropies[:, :, None])
        grad_options = grad_scores.sum(axis=1, keepdims=True) * self._squash_slope()
        gradient: Floats = (grad_options @ self.sequence.features.transpose(0, 2, 1))[:, 0]
        return gradient

    def _scores(self) -> Floats:
        """Squashed logits (K, O), without the prior."""
        scaled = (self.logits[:, None] @ self.sequence.features)[:, 0] / self._squash.temperature
        bound = self._squash.tanh_constant
        return scaled if bound is None else bound * np.tanh(scaled)

    def _squash_slope(self) -> Floats | float:
        """Derivative of the scores by the logits: (K, 1, O), or one constant without a bound."""
        bound, temperature = self._squash.tanh_constant, self._squash.temperature
        if bound is None:
            return 1.0 / temperature
        slope: Floats = (bound - self._scores()[:, None] ** 2 / bound) / temperature
        return slope

    def _adam_step(self, gradient: Floats) -> None:
        self._num_steps += 1
        correction = math.sqrt(1 - DECAY_SQUARE**self._num_steps)
        rate = self._learning_rate * correction / (1 - DECAY_MEAN**self._num_steps)
        self._mean += (1 - DECAY_MEAN) * (gradient - self._mean)
        self._square += (1 - DECAY_SQUARE) * (gradient * gradient - self._square)
        self.logits += rate * self._mean / (np.sqrt(self._square) + EPSILON * correction)
