"""Optuna's samplers on a space's flat decisions: TPE by default, or a Gaussian process.

Sources: Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS 2011). Ozaki et al., "Multiobjective
Tree-Structured Parzen Estimator" (JAIR 2022), for several objectives. Decisions are categorical; permutations are
Lehmer digits. Other options are Optuna's defaults: multivariate TPE (one estimator per decision for several
objectives), with trials in flight counted as bad ones (`constant_liar`).

Only samplers whose state is the trials alone can be used, because a replay restores nothing else. NSGA-II, CMA-ES and
quasi-Monte Carlo keep state in attributes.

Each proposal takes a new sampler, seeded by the proposal's number. A study that is rebuilt from recorded proposals and
results therefore continues identically. A proposal takes a tenth of a second or more at 1,000 trials
(docs/benchmarks.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spinenas.controller.base import ControllerOptions, Proposal, Step, objective_of
from spinenas.controller.ledger import Candidate, Feasible
from spinenas.controller.ledger_search import LedgerSearch, Sources
from spinenas.controller.objectives import Costs
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.random_streams import generator, seed_for
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Sampler = Literal["tpe", "gp"]

MAX_SAMPLES = 8
"""Draws of the sampler for one proposal; each takes as long as everything else together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TpeOptions(ControllerOptions):
    """Options of the controller "tpe".

    Attributes:
        sampler: "tpe", or "gp", Optuna's Gaussian process, whose proposals take seconds.
        multivariate: whether TPE uses a joint estimator of all decisions instead of one for each; None for Optuna's
            default, which is joint for one objective and separate for several.
        num_random: results before the sampler is used; Optuna's default is 10.
    """

    sampler: Sampler = "tpe"
    multivariate: bool | None = None
    num_random: int = 10

    def __post_init__(self) -> None:
        if self.sampler not in get_args(Sampler):
            raise UserError(f"sampler {self.sampler!r} is unknown{nearest(self.sampler, get_args(Sampler))}")
        if self.num_random < 1:
            raise UserError(f"num_random is {self.num_random}; it is at least 1")


class OptunaSearch(LedgerSearch[TpeOptions]):
    """Proposes the suggestions of an Optuna sampler.

    Args:
        space, options, seed, feasible: as in `LedgerSearch`.
        costs: returns cost figures of a genotype; lower is better. With them, the Pareto front is searched for.

    If the sampler only repeats itself, edits of its samples are proposed, then random networks. A diverged network has
    objective 0. Other failures and replicates are not learnt from.
    """

    default_options = TpeOptions
    stream = "controller/optuna"

    def __init__(
        self,
        space: SearchSpace,
        options: TpeOptions | None = None,
        *,
        costs: Costs | None = None,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        super().__init__(space, options, seed=seed, feasible=feasible)
        import optuna  # takes a second

        self._costs: Costs = costs or (lambda _: ())
        self._distributions = {
            decision.name: optuna.distributions.CategoricalDistribution(range(decision.num_options))
            for decision in space.decisions
        }
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # creating a study logs a line
        num_costs = len(self._costs(sample_without_dead_blocks(space, generator(seed, "controller/optuna/costs"))))
        maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        self._study = optuna.create_study(directions=[maximize, *repeat(minimize, num_costs)])
        optuna.logging.set_verbosity(verbosity)
        self._num_trials = 0  # of the study, with the refused ones
        self._trials: dict[int, int] = {}  # number in the study by number of the open proposal

    def ask(self) -> Step | None:
        """Return a suggestion of the sampler. Raises SpaceExhausted."""
        seed = seed_for(self._seed, "controller/optuna/sampler", self._ledger.next_number)
        self._study.sampler = self._fresh_sampler(seed % 2**32)
        proposal = self._propose()
        self._add_trial(proposal)
        return proposal

    def replay_ask(self, step: Step) -> None:
        """Adopt a recorded step."""
        super().replay_ask(step)
        assert isinstance(step, Proposal), "it pauses no training"
        self._add_trial(step)

    def _sources(self, rng: np.random.Generator) -> Sources:
        drawn: list[Genotype] = []
        return self._samples(drawn), self._edits(drawn, self._options.sampler, rng)

    def _learn(self, genotype: Genotype, result: Evaluation | Failure, proposal: Proposal | None) -> None:
        """Add a result to the study."""
        objective = objective_of(result)
        if proposal is None:
            self._add(genotype, objective)
            return
        trial = self._trials.pop(proposal.number, None)
        if trial is None:
            return
        if objective is None:
            self._drop(trial)
        else:
            self._study.tell(trial, [objective, *self._costs(genotype)])

    def _add_trial(self, proposal: Proposal) -> None:
        if proposal.stage is Stage.SEARCH:
            assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
            self._trials[proposal.number] = self._add(proposal.genotype, None)

    def _add(self, genotype: Genotype, objective: float | None) -> int:
        """Add a trial by its canonical vector, as a replay does; without an objective it is in flight."""
        from optuna.trial import TrialState, create_trial

        names = [decision.name for decision in self._space.decisions]
        trial = create_trial(
            state=TrialState.RUNNING if objective is None else TrialState.COMPLETE,
            values=None if objective is None else [objective, *self._costs(genotype)],
            params=dict(zip(names, self._space.encode(genotype), strict=True)),
            distributions=dict(self._distributions),
        )
        self._study.add_trial(trial)
        self._num_trials += 1
        return self._num_trials - 1

    def _drop(self, trial: int) -> None:
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.FAIL)  # samplers ignore failed trials

    def _fresh_sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import GPSampler, TPESampler

        with warnings.catch_warnings(action="ignore"):  # options that are marked experimental
            if self._options.sampler == "gp":
                return GPSampler(seed=seed, n_startup_trials=self._options.num_random)
            return TPESampler(
                seed=seed,
                n_startup_trials=self._options.num_random,
                multivariate=self._options.multivariate,
                warn_independent_sampling=False,
            )

    def _samples(self, drawn: list[Genotype]) -> Iterator[Candidate]:
        for _ in range(MAX_SAMPLES):
            trial = self._study.ask(dict(self._distributions))
            self._num_trials += 1
            self._drop(trial.number)
            drawn.append(self._space.decode([trial.params[decision.name] for decision in self._space.decisions]))
            yield Candidate(drawn[-1], self._options.sampler)
