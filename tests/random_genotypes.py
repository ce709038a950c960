"""Random valid genotypes of no particular space, for properties that hold for every genotype."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spinenas.space.genotype import BlockKind, BlockSpec, Genotype, StemBlock


def random_genotype(
    rng: np.random.Generator,
    *,
    num_blocks: int = 10,
    levels: Sequence[int] = (2, 3, 4, 5),
    kinds: Sequence[BlockKind] = (BlockKind.BOTTLENECK, BlockKind.RESIDUAL),
    output_share: float = 0.3,
) -> Genotype:
    """Draw a genotype with one to three stem blocks; parents and outputs are anywhere."""

    def any_kind() -> BlockKind:
        return kinds[rng.integers(len(kinds))]

    stem = tuple(StemBlock(2, any_kind()) for _ in range(rng.integers(1, 4)))
    free = set(levels)
    blocks = []
    for node in range(len(stem), len(stem) + num_blocks):
        level = int(rng.choice(levels))
        is_last = node == len(stem) + num_blocks - 1
        is_output = level in free and bool(rng.random() < output_share or is_last)
        if is_output:
            free.discard(level)
        num_parents = min(node, 1 + int(rng.random() < 0.8))
        parents = tuple(sorted(int(parent) for parent in rng.choice(node, size=num_parents, replace=False)))
        blocks.append(BlockSpec(level, any_kind(), parents, is_output))
    return Genotype(tuple(blocks), stem)
