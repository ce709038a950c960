"""Base of the controllers with a policy: proposes its samples, and collects results in batches to learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from spinenas.controller.base import ControllerOptions, Proposal, objective_of
from spinenas.controller.ledger import Candidate, Feasible, Ledger
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.policy.choice_sequence import ChoiceSequence, Floats, Integers
from spinenas.controller.policy.factorised import FactorisedPolicy
from spinenas.controller.policy.policy import Policy, PolicyKind, Squash
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.mutate import random_edit
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

NUM_SAMPLES = 6
"""Samples drawn for one proposal. The first is usually new. For an LSTM, six take little longer than one, 5 ms."""


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


def make_policy(
    options: PolicyOptions, sequence: ChoiceSequence, rng: np.random.Generator, *, learning_rate: float
) -> Policy:
    """Make an untrained policy; `rng` draws its initial parameters, if any."""
    squash = Squash(options.temperature, options.tanh_constant)
    if options.policy == "factorised":
        return FactorisedPolicy(sequence, squash, learning_rate=learning_rate)
    from spinenas.controller.policy.lstm import RecurrentPolicy  # torch takes seconds

    return RecurrentPolicy(sequence, squash, rng, learning_rate=learning_rate)


class PolicySearch(ABC):
    """Proposes samples of a policy that learns from every `batch_size` results.

    Args:
        space: search space.
        options: options of the policy.
        learning_rates: default learning rate of each policy.
        seed: seed of the run.
        feasible: whether a genotype may be proposed.

    The policy learns only in `tell` and `observe`, in the order of calls. A proposal depends only on the policy and the
    proposal's number. Late results count, however old the policy that proposed them. If the policy only repeats itself,
    edits of its samples are proposed, then random networks. These and observed networks are learnt from as if the
    current policy had drawn them. A diverged network has objective 0. Other failures are not learnt from, nor are
    replicates, which were selected for being good.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: PolicyOptions,
        *,
        learning_rates: Mapping[PolicyKind, float],
        seed: int,
        feasible: Feasible | None,
    ) -> None:
        self._space = space
        self._seed = seed
        self._batch_size = options.batch_size
        self._ledger = Ledger(space, feasible)
        self._sequence = ChoiceSequence(space)
        learning_rate = options.learning_rate or learning_rates[options.policy]
        rng = generator(seed, "controller/policy/initial")
        self._policy = make_policy(options, self._sequence, rng, learning_rate=learning_rate)
        self._results: list[tuple[list[int], float, float]] = []  # options, log-probability, objective

    def ask(self) -> Proposal | None:
        """Return a sample of the policy. Raises SpaceExhausted."""
        rng = generator(self._seed, "controller/policy", self._ledger.next_number)
        with one_blas_thread():
            drawn: list[Genotype] = []
            sources = self._samples(drawn, rng), self._edits(drawn, rng), self._random(rng)
            return self._ledger.propose(*sources, rng=rng)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Add a result to the batch, and learn when the batch is full."""
        proposal = self._ledger.finish(number)
        if proposal is None:
            return False
        objective = objective_of(result)
        if objective is not None and proposal.stage is Stage.SEARCH:
            assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
            self._add(proposal.genotype, proposal.info.get("log_prob", np.nan), objective)
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Learn from an archived result, and exclude the network from the proposals."""
        self._ledger.observe(genotype)
        self._add(genotype, np.nan, evaluation.objective)

    def replay_ask(self, proposal: Proposal) -> None:
        """Adopt a recorded proposal."""
        self._ledger.adopt(proposal)

    @abstractmethod
    def _learn(self, batch: Batch) -> None:
        """Update the policy's parameters."""

    def _add(self, genotype: Genotype, log_prob: float, objective: float) -> None:
        self._results.append((self._sequence.options(genotype), log_prob, objective))
        if len(self._results) == self._batch_size:
            options, log_probs, objectives = zip(*self._results, strict=True)
            self._results.clear()
            log_priors = np.stack([self._sequence.log_prior(row) for row in options], axis=1)
            with one_blas_thread():
                self._learn(Batch(np.array(options), log_priors, np.array(log_probs), np.array(objectives)))

    def _samples(
        self, drawn: list[Genotype], rng: np.random.Generator, num_samples: int = NUM_SAMPLES
    ) -> Iterator[Candidate]:
        options, log_probs = self._policy.sample(rng, num_samples)
        for row, log_prob in zip(options.tolist(), log_probs.tolist(), strict=True):
            drawn.append(self._sequence.genotype(row))
            yield Candidate(drawn[-1], "policy", info={"log_prob": log_prob})

    def _edits(self, drawn: list[Genotype], rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            edit, genotype = random_edit(self._space, drawn[rng.integers(len(drawn))], rng)
            yield Candidate(genotype, f"policy+mutation:{edit}")

    def _random(self, rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            yield Candidate(sample_without_dead_blocks(self._space, rng), "random:alive")
