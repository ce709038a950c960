"""REINFORCE: a policy follows the objective's excess over its moving average; the lineage of SpineNet's search.

Sources: Zoph and Le, "Neural Architecture Search with Reinforcement Learning" (ICLR 2017): an LSTM, Adam with 6e-4, the
moving average of earlier rewards as the baseline, asynchronous children. NASNet (CVPR 2018): one layer of 100 units, a
baseline that keeps 0.95, entropy with 1e-5. The published rates are meant for 10,000 trainings and more.
"""

from __future__ import annotations

import numpy as np

from spinenas.controller.ledger import Feasible
from spinenas.controller.policy.choice_sequence import Floats
from spinenas.controller.policy.policies import PolicyKind
from spinenas.controller.policy.policy_search import Batch, PolicySearch
from spinenas.space.errors import UserError
from spinenas.space.search_space import SearchSpace

LEARNING_RATES: dict[str, float] = {"factorised": 0.1, "recurrent": 1.5e-3}
"""Where none is given: for a thousand trainings (docs/experiment_log.md)."""


class Reinforce(PolicySearch):
    """Raises the log-probability of each result by its advantage over the moving average of those before it.

    Args:
        space, policy, batch_size, temperature, tanh_constant, seed, feasible: as in `PolicySearch`.
        learning_rate: of Adam; None for LEARNING_RATES.
        baseline_decay: what the moving average keeps at each result.
        entropy_weight: of the policy's entropy, in nats, beside the objective.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        policy: PolicyKind = "recurrent",
        learning_rate: float | None = None,
        batch_size: int = 1,
        baseline_decay: float = 0.95,
        entropy_weight: float = 1e-5,
        temperature: float = 1.0,
        tanh_constant: float | None = None,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        if not 0 <= baseline_decay < 1:
            raise UserError(f"baseline_decay is {baseline_decay}; it is 0 or more and below 1")
        super().__init__(
            space,
            policy=policy,
            learning_rate=LEARNING_RATES.get(policy, 1.0) if learning_rate is None else learning_rate,
            batch_size=batch_size,
            temperature=temperature,
            tanh_constant=tanh_constant,
            seed=seed,
            feasible=feasible,
        )
        self._decay = baseline_decay
        self._entropy_weight = entropy_weight
        self._baseline: float | None = None

    def _learn(self, batch: Batch) -> None:
        likelihood = self._policy.likelihood(batch.options, batch.log_priors)
        size = len(batch.objectives)
        advantages = self._advantages(batch.objectives)
        self._climb(self._policy.gradient(likelihood, advantages / size, self._entropy_weight / size))

    def _advantages(self, objectives: Floats) -> Floats:
        advantages = np.empty_like(objectives)
        for place, objective in enumerate(objectives.tolist()):
            baseline = objective if self._baseline is None else self._baseline
            advantages[place] = objective - baseline
            self._baseline = self._decay * baseline + (1 - self._decay) * objective
        return advantages
