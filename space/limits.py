"""Limits on the cost of an architecture, computed for the detector that will be deployed."""

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
"""Number and length of the descents that look for the cheapest genotype."""


@dataclass(frozen=True, slots=True)
class CostTarget:
    """The detector in which the cost of an architecture is computed.

    Attributes:
        name: name of the detector, such as "49@640".
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
    """Upper limits on the cost of a detector; calling it with a genotype tells whether the genotype is within them.

    Attributes:
        target: detector in which costs are computed.
        max_params, max_madds: trainable parameters, and multiply-adds for one image; None for no limit.
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
        """Whether a genotype is within the limits."""
        return self.excess(genotype) <= 1

    def excess(self, genotype: Genotype) -> float:
        """Return the larger of the costs, each as a multiple of its limit; at most 1 if within the limits."""
        cost = self.target.cost(genotype)
        limits = ((cost.params, self.max_params), (cost.madds, self.max_madds))
        return max((value / limit for value, limit in limits if limit is not None), default=0.0)

    def fitted(
        self, space: SearchSpace, genotype: Genotype, rng: np.random.Generator, *, max_edits: int = MAX_EDITS
    ) -> Genotype:
        """Edit a genotype at random, one or two edits at a time, keeping edits that bring it closer to the limits.

        It stops within the limits, or outside them after `max_edits`. No edit may add a dead block: dead blocks cost
        nothing, so the descent would always produce them.
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
        """Raise UserError, with the cost of the cheapest known architecture, if none is known within the limits.

        The search descends from random architectures without dead blocks, with the same seeds each time.
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
        """The limits in words, for messages."""
        limits = ((self.max_params, 1e6, "M parameters"), (self.max_madds, 1e9, "G multiply-adds"))
        said = [f"{limit / unit:.4g} {name}" for limit, unit, name in limits if limit is not None]
        return f"{' and '.join(said)} at {self.target.name}"
