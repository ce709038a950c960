"""Random search: each proposal is drawn independently of the results; the baseline for other controllers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from spinenas.controller.base import ControllerOptions, Proposal
from spinenas.controller.ledger import Candidate
from spinenas.controller.ledger_search import LedgerSearch, Sources
from spinenas.results.record import Evaluation, Failure
from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks
from spinenas.space.sampling import sample_in_madds_band, sample_without_dead_blocks
from spinenas.space.scaling import Scaling

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


class RandomSearch(LedgerSearch[RandomOptions]):
    """Proposes random networks, none twice. Arguments are those of `LedgerSearch`."""

    default_options = RandomOptions
    stream = "controller/random"

    def _sources(self, rng: np.random.Generator) -> Sources:
        return ()

    def _learn(self, genotype: Genotype, result: Evaluation | Failure, proposal: Proposal | None) -> None:
        """Ignore the result."""

    def _random(self, rng: np.random.Generator) -> Iterator[Candidate]:
        control = self._options.control
        while True:
            yield Candidate(self._sample(rng), "random" if control == "uniform" else f"random:{control}")

    def _sample(self, rng: np.random.Generator) -> Genotype:
        band = self._options.madds_band
        if band is not None:
            return sample_in_madds_band(
                self._space,
                rng,
                scaling=band.scaling,
                image_size=band.image_size_pixels,
                low=band.low,
                high=band.high,
            )
        if self._options.control == "alive":
            return sample_without_dead_blocks(self._space, rng)
        return self._space.sample(rng)

    def _admits(self, genotype: Genotype) -> bool:
        """Whether a genotype that `_sample` did not draw satisfies the control."""
        band = self._options.madds_band
        return (self._options.control == "uniform" or not dead_blocks(genotype)) and (band is None or genotype in band)
