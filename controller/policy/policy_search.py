"""Base of the controllers with a policy: proposes its samples, and collects results in batches to learn from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np

from spinenas.controller.base import ControllerOptions, Proposal, Step, objective_of
from spinenas.controller.ledger import Candidate
from spinenas.controller.ledger_search import LedgerSearch, Sources
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.policy.choice_sequence import ChoiceSequence, Floats, Integers
from spinenas.controller.policy.factorised import FactorisedPolicy
from spinenas.controller.policy.policy import Policy, PolicyKind, Squash
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.random_streams import generator

NUM_SAMPLES = 6
"""Samples drawn for one proposal. The first is usually new. For an LSTM, six take little longer than one, 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions(ControllerOptions):
    """Options that all controllers with a policy share; the subclasses document them."""

    policy: PolicyKind
    learning_rate: float | None = None
    batch_size: int
    temperature: float = 1.0
    tanh_constant: float | None = None

    def __post_init__(self) -> None:
        if self.policy not in get_args(PolicyKind):
            raise UserError(f"policy {self.policy!r} is unknown{nearest(self.policy, get_args(PolicyKind))}")
        if self.batch_size < 1 or not (self.learning_rate is None or self.learning_rate > 0):
            raise UserError(
                f"batch_size is {self.batch_size} and learning_rate {self.learning_rate}; "
                "the first is at least 1, the second above 0"
            )
        Squash(self.temperature, self.tanh_constant)

    @property
    def protocol(self) -> int:
        return 2 if self.policy == "recurrent" else 1  # since 2, torch trains the LSTM


Options = TypeVar("Options", bound=PolicyOptions)


@dataclass(frozen=True, slots=True)
class Batch:
    """Results that a policy learns from together, B of them in the order of arrival.

    Attributes:
        options: (B, K).
        log_priors: (K, B, O).
        log_probs: (B,), under the policy that proposed each; NaN if none did.
        objectives: (B,).
    """

    options: Integers
    log_priors: Floats
    log_probs: Floats
    objectives: Floats


class PolicySearch(LedgerSearch[Options]):
    """Proposes samples of a policy that learns from every `batch_size` results.

    Arguments are those of `LedgerSearch`.

    The policy learns only in `tell` and `observe`, in the order of calls. Late results count, however old the policy
    that proposed them. If the policy only repeats itself, edits of its samples are proposed, then random networks.
    These and observed networks are learnt from as if the current policy had drawn them. A diverged network has
    objective 0. Other failures are not learnt from, nor are replicates, which were selected for being good.
    """

    stream = "controller/policy"
    default_learning_rates: Mapping[PolicyKind, float]

    def _start(self) -> None:
        options = self._options
        self._sequence = ChoiceSequence(self._space)
        squash = Squash(options.temperature, options.tanh_constant)
        learning_rate = options.learning_rate or self.default_learning_rates[options.policy]
        self._policy: Policy
        if options.policy == "factorised":
            self._policy = FactorisedPolicy(self._sequence, squash, learning_rate=learning_rate)
        else:
            from spinenas.controller.policy.lstm import RecurrentPolicy  # torch takes seconds

            rng = generator(self._seed, "controller/policy/initial")
            self._policy = RecurrentPolicy(self._sequence, squash, rng, learning_rate=learning_rate)
        self._results: list[tuple[list[int], float, float]] = []  # options, log-probability, objective

    def ask(self) -> Step | None:
        """Return a sample of the policy. Raises SpaceExhausted."""
        with one_blas_thread():
            return super().ask()

    @abstractmethod
    def _improve(self, batch: Batch) -> None:
        """Update the policy's parameters."""

    def _learn(self, genotype: Genotype, result: Evaluation | Failure, proposal: Proposal | None) -> None:
        """Add a result to the batch, and improve the policy when the batch is full."""
        objective = objective_of(result)
        if objective is None or (proposal is not None and proposal.stage is not Stage.SEARCH):
            return
        log_prob = np.nan if proposal is None else proposal.info.get("log_prob", np.nan)
        self._results.append((self._sequence.options(genotype), log_prob, objective))
        if len(self._results) == self._options.batch_size:
            options, log_probs, objectives = zip(*self._results, strict=True)
            self._results.clear()
            log_priors = np.stack([self._sequence.log_prior(row) for row in options], axis=1)
            with one_blas_thread():
                self._improve(Batch(np.array(options), log_priors, np.array(log_probs), np.array(objectives)))

    def _sources(self, rng: np.random.Generator) -> Sources:
        drawn: list[Genotype] = []
        return self._samples(drawn, rng), self._edits(drawn, "policy", rng)

    def _samples(self, drawn: list[Genotype], rng: np.random.Generator) -> Iterator[Candidate]:
        options, log_probs = self._policy.sample(rng, NUM_SAMPLES)
        for row, log_prob in zip(options.tolist(), log_probs.tolist(), strict=True):
            drawn.append(self._sequence.genotype(row))
            yield Candidate(drawn[-1], "policy", info={"log_prob": log_prob})
