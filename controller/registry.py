"""The only list of controllers, by name, with their options.

The configuration, the command line and the documentation are generated from `CONTROLLERS`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spinenas.controller.base import Controller, ControllerOptions
from spinenas.controller.evolution import EvolutionOptions, RegularizedEvolution
from spinenas.controller.former_names import REMOVED_CONTROLLERS, current_name, current_options
from spinenas.controller.ledger import Feasible
from spinenas.controller.local_search import LocalOptions, LocalSearch
from spinenas.controller.objectives import Costs, RankedByFront, Scalarized
from spinenas.controller.optuna_sampler import OptunaSearch, TpeOptions
from spinenas.controller.plan import PlannedTrials, PlanOptions
from spinenas.controller.policy.ppo import Ppo, PpoOptions
from spinenas.controller.policy.reinforce import Reinforce, ReinforceOptions
from spinenas.controller.predictor.freeze_thaw import FreezeThaw, FreezeThawOptions, Schedule
from spinenas.controller.predictor.predictor_guided_evolution import PredictorGuidedEvolution, PredictorGuidedOptions
from spinenas.controller.predictor.prior import Lessons
from spinenas.controller.random_search import RandomOptions, RandomSearch
from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.space.errors import UserError, nearest
from spinenas.space.search_space import SearchSpace


@dataclass(frozen=True, slots=True)
class ControllerEntry:
    """One controller of the registry.

    Attributes:
        make: the class; called as `make(space, options, seed=..., feasible=...)`.
        options: dataclass of its options, all of which have defaults.
        summary: one sentence for the help.
        takes_costs: whether the controller itself supports several objectives; `make` then takes `costs`.
        counts_epochs: whether the controller pauses trainings, counts their epochs and replicates leaders itself;
            `make` then takes `schedule` and `scalarize`.
        takes_prior: whether it has a predictor with the option `prior`; `make` then takes `lessons`.
    """

    make: Callable[..., Controller]
    options: type[ControllerOptions]
    summary: str
    takes_costs: bool = False
    counts_epochs: bool = False
    takes_prior: bool = False


CONTROLLERS: dict[str, ControllerEntry] = {
    "predictor-guided": ControllerEntry(
        PredictorGuidedEvolution,
        PredictorGuidedOptions,
        "Predictor-guided evolution: makes many children per proposal, of which a Gaussian process selects one.",
        takes_prior=True,
    ),
    "freeze-thaw": ControllerEntry(
        FreezeThaw,
        FreezeThawOptions,
        "Freeze-thaw search: pauses trainings, and continues or repeats those of which the predictor expects most.",
        counts_epochs=True,
        takes_prior=True,
    ),
    "evolution": ControllerEntry(
        RegularizedEvolution,
        EvolutionOptions,
        "Regularized evolution: edits the winner of a tournament among the latest results.",
    ),
    "local": ControllerEntry(LocalSearch, LocalOptions, "Local search: edits one of the best networks so far."),
    "reinforce": ControllerEntry(
        Reinforce, ReinforceOptions, "REINFORCE: samples a policy that follows the reward, as in the SpineNet paper."
    ),
    "ppo": ControllerEntry(Ppo, PpoOptions, "PPO: samples a policy that takes clipped steps on batches of results."),
    "tpe": ControllerEntry(
        OptunaSearch, TpeOptions, "Optuna's samplers: TPE, or a Gaussian process.", takes_costs=True
    ),
    "random": ControllerEntry(
        RandomSearch, RandomOptions, "Random search: draws each network afresh, without dead blocks."
    ),
    "plan": ControllerEntry(PlannedTrials, PlanOptions, "Trains given architectures and searches for none."),
}
"""Every controller by name, the default first."""


def check_controller_name(name: str) -> None:
    """Raise UserError if this version has no controller of this name."""
    if name in REMOVED_CONTROLLERS:
        raise UserError(REMOVED_CONTROLLERS[name])
    if name not in CONTROLLERS:
        raise UserError(f"controller {name!r} is unknown{nearest(name, CONTROLLERS)}")


def make_controller(
    name: str,
    space: SearchSpace,
    *,
    seed: int = 0,
    costs: Costs | None = None,
    feasible: Feasible | None = None,
    schedule: Schedule | None = None,
    scalarize: ScalarizedObjective | None = None,
    lessons: Lessons | None = None,
    **options: Any,
) -> Controller:
    """Make a controller. Raises UserError.

    Args:
        name: one of CONTROLLERS.
        space: search space.
        seed: seed of the run.
        costs: cost figures of a genotype, which are minimised beside the objective: the search is for the Pareto front.
            A controller for a single objective gets ranks as objectives (`RankedByFront`).
        feasible: whether a genotype may be proposed.
        schedule: what the search may spend, for a controller that counts epochs.
        scalarize: objective that is searched for; None for AP itself.
        lessons: what the option `prior` stands for, if it was read already; None to read it.
        options: fields of the controller's options; the others have their defaults.
    """
    name, options = current_name(name), current_options(options)
    check_controller_name(name)
    entry = CONTROLLERS[name]
    known = [field.name for field in dataclasses.fields(entry.options)]
    for option in options:
        if option not in known:
            raise UserError(f"controller {name!r} has no option {option!r}{nearest(option, known)}")
    given = entry.options(**options)
    make = functools.partial(entry.make, lessons=lessons) if entry.takes_prior else entry.make
    if entry.counts_epochs:
        if costs is not None:
            raise UserError(
                f"controller {name!r} searches for one objective, and not for the front of AP and cost; set "
                "controller.name to predictor-guided, or objective.kind to soft"
            )
        return make(space, given, seed=seed, feasible=feasible, schedule=schedule, scalarize=scalarize)
    if costs is None:
        controller = make(space, given, seed=seed, feasible=feasible)
        return controller if scalarize is None else Scalarized(controller, scalarize)
    if entry.takes_costs:
        return make(space, given, costs=costs, seed=seed, feasible=feasible)
    return RankedByFront(make(space, given, seed=seed, feasible=feasible), costs)
