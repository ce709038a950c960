"""Who proposes, as configured: a controller by name, and the options of each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from spinenas.controller.optuna_sampler import Sampler
from spinenas.controller.policy.policies import PolicyKind
from spinenas.controller.random_search import Control, MaddsBand
from spinenas.controller.registry import CONTROLLERS
from spinenas.space.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class EvolutionConfig:
    """Options of the controller "evolution".

    Attributes:
        population_size: None for a quarter of the budget, at most 64.
        tournament_size: None for half of the population, at least 2.
        max_edits: a child differs from its parent by 1 to so many edits.
    """

    population_size: int | None = None
    tournament_size: int | None = None
    max_edits: int = 1


@dataclass(frozen=True, slots=True)
class ScreenedConfig:
    """Options of the controller "screened".

    Attributes:
        population_size, tournament_size, max_edits: as of "evolution".
        num_random: random proposals before anything is screened; None for a quarter of the budget, at most 60.
        num_candidates: children of each proposal, of which the predictor takes the best.
        optimism: how much uncertainty counts in their favour.
    """

    population_size: int = 64
    tournament_size: int = 16
    max_edits: int = 3
    num_random: int | None = None
    num_candidates: int = 150
    optimism: float = 0.5


@dataclass(frozen=True, slots=True)
class HybridConfig:
    """Options of the controller "hybrid".

    Attributes:
        policy: "factorised", a logit for each option, or "recurrent", the published LSTM.
        learning_rate: of Adam; None for what suits the policy and a thousand trials.
        batch_size: results that the policy learns from at a time.
        num_leaders: networks whose edits are candidates.
        max_edits: such a candidate differs from its leader by 1 to so many edits.
        num_random: random proposals before anything is screened; None for a quarter of the budget, at most 20.
        num_candidates: of each proposal, of which the predictor takes the best.
        policy_share: of the candidates, how many are samples of the policy.
        optimism: how much uncertainty counts in a candidate's favour.
    """

    policy: PolicyKind = "factorised"
    learning_rate: float | None = None
    batch_size: int = 20
    num_leaders: int = 10
    max_edits: int = 3
    num_random: int | None = None
    num_candidates: int = 200
    policy_share: float = 0.5
    optimism: float = 0.5


@dataclass(frozen=True, slots=True)
class RandomConfig:
    """Options of the controller "random".

    Attributes:
        control: "uniform", "alive" (no dead blocks) or "madds-band" (of equal cost).
        madds_band: for "madds-band" alone.
    """

    control: Control = "alive"
    madds_band: MaddsBand | None = None


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """Options of the controller "local".

    Attributes:
        num_parents: how many of the best networks have children.
        num_random: random proposals before that; None for a quarter of the budget, at most 16.
    """

    num_parents: int = 8
    num_random: int | None = None


@dataclass(frozen=True, slots=True)
class ReinforceConfig:
    """Options of the controller "reinforce".

    Attributes:
        policy: "recurrent", the published LSTM, or "factorised", a logit for each option.
        learning_rate: of Adam; None for what suits the policy and a thousand trials.
        batch_size: results that the policy learns from at a time.
        baseline_decay: what the moving average of the objective keeps at each result.
        entropy_weight: of the policy's entropy beside the objective.
        temperature, tanh_constant: logits are divided by the one and bounded by the other.
    """

    policy: PolicyKind = "recurrent"
    learning_rate: float | None = None
    batch_size: int = 1
    baseline_decay: float = 0.95
    entropy_weight: float = 1e-5
    temperature: float = 1.0
    tanh_constant: float | None = None


@dataclass(frozen=True, slots=True)
class PpoConfig:
    """Options of the controller "ppo".

    Attributes:
        policy: "factorised", a logit for each option, or "recurrent", the published LSTM.
        learning_rate: of Adam; None for what suits the policy and a thousand trials.
        batch_size: results that the policy learns from at a time.
        steps_per_batch: of Adam, on each batch of results.
        clip: how far from 1 a change of probability is rewarded.
        entropy_weight: of the policy's entropy beside normalised advantages.
        temperature, tanh_constant: logits are divided by the one and bounded by the other.
    """

    policy: PolicyKind = "factorised"
    learning_rate: float | None = None
    batch_size: int = 10
    steps_per_batch: int = 4
    clip: float = 0.2
    entropy_weight: float = 1e-5
    temperature: float = 1.0
    tanh_constant: float | None = None


@dataclass(frozen=True, slots=True)
class TpeConfig:
    """Options of the controller "tpe".

    Attributes:
        sampler: "tpe", or "gp", whose proposals take seconds.
        multivariate: one estimator for all decisions instead of one for each.
        num_random: results before the sampler begins.
    """

    sampler: Sampler = "tpe"
    multivariate: bool = False
    num_random: int = 10


@dataclass(frozen=True, slots=True)
class PlanConfig:
    """Options of the controller "plan".

    Attributes:
        architectures: texts of genotypes, or names of baselines such as "r50-fpn".
        replicates: trainings of each, with different seeds.
        stage: purpose of the trainings: "search" for a study of the task; "validate" to measure on val too; "full" to
            keep the weights as well.
    """

    architectures: tuple[str, ...] = ()
    replicates: int = 1
    stage: str = "search"

    def __post_init__(self) -> None:
        if self.stage not in ("search", "validate", "full"):
            raise UserError(f"controller.plan.stage is {self.stage!r}; it is search, validate or full")


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """Who proposes.

    Attributes:
        name: one of `spinenas.controller.CONTROLLERS`.
        evolution, screened, hybrid, random, local, reinforce, ppo, tpe, plan: options of each; those of the ones not
            named are not used.
    """

    name: str = "screened"
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    screened: ScreenedConfig = field(default_factory=ScreenedConfig)
    hybrid: HybridConfig = field(default_factory=HybridConfig)
    random: RandomConfig = field(default_factory=RandomConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    tpe: TpeConfig = field(default_factory=TpeConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)

    def __post_init__(self) -> None:
        if self.name not in CONTROLLERS:
            raise UserError(f"controller.name is {self.name!r}, which is unknown{nearest(self.name, CONTROLLERS)}")

    def options(self) -> dict[str, Any]:
        """Keyword arguments for `make_controller`."""
        chosen = getattr(self, self.name)
        return {item.name: getattr(chosen, item.name) for item in dataclasses.fields(chosen)}
