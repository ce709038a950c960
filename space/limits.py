"""What an architecture may cost, counted in the detector it is meant for; it knows nothing of how good anything is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spinenas.space.baseline import Architecture
from spinenas.space.cost import MIN_IMAGE_SIZE, Cost, retinanet_cost
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks
from spinenas.space.mutate import random_edit
from spinenas.space.published import PUBLISHED
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.scaling import SCALINGS
from spinenas.space.search_space import SearchSpace

MAX_EDITS = 300
"""Edits tried to bring a proposal within its limits."""

NUM_STARTS, EDITS_PER_START = 6, 3000
"""Of the descents that look for the cheapest genotype."""


@dataclass(frozen=True, slots=True)
class CostTarget:
    """The detector that architectures are counted in.

    Attributes:
        name: what it is called, such as "49@640".
        detector: keyword arguments of `retinanet_cost`: scaling, image size and head.
    """

    name: str
    detector: Mapping[str, Any]

    @classmethod
    def published(cls, text: str) -> CostTarget:
        """Return the RetinaNet of a published scaling at an image size, given as "49@640". Raises UserError."""
        name, at, pixels = text.partition("@")
        if not at or not pixels.isascii() or not pixels.isdigit():
            raise UserError(f"target {text!r} is not of the form SCALING@PIXELS, such as 49@640")
        if name not in SCALINGS:
            raise UserError(f"target {text!r}: no published scaling is called {name!r}{nearest(name, SCALINGS)}")
        if int(pixels) < MIN_IMAGE_SIZE:
            raise UserError(f"target {text!r} has images of {pixels} pixels; give at least {MIN_IMAGE_SIZE}")
        return cls(text, PUBLISHED[f"spinenet-{name.lower()}"].detector | {"image_size": int(pixels)})

    def cost(self, architecture: Architecture) -> Cost:
        """Parameters and multiply-adds of the detector with this backbone."""
        return retinanet_cost(architecture, **self.detector)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a detector may cost at most; calling it says whether one with a given backbone does not exceed that.

    Attributes:
        target: what is counted.
        max_params, max_madds: trainable parameters, and multiply-adds for one image; None for any number.
    """

    target: CostTarget
    max_params: float | None = None
    max_madds: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_params", "max_madds"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise UserError(f"{name} is {limit}; it is a number above 0")

    def __call__(self, genotype: Genotype) -> bool:
        """Whether a genotype is within them."""
        return self.excess(genotype) <= 1

    def excess(self, genotype: Genotype) -> float:
        """Return the larger of the costs, each as a multiple of its limit; 1 and below is within them."""
        cost = self.target.cost(genotype)
        limits = ((cost.params, self.max_params), (cost.madds, self.max_madds))
        return max((value / limit for value, limit in limits if limit is not None), default=0.0)

    def fitted(
        self, space: SearchSpace, genotype: Genotype, rng: np.random.Generator, *, max_edits: int = MAX_EDITS
    ) -> Genotype:
        """Return a genotype after random edits, one or two at a time, that brought it nearer to the limits.

        It stops within them, or after `max_edits` still outside. No edit may add a block without effect: it would cost
        nothing, and be the cheapest way to anywhere.
        """
        excess, num_dead = self.excess(genotype), len(dead_blocks(genotype))
        for _ in range(max_edits):
            if excess <= 1:
                break
            edited = random_edit(space, genotype, rng)[1]
            if rng.integers(2):
                edited = random_edit(space, edited, rng)[1]
            if (edited_excess := self.excess(edited)) < excess and len(dead_blocks(edited)) <= num_dead:
                genotype, excess = edited, edited_excess
        return genotype

    def check(self, space: SearchSpace) -> None:
        """Raise UserError, with what the cheapest known architecture costs, unless one is known within the limits.

        It is looked for among architectures without dead blocks, by descents from random ones, the same each time.
        """
        best: Genotype | None = None
        for start in range(NUM_STARTS):
            rng = generator(0, "space/limits", start)
            found = self.fitted(space, sample_without_dead_blocks(space, rng), rng, max_edits=EDITS_PER_START)
            if self(found):
                return
            best = min((best or found), found, key=self.excess)
        assert best is not None, "there is at least one start"
        cost = self.target.cost(best)
        raise UserError(
            f"no architecture of {space.name} without dead blocks is known within {self.words()}: the cheapest known "
            f"has {cost.params / 1e6:.4g} M parameters and {cost.madds / 1e9:.4g} G multiply-adds; raise the limit"
        )

    def words(self) -> str:
        """What they are, for people."""
        limits = ((self.max_params, 1e6, "M parameters"), (self.max_madds, 1e9, "G multiply-adds"))
        said = [f"{limit / unit:.4g} {name}" for limit, unit, name in limits if limit is not None]
        return f"{' and '.join(said)} at {self.target.name}"
