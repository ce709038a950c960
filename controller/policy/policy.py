"""The policy interface: a trainable distribution over the genotypes of a space.

Two policies share the same choices (`choice_sequence`): `factorised` and `lstm`. The score of an option is its log
prior plus the logits of its features. Both policies therefore start at, or near, `SearchSpace.sample`.

Shapes: B sequences, K choices, F features and O options of the largest choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from spinenas.controller.policy.choice_sequence import Floats, Integers
from spinenas.space.errors import UserError

PolicyKind = Literal["factorised", "recurrent"]


@dataclass(frozen=True, slots=True)
class Squash:
    """Transform of logits before the prior is added: c * tanh(logit / T), or logit / T without c.

    Attributes:
        temperature: T; above 1 flattens the policy. ENAS uses 5.
        tanh_constant: c, which bounds the logits; None for no bound. ENAS uses 2.5.
    """

    temperature: float = 1.0
    tanh_constant: float | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not (self.tanh_constant is None or self.tanh_constant > 0):
            raise UserError(
                f"the policy's temperature is {self.temperature} and its tanh_constant {self.tanh_constant}; both are "
                "above 0"
            )


class Policy(Protocol):
    """A distribution over the sequences of a space."""

    def sample(self, rng: np.random.Generator, num_samples: int) -> tuple[Integers, Floats]:
        """Draw sequences; returns options (B, K) and their log-probabilities (B,)."""

    def ascend(
        self,
        options: Integers,
        log_priors: Floats,
        weights: Callable[[Floats], Floats],
        entropy_weight: float,
    ) -> None:
        """Take one step of Adam that increases sum(weights * log_probs) + entropy_weight * sum(entropies).

        Args:
            options: (B, K).
            log_priors: (K, B, O).
            weights: returns the weights (B,), held constant, from the current log-probabilities (B,).
            entropy_weight: weight of the entropies in nats, each a sum over the choices given those before.
        """


def draw(scores: Floats, uniforms: Floats) -> tuple[Integers, Floats]:
    """Draw an option from each row of scores (..., O), and return its log-probability too.

    Args:
        scores: unnormalised log-probabilities.
        uniforms: (...,), in (0, 1].
    """
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    cumulated = np.cumsum(weights, axis=-1)
    total = cumulated[..., -1]
    options = (cumulated < (uniforms * total)[..., None]).sum(axis=-1)
    rows = np.broadcast_to(weights, (*options.shape, weights.shape[-1])).reshape(options.size, -1)
    chosen = rows[np.arange(options.size), options.ravel()].reshape(options.shape)
    return options, np.log(chosen / total)
