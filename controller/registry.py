"""The controllers by name, for configurations and the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from spinenas.controller.base import Controller
from spinenas.controller.evolution import RegularizedEvolution
from spinenas.controller.ledger import Feasible
from spinenas.controller.local_search import LocalSearch
from spinenas.controller.objectives import Costs, RankedByFront
from spinenas.controller.optuna_sampler import OptunaSearch
from spinenas.controller.plan import PlannedTrials
from spinenas.controller.policy.ppo import Ppo
from spinenas.controller.policy.reinforce import Reinforce
from spinenas.controller.predictor.hybrid import Hybrid
from spinenas.controller.predictor.predictor_guided_evolution import ScreenedEvolution
from spinenas.controller.random_search import RandomSearch
from spinenas.space.errors import UserError, nearest
from spinenas.space.search_space import SearchSpace

CONTROLLERS: dict[str, Callable[..., Controller]] = {
    "random": RandomSearch,
    "evolution": RegularizedEvolution,
    "screened": ScreenedEvolution,
    "hybrid": Hybrid,
    "local": LocalSearch,
    "reinforce": Reinforce,
    "ppo": Ppo,
    "tpe": OptunaSearch,
    "plan": PlannedTrials,
}
"""What makes a controller, by name; its keyword arguments but for NO_OPTIONS are its options."""

NO_OPTIONS = ("space", "seed", "costs", "feasible")
"""What a search gives every controller, or each that takes it."""


def make_controller(
    name: str,
    space: SearchSpace,
    *,
    seed: int = 0,
    objectives: tuple[str, ...] = ("AP",),
    costs: Costs | None = None,
    feasible: Feasible | None = None,
    **options: Any,
) -> Controller:
    """Make a controller with the defaults of what is not given. Raises UserError.

    Args:
        name: one of CONTROLLERS.
        space: what to search.
        seed: of the run.
        objectives: ("AP",), which is what results tell.
        costs: what shall be low beside it, so that the front of both is searched for: by the controller itself where it
            knows several objectives, by the others as `RankedByFront` puts it.
        feasible: whether a genotype may be proposed.
        options: keyword arguments of the class behind the name.
    """
    if name not in CONTROLLERS:
        raise UserError(f"controller {name!r} is unknown{nearest(name, CONTROLLERS)}")
    if tuple(objectives) != ("AP",):
        raise UserError(
            f"objectives are {tuple(objectives)}; results tell ('AP',), and what is to be low beside it are costs"
        )
    make = CONTROLLERS[name]
    parameters = inspect.signature(make).parameters
    known = [parameter for parameter in parameters if parameter not in NO_OPTIONS]
    for option in options:
        if option not in known:
            raise UserError(f"controller {name!r} has no option {option!r}{nearest(option, known)}")
    options |= {"seed": seed, "feasible": feasible}
    if costs is None:
        return make(space, **options)
    if "costs" in parameters:
        return make(space, costs=costs, **options)
    return RankedByFront(make(space, **options), costs)
