"""Fair random controls: random genotypes without dead blocks, or of a given cost.

More than half of all uniform draws from the SpineNet-49 space have a block that reaches no output, and backbones
differ 1.6-fold in multiply-adds. "Better than random" means little unless both are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spinenas.space.cost import ImageSize, backbone_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, dead_blocks, lost_levels
from spinenas.space.scaling import Scaling
from spinenas.space.search_space import SearchSpace

if TYPE_CHECKING:
    import numpy as np

MAX_DRAWS = 10_000
"""Draws before giving up; enough for a property that one draw in a thousand has."""


KEEPING_DRAWS = 300


def sample_without_dead_blocks(space: SearchSpace, rng: np.random.Generator) -> Genotype:
    """Draw uniformly (`SearchSpace.sample`) until every block reaches an output. Raises UserError."""
    for _ in range(MAX_DRAWS):
        genotype = space.sample(rng)
        if not dead_blocks(genotype):
            return genotype
    raise UserError(
        f"none of {MAX_DRAWS} draws from the search space {space.name!r} was without dead blocks; use another space"
    )


def sample_keeping_detail(space: SearchSpace, rng: np.random.Generator) -> Genotype:
    """Draw without dead blocks until each output has a path from the stem on which no block is coarser than the output.

    Returns the last draw if none of KEEPING_DRAWS does, as in a space without such genotypes. On real tables the levels
    lost otherwise are the best single predictor of AP (docs/experiment_log.md).
    """
    for _ in range(KEEPING_DRAWS):
        genotype = sample_without_dead_blocks(space, rng)
        if not any(lost_levels(built_graph(genotype)).values()):
            break
    return genotype


def sample_in_madds_band(
    space: SearchSpace,
    rng: np.random.Generator,
    *,
    scaling: Scaling,
    image_size: ImageSize,
    low: float,
    high: float,
) -> Genotype:
    """Draw without dead blocks until the backbone's multiply-adds are in [low, high]. Raises UserError."""
    if not low <= high:
        raise UserError(f"the band of multiply-adds is {low:g} to {high:g}; its low end comes first")
    seen = []
    for _ in range(MAX_DRAWS):
        genotype = sample_without_dead_blocks(space, rng)
        madds = backbone_cost(genotype, scaling, image_size).madds
        if low <= madds <= high:
            return genotype
        seen.append(madds)
    raise UserError(
        f"none of {MAX_DRAWS} draws from the search space {space.name!r} had a backbone of {low:g} to "
        f"{high:g} multiply-adds; they had {min(seen):g} to {max(seen):g}, choose a band there"
    )
