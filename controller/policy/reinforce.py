"""REINFORCE: the policy gradient with a moving average as baseline, the family of SpineNet's own search.

Sources: Zoph and Le, "Neural Architecture Search with Reinforcement Learning" (ICLR 2017), for an LSTM, Adam with 6e-4,
the moving average of earlier rewards as baseline, and asynchronous children. NASNet (CVPR 2018) for one layer of 100
units, a baseline decay of 0.95 and an entropy weight of 1e-5. The published learning rate and entropy weight are for
10,000 trainings and more; ours are tuned for a thousand (docs/experiment_log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spinenas.controller.policy.choice_sequence import Floats
from spinenas.controller.policy.policy import PolicyKind
from spinenas.controller.policy.policy_search import Batch, PolicyOptions, PolicySearch
from spinenas.space.errors import UserError

LEARNING_RATES: dict[PolicyKind, float] = {"factorised": 0.1, "recurrent": 1.5e-3}
"""Defaults of the two policies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforceOptions(PolicyOptions):
    """Options of the controller "reinforce".

    Attributes:
        policy: "recurrent", the published LSTM, or "factorised", a logit for each option.
        learning_rate: of Adam; None for a rate that suits the policy and a thousand trials.
        batch_size: number of results in each update of the policy.
        baseline_decay: share of the moving average of the objective that is kept at each result.
        entropy_weight: of the policy's entropy, in nats, relative to the objective.
        temperature: logits are divided by it; above 1 flattens the policy.
        tanh_constant: bounds the logits; None for no bound.
    """

    policy: PolicyKind = "recurrent"
    batch_size: int = 1
    baseline_decay: float = 0.95
    entropy_weight: float = 1e-3

    def __post_init__(self) -> None:
        PolicyOptions.__post_init__(self)
        if not 0 <= self.baseline_decay < 1:
            raise UserError(f"baseline_decay is {self.baseline_decay}; it is 0 or more and below 1")


class Reinforce(PolicySearch[ReinforceOptions]):
    """Weights the log-probability of each result by its advantage over the moving average of earlier results.

    Arguments are those of `LedgerSearch`.
    """

    default_options = ReinforceOptions
    default_learning_rates = LEARNING_RATES
    _baseline: float | None = None

    def _improve(self, batch: Batch) -> None:
        size = len(batch.objectives)
        weights = self._advantages(batch.objectives) / size
        self._policy.ascend(batch.options, batch.log_priors, lambda _: weights, self._options.entropy_weight / size)

    def _advantages(self, objectives: Floats) -> Floats:
        advantages, decay = np.empty_like(objectives), self._options.baseline_decay
        for place, objective in enumerate(objectives.tolist()):
            baseline = objective if self._baseline is None else self._baseline
            advantages[place] = objective - baseline
            self._baseline = decay * baseline + (1 - decay) * objective
        return advantages
