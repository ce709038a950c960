"""What to try next: controllers that propose genotypes and learn from results."""

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.controller.choices import CONTROLLERS, make_controller
from spinenas.controller.evolution import RegularizedEvolution
from spinenas.controller.plan import PlannedTrials
from spinenas.controller.random_search import MaddsBand, RandomSearch
from spinenas.controller.replicates import ReplicateLeaders

__all__ = [
    "CONTROLLERS",
    "Controller",
    "MaddsBand",
    "PlannedTrials",
    "Proposal",
    "RandomSearch",
    "RegularizedEvolution",
    "ReplicateLeaders",
    "SpaceExhausted",
    "make_controller",
]
