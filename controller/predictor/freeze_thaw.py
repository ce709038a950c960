"""Freeze-thaw search: spends epochs, not trainings, where the predictor expects most.

Every training first pauses after the first rung, about a fifth of its schedule. At each step the predictor compares new
networks with the paused ones, and either begins the best new one or continues the best paused one to the last rung,
about three fifths, where the order of the networks is known as well as at the end. Some of the steps go to further
seeds of the leaders, whose order depends on the noise of single trainings. Only the finalists are trained to the end,
with the last share of the budget.

Sources: Swersky et al., "Freeze-Thaw Bayesian Optimization" (arXiv 1406.3896), for pausing and continuing by one model;
a line per epoch replaces its model of curves (`controller/calibration.py`). NPENAS as in `predictor_guided_evolution`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Self

import numpy as np

from spinenas.controller.base import BudgetSpent, Continuation, Proposal, SpaceExhausted, Step
from spinenas.controller.calibration import Calibration
from spinenas.controller.evolution import Member
from spinenas.controller.ledger import Candidate, Feasible
from spinenas.controller.objectives import scalarized
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.predictor.features import Floats
from spinenas.controller.predictor.predictor_guided_evolution import PredictorGuidedEvolution, PredictorGuidedOptions
from spinenas.controller.predictor.prior import Lessons
from spinenas.controller.predictor.screening import best_candidates
from spinenas.results.foretold import END
from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_keeping_detail, sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

FIRST_RUNG, LAST_RUNG = 0.2, 0.6
"""Shares of a schedule after which trainings pause."""

KEEPING_SHARE = 0.9
"""Share of the random networks that keep the detail of the image on a path to each output."""

NUM_DRAWS = 8
"""Number of random networks of which the prior selects one, for each of the first trainings."""

MIN_BEST = 4
"""Minimum number of networks among which the share of the seeds is found."""

PAUSED = "paused"
"""Origin of the candidates that are paused trainings."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a search may spend.

    Attributes:
        epochs: of a whole training.
        budget: epochs of all trainings.
        final_share: share of the budget for the whole trainings of the finalists.
    """

    epochs: int = 5
    budget: int = 5000
    final_share: float = 0.1


def rungs_for(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which trainings of this length pause; none, one or two, and each below the last epoch."""
    rungs = {max(1, round(FIRST_RUNG * epochs)), math.ceil(round(LAST_RUNG * epochs, 6))}
    return tuple(sorted(rung for rung in rungs if rung < epochs))


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeThawOptions(PredictorGuidedOptions):
    """Options of the controller "freeze-thaw".

    Attributes:
        population_size: how many of the latest networks may have children.
        tournament_size: networks drawn, with replacement, to find a parent.
        max_edits: a child differs from its parent by 1 to this many edits.
        num_random: random proposals before the predictor is used; observed networks count. Nine in ten keep the detail
            of the image on a path to each output. None for half of the budget, at most 16.
        num_candidates: children that the predictor compares with each other and with the paused networks.
        ucb_coefficient: how much uncertainty counts in favour of a network, see `best_candidates`.
        prior: what the predictor expects before any result: "digits" for trainings that the package has, or the path of
            a training table or of a run of another task. None for no prior.
        rungs: epochs after which trainings pause; the last is where networks are compared. None for about a fifth and
            three fifths of the schedule. An empty list pauses nothing.
        replicate_chance: chance that a step is another seed of a leader, while a leader lacks one, if all differences
            between the best networks are noise of the seeds. It is less, the more of them is not.
        num_leaders: how many of the best networks are trained with several seeds.
        num_seeds: trainings of each leader.
    """

    num_random: int | None = None
    rungs: tuple[int, ...] | None = None
    replicate_chance: float = 0.4
    num_leaders: int = 3
    num_seeds: int = 3

    @property
    def protocol(self) -> int:
        return 1

    def __post_init__(self) -> None:
        PredictorGuidedOptions.__post_init__(self)
        rungs = list(self.rungs or ())
        if rungs != sorted(set(rungs)) or min(rungs, default=1) < 1:
            raise UserError(f"rungs is {rungs}; it lists epochs, 1 or more, each above the last")
        if not 0 <= self.replicate_chance < 1 or self.num_leaders < 1 or self.num_seeds < 1:
            raise UserError(
                f"replicate_chance is {self.replicate_chance}, num_leaders {self.num_leaders} and num_seeds "
                f"{self.num_seeds}; the first is 0 or more and below 1, the others are at least 1"
            )

    def for_budget(self, num_trials: int) -> Self:
        return replace(self, num_random=self.num_random or min(16, max(1, num_trials // 2)))

    def for_schedule(self, epochs: int) -> Self:
        return replace(self, rungs=rungs_for(epochs) if self.rungs is None else self.rungs)


@dataclass(slots=True)
class _Training:
    """One training that has begun.

    Attributes:
        proposal: with which it began.
        until: epoch that it will reach, or has reached if it is paused; None for the end.
        is_paused: whether it waits there.
        has_failed: whether it ended without a result.
    """

    proposal: Proposal
    until: int | None
    is_paused: bool = False
    has_failed: bool = False


@dataclass(slots=True)
class _Network:
    """A network and its trainings, in order."""

    genotype: Genotype
    trainings: list[_Training] = field(default_factory=list)

    @property
    def num_whole(self) -> int:
        """Number of trainings that have reached the end, or will."""
        return sum(training.until is None and not training.has_failed for training in self.trainings)

    @property
    def num_seeds(self) -> int:
        """Number of trainings that have not failed."""
        return sum(not training.has_failed for training in self.trainings)


class FreezeThaw(PredictorGuidedEvolution):
    """Begins, continues and repeats trainings as the predictor advises, and counts their epochs.

    Arguments are those of `PredictorGuidedEvolution`, and:

        schedule: length of a training and the budget.
        scalarize: objective that is searched for; None for AP itself.

    Attributes:
        num_epochs: epochs of all steps so far.
    """

    default_options = FreezeThawOptions
    stream = "controller/freeze-thaw"
    _options: FreezeThawOptions

    def __init__(
        self,
        space: SearchSpace,
        options: FreezeThawOptions | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        schedule: Schedule | None = None,
        scalarize: ScalarizedObjective | None = None,
        lessons: Lessons | None = None,
    ) -> None:
        self._schedule, self._scalarize = schedule or Schedule(), scalarize
        self.num_epochs = 0
        super().__init__(space, options, seed=seed, feasible=feasible, lessons=lessons)

    def _start(self) -> None:
        super()._start()
        given, epochs = self._options.rungs, self._schedule.epochs
        self._rungs = rungs_for(epochs) if given is None else tuple(rung for rung in given if rung < epochs)
        self._last = self._rungs[-1] if self._rungs else None
        self._calibration = Calibration(self._last or END)
        self._networks: dict[str, _Network] = {}
        self._open: dict[int, _Training] = {}
        self._is_searching = True
        self._num_steps = 0

    def ask(self) -> Step | None:
        """Return a new training, or the next epochs of a paused one; None while no result allows either.

        Raises BudgetSpent, or SpaceExhausted if no network is left before.
        """
        rng = generator(self._seed, self.stream, self._num_steps)
        step, exhausted = None, None
        with one_blas_thread():
            try:
                step = self._search_step(rng)
            except SpaceExhausted as reason:
                exhausted = reason
            step = step or self._final_step()
        if step is not None:
            self.replay_ask(step)
        elif all(training.is_paused for training in self._open.values()):
            if exhausted is not None:
                raise exhausted
            raise BudgetSpent(f"{self.num_epochs} of {self._schedule.budget} epochs are spent")
        return step

    def end_search(self) -> None:
        """Train only finalists from now on."""
        self._is_searching = False

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Learn from a result. One of a training that pauses leaves it open."""
        training = self._open.get(number)
        if training is None:
            return False
        proposal = training.proposal
        assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
        if self._scalarize is not None and isinstance(result, Evaluation):
            result = scalarized(result, proposal.genotype, self._scalarize)
        if isinstance(result, Evaluation) and result.stopped_after is not None and not training.is_paused:
            training.is_paused = True
        else:
            training.has_failed = isinstance(result, Failure)
            del self._open[number]
            self._ledger.finish(number)
        self._learn(proposal.genotype, self._foretold(proposal, result), proposal)
        return True

    def replay_ask(self, step: Step) -> None:
        """Adopt a recorded step."""
        self._num_steps += 1
        self.num_epochs += self._cost(step)
        if isinstance(step, Continuation):
            training = self._open[step.number]
            training.until, training.is_paused = step.until, False
            return
        self._ledger.adopt(step)
        assert isinstance(step.genotype, Genotype), "a search proposes genotypes"
        training = self._open[step.number] = _Training(step, step.until)
        self._networks.setdefault(step.network_key, _Network(step.genotype)).trainings.append(training)

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Learn from an archived result, and exclude the network from the proposals."""
        if self._scalarize is not None:
            evaluation = scalarized(evaluation, genotype, self._scalarize)
        super().observe(genotype, evaluation)

    def _learn(self, genotype: Genotype, result: Evaluation | Failure, proposal: Proposal | None) -> None:
        super()._learn(genotype, result, proposal)
        # Estimates change with every result, so parents are compared by those of this moment.
        estimates = self._calibration.estimates
        self._population.clear()
        for key in [key for key in estimates if key in self._networks][-self._population_size :]:
            network = self._networks[key]
            number = network.trainings[0].proposal.number
            self._population.append(Member(number, network.genotype, estimates[key].value))

    def _cost(self, step: Step) -> int:
        """Epochs of a step."""
        until = step.until or self._schedule.epochs
        return until - (self._open[step.number].until or 0) if isinstance(step, Continuation) else until

    def _next_rung(self, training: _Training) -> int | None:
        return next((rung for rung in self._rungs if rung > (training.until or math.inf)), None)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs after which trainings pause."""
        return self._rungs

    @property
    def num_final_epochs(self) -> int:
        """Epochs of the budget that only finalists get."""
        if self._last is None:
            return 0
        rest, options = self._schedule.epochs - self._last, self._options
        wanted = min(rest * options.num_leaders * options.num_seeds, self._schedule.final_share * self._schedule.budget)
        return max(rest, int(wanted))

    def _search_step(self, rng: np.random.Generator) -> Step | None:
        """Return the next step of the search; None once the rest of the budget is for the finalists.

        Raises SpaceExhausted.
        """
        if not self._is_searching:
            return None
        step = self._wanted(rng)
        return step if self.num_epochs + self._cost(step) + self.num_final_epochs <= self._schedule.budget else None

    def _wanted(self, rng: np.random.Generator) -> Step:
        options = self._options
        assert options.num_random is not None, "derived from the budget"
        waiting = {
            number: rung
            for number, training in self._open.items()
            if training.is_paused and (rung := self._next_rung(training)) is not None
        }
        for number, rung in waiting.items():
            if number < options.num_random:  # the first networks teach how epochs relate
                return Continuation(number, rung)
        if self._num_started < options.num_random or not self._predictor.num_results or not self._population:
            return self._new(rng, self._expected_most(rng))
        if rng.random() < options.replicate_chance * self._noise_share():
            for network in self._leaders():
                if network.num_seeds < options.num_seeds:
                    return self._replicate(network, self._last)
        children = islice(self._children(rng), options.num_candidates)
        paused = (Candidate(self._genotype(number), PAUSED, parent=number) for number in waiting)
        ranked = best_candidates(
            [*children, *paused], self._predictor, ucb_coefficient=options.ucb_coefficient, rng=rng
        )
        for candidate in ranked:
            if candidate.origin == PAUSED:
                assert candidate.parent is not None, "the number of its training"
                return Continuation(candidate.parent, waiting[candidate.parent])
            if self._ledger.is_new(candidate.genotype):
                return self._new(rng, iter([candidate]))
        return self._new(rng, self._children(rng))

    def _genotype(self, number: int) -> Genotype:
        genotype = self._open[number].proposal.genotype
        assert isinstance(genotype, Genotype), "a search proposes genotypes"
        return genotype

    def _new(self, rng: np.random.Generator, *sources: Iterator[Candidate]) -> Proposal:
        """Return a training of a new network up to the first rung."""
        until = self._rungs[0] if self._rungs else None
        return replace(self._ledger.draw(*sources, self._random(rng), rng=rng), until=until)

    def _random(self, rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            if rng.random() < KEEPING_SHARE:
                yield Candidate(sample_keeping_detail(self._space, rng), "random:keeping-detail")
            else:
                yield Candidate(sample_without_dead_blocks(self._space, rng), "random:alive")

    def _expected_most(self, rng: np.random.Generator) -> Iterator[Candidate]:
        """Yield random networks, each the one that the prior expects most of among several; none without a prior."""
        draws = self._random(rng)
        while self._predictor.prior_weight > 0:
            drawn = list(islice(draws, NUM_DRAWS))
            yield drawn[int(np.argmax(self._predictor.expected([each.genotype for each in drawn])))]

    def _replicate(self, network: _Network, until: int | None) -> Proposal:
        first = network.trainings[0].proposal
        return Proposal(
            self._ledger.next_number,
            network.genotype,
            replicate=len(network.trainings),
            stage=Stage.RERANK,
            until=until,
            parent=first.number,
            origin="replicate",
        )

    def _noise_share(self) -> float:
        """Share of the seeds in the differences between the best quarter of the networks at the last rung, 0 to 1."""
        values = sorted((value for value, weight in self._calibration.estimates.values() if weight >= 1), reverse=True)
        best = values[: max(MIN_BEST, len(values) // 4)]
        of_seeds = self._calibration.seed_variance()
        return min(1.0, of_seeds / max(float(np.var(best)), 1e-12))

    def _leaders(self) -> list[_Network]:
        """The best networks among those that have reached the last rung, by prediction."""
        estimates = self._calibration.estimates
        reached = [
            network
            for key, network in self._networks.items()
            if key in estimates and estimates[key].weight >= 1 and network.num_seeds
        ]
        if not reached:
            return []
        means = self._expected(reached)
        return [reached[place] for place in np.argsort(-means, kind="stable")[: self._options.num_leaders]]

    def _expected(self, networks: Sequence[_Network]) -> Floats:
        """Return the expected objective of networks with results, (N,).

        A network's mean differs from the prediction by something of its own that no feature tells. The noise that the
        predictor finds is this and the seeds'. The more trainings a network has, the more its own results count.
        """
        predicted = self._predictor.predict([network.genotype for network in networks]).mean
        found = [self._calibration.estimates[network.trainings[0].proposal.network_key] for network in networks]
        values, weights = np.array(found).T
        of_seeds = self._calibration.seed_variance()
        own = max(self._predictor.noise_variance - of_seeds, 0.0)
        expected: Floats = predicted + (values - predicted) * own / (own + of_seeds / weights + 1e-12)
        return expected

    def _final_step(self) -> Step | None:
        """Return a step that brings a finalist to the end of the schedule; None while or if there is none."""
        left = self._schedule.budget - self.num_epochs
        finalists = [network for network in self._leaders() if network.num_whole < self._options.num_seeds]
        for network in sorted(finalists, key=lambda network: network.num_whole):
            for training in network.trainings:
                if training.is_paused and training.proposal.number in self._open and training.until == self._last:
                    step = Continuation(training.proposal.number)
                    if self._cost(step) <= left:
                        return step
        for network in finalists:
            if network.num_whole == network.num_seeds == 1 and self._schedule.epochs <= left:
                return self._replicate(network, None)
        return None
