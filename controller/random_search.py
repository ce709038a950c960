"""Random search: each proposal is drawn independently of the results; the baseline for other controllers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from spinenas.controller.base import ControllerOptions, Proposal
from spinenas.controller.ledger import Candidate, Feasible, Ledger
from spinenas.results.record import Evaluation, Failure
from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_in_madds_band, sample_without_dead_blocks
from spinenas.space.scaling import Scaling
from spinenas.space.search_space import SearchSpace

Control = Literal["uniform", "alive", "madds-band"]


@dataclass(frozen=True, slots=True)
class MaddsBand:
    """A range of backbone multiply-adds.

    Attributes:
        scaling, image_size_pixels: scaling and image size to count at.
        low, high: bounds of the multiply-adds of one image, both included.
    """

    scaling: Scaling
    image_size_pixels: int
    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise UserError(f"the multiply-adds band is {self.low} to {self.high}; it needs 0 <= low <= high")

    def __contains__(self, genotype: Genotype) -> bool:
        cost = backbone_cost(genotype, self.scaling, self.image_size_pixels)
        return self.low <= cost.madds <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomOptions(ControllerOptions):
    """Options of the controller "random".

    Attributes:
        control: "alive" draws every decision uniformly among genotypes without dead blocks. "uniform" draws among all
            genotypes, as published; more than half of them have a dead block, so that a search beats it by avoiding
            these alone. "madds-band" draws as "alive" does, within `madds_band`, for equal cost.
        madds_band: range of multiply-adds, for "madds-band" only.
    """

    control: Control = "alive"
    madds_band: MaddsBand | None = None

    def __post_init__(self) -> None:
        if self.control not in get_args(Control):
            raise UserError(f"random control {self.control!r} is unknown{nearest(self.control, get_args(Control))}")
        if (self.control == "madds-band") != (self.madds_band is not None):
            raise UserError(
                f"random control {self.control!r} with madds_band {self.madds_band}; the band belongs to "
                "'madds-band', give both or neither"
            )


class RandomSearch:
    """Proposes random networks, none twice.

    Args:
        space: search space.
        options: None for the defaults.
        seed: seed of the run.
        feasible: whether a genotype may be proposed.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: RandomOptions | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        options = options or RandomOptions()
        self._space = space
        self._seed = seed
        self._control = options.control
        self._band = options.madds_band
        self._ledger = Ledger(space, feasible, rule=self._admits)

    def ask(self) -> Proposal | None:
        """Return a random network that was not proposed before. Raises SpaceExhausted."""
        rng = generator(self._seed, "controller/random", self._ledger.next_number)
        return self._ledger.propose(self._samples(rng), rng=rng)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Close a proposal; the result is ignored."""
        return self._ledger.finish(number) is not None

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Exclude an archived network from the proposals."""
        self._ledger.observe(genotype)

    def replay_ask(self, proposal: Proposal) -> None:
        """Adopt a recorded proposal."""
        self._ledger.adopt(proposal)

    def _samples(self, rng: np.random.Generator) -> Iterator[Candidate]:
        origin = "random" if self._control == "uniform" else f"random:{self._control}"
        while True:
            yield Candidate(self._sample(rng), origin)

    def _sample(self, rng: np.random.Generator) -> Genotype:
        if self._band is not None:
            band = self._band
            return sample_in_madds_band(
                self._space,
                rng,
                scaling=band.scaling,
                image_size=band.image_size_pixels,
                low=band.low,
                high=band.high,
            )
        if self._control == "alive":
            return sample_without_dead_blocks(self._space, rng)
        return self._space.sample(rng)

    def _admits(self, genotype: Genotype) -> bool:
        """Whether a genotype that `_sample` did not draw satisfies the control."""
        return (self._control == "uniform" or not dead_blocks(genotype)) and (
            self._band is None or genotype in self._band
        )
