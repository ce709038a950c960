"""What to try next: controllers that propose genotypes and learn from results."""

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.controller.evolution import RegularizedEvolution
from spinenas.controller.local_search import LocalSearch
from spinenas.controller.optuna_sampler import OptunaSearch
from spinenas.controller.plan import PlannedTrials
from spinenas.controller.policy.ppo import Ppo
from spinenas.controller.policy.reinforce import Reinforce
from spinenas.controller.predictor.hybrid import Hybrid
from spinenas.controller.predictor.predictor_guided_evolution import ScreenedEvolution
from spinenas.controller.random_search import MaddsBand, RandomSearch
from spinenas.controller.registry import CONTROLLERS, make_controller
from spinenas.controller.replicates import ReplicateLeaders

__all__ = [
    "CONTROLLERS",
    "Controller",
    "Hybrid",
    "LocalSearch",
    "MaddsBand",
    "OptunaSearch",
    "PlannedTrials",
    "Ppo",
    "Proposal",
    "RandomSearch",
    "RegularizedEvolution",
    "Reinforce",
    "ReplicateLeaders",
    "ScreenedEvolution",
    "SpaceExhausted",
    "make_controller",
]
