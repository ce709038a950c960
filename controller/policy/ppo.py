"""PPO: several clipped steps on each batch of results, which may be late and come from older policies.

Sources: Schulman et al., "Proximal Policy Optimization Algorithms" (2017), equation 7; NASNet, MnasNet and NAS-FPN
search with it. Advantages are normalised in each batch. A result of an older policy has a clipped importance weight
(FNAS, 2021). The ratio is clipped about the policy before the batch, not about the one that proposed the network, which
may be a hundred results old (Hilton et al., "Batch size-invariance for policy optimization", 2021). For bad networks
the ratio has an upper bound as well (dual clip: Ye et al., "Mastering Complex Control in MOBA Games with Deep
Reinforcement Learning", AAAI 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spinenas.controller.policy.choice_sequence import Floats
from spinenas.controller.policy.policy import PolicyKind
from spinenas.controller.policy.policy_search import Batch, PolicyOptions, PolicySearch
from spinenas.space.errors import UserError

LEARNING_RATES: dict[PolicyKind, float] = {"factorised": 0.1, "recurrent": 3e-3}
"""Defaults, tuned for a thousand trainings (docs/experiment_log.md)."""

MIN_IMPORTANCE = 0.5
"""Lower bound of importance weights. With 100 trials in flight, a result is often a hundredfold less likely when it
arrives, and without this bound the policy would hardly learn from it (docs/experiment_log.md)."""

MAX_RATIO = 20.0
"""Ratio above which a bad network has no gradient. Nothing else bounds its slope, which would grow without limit for
results that the policy did not propose, such as 100,000 random networks. Searches stay below 10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoOptions(PolicyOptions):
    """Options of the controller "ppo".

    Attributes:
        policy: "factorised", a logit for each option, or "recurrent", the published LSTM.
        learning_rate: of Adam; None for a rate that suits the policy and a thousand trials.
        batch_size: number of results in each update of the policy; NASNet uses 20.
        steps_per_batch: steps of Adam on each batch of results.
        clip: how far from 1 the ratio of probabilities, after and before the batch, is rewarded.
        entropy_weight: of the policy's entropy, in nats, relative to advantages of variance 1.
        temperature: logits are divided by it; above 1 flattens the policy.
        tanh_constant: bounds the logits; None for no bound.
    """

    policy: PolicyKind = "factorised"
    batch_size: int = 10
    steps_per_batch: int = 4
    clip: float = 0.2
    entropy_weight: float = 1e-5

    def __post_init__(self) -> None:
        PolicyOptions.__post_init__(self)
        if self.batch_size < 2 or self.steps_per_batch < 1 or not self.clip > 0:
            raise UserError(
                f"batch_size is {self.batch_size}, steps_per_batch {self.steps_per_batch} and clip {self.clip}; "
                "PPO needs batches of at least 2, at least one step, and a clip above 0"
            )


class Ppo(PolicySearch[PpoOptions]):
    """Maximises the clipped objective of each batch in a few steps. Arguments are those of `LedgerSearch`."""

    default_options = PpoOptions
    default_learning_rates = LEARNING_RATES

    def _improve(self, batch: Batch) -> None:
        size, options = len(batch.objectives), self._options
        advantages = normalised(batch.objectives)
        before: Floats | None = None

        def weights(log_probs: Floats) -> Floats:
            nonlocal advantages, before
            if before is None:
                before = log_probs.copy()
                advantages = advantages * importance(before, batch.log_probs)
            ratios = np.exp(np.minimum(log_probs - before, 10.0))  # above any bound, without overflow
            return clipped_slopes(ratios, advantages, options.clip) / size

        for _ in range(options.steps_per_batch):
            self._policy.ascend(batch.options, batch.log_priors, weights, options.entropy_weight / size)


def normalised(objectives: Floats) -> Floats:
    """Return objectives with mean 0 and variance 1; zeros if all are equal."""
    deviations = objectives - objectives.mean()
    spread = float(deviations.std())
    return deviations / spread if spread > 1e-12 else np.zeros_like(deviations)


def importance(now: Floats, then: Floats) -> Floats:
    """Return the importance weight of each result, between MIN_IMPORTANCE and 1; 1 for a NaN in `then`."""
    ratios: Floats = np.exp(np.clip(now - np.where(np.isnan(then), now, then), math.log(MIN_IMPORTANCE), 0.0))
    return ratios


def clipped_slopes(ratios: Floats, advantages: Floats, clip: float) -> Floats:
    """Return the derivative of min(r A, clamp(r, 1 - clip, 1 + clip) A) by the log of each ratio r below MAX_RATIO."""
    is_clipped = np.where(advantages > 0, ratios > 1 + clip, (ratios < 1 - clip) | (ratios >= MAX_RATIO))
    return np.where(is_clipped, 0.0, ratios * advantages)
