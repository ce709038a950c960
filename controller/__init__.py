"""Controllers: search algorithms that propose genotypes and learn from results."""

from spinenas.controller.base import Controller, ControllerOptions, Proposal, SpaceExhausted
from spinenas.controller.evolution import EvolutionOptions, RegularizedEvolution
from spinenas.controller.local_search import LocalOptions, LocalSearch
from spinenas.controller.optuna_sampler import OptunaSearch, TpeOptions
from spinenas.controller.plan import PlannedTrials, PlanOptions
from spinenas.controller.policy.ppo import Ppo, PpoOptions
from spinenas.controller.policy.reinforce import Reinforce, ReinforceOptions
from spinenas.controller.predictor.predictor_guided_evolution import PredictorGuidedEvolution, PredictorGuidedOptions
from spinenas.controller.random_search import MaddsBand, RandomOptions, RandomSearch
from spinenas.controller.registry import CONTROLLERS, ControllerEntry, make_controller
from spinenas.controller.replicates import ReplicateLeaders

__all__ = [
    "CONTROLLERS",
    "Controller",
    "ControllerEntry",
    "ControllerOptions",
    "EvolutionOptions",
    "LocalOptions",
    "LocalSearch",
    "MaddsBand",
    "OptunaSearch",
    "PlanOptions",
    "PlannedTrials",
    "Ppo",
    "PpoOptions",
    "PredictorGuidedEvolution",
    "PredictorGuidedOptions",
    "Proposal",
    "RandomOptions",
    "RandomSearch",
    "RegularizedEvolution",
    "Reinforce",
    "ReinforceOptions",
    "ReplicateLeaders",
    "SpaceExhausted",
    "TpeOptions",
    "make_controller",
]
