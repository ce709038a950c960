"""Feature vectors of genotypes, for a predictor.

The seven groups are: level and kind of each block by place; connections by place; connections by level and kind;
chains of three blocks by level; figures of the graph; how direct the paths from the stem to each output are; and the
share of these paths that keep the detail of the output. A fixed sample of the space centres and scales each group, so
that two random genotypes are about as far apart in each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spinenas.space.genotype import MAX_LEVEL, Genotype
from spinenas.space.graph import PathFigures, built_graph, path_figures, sharp_shares
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace

Floats = NDArray[np.float64]

GROUPS = ("places", "connections", "pairs", "chains", "graph", "paths", "sharp")

NUM_REFERENCE = 256
"""Size of the sample that gives mean and scale."""

NUM_LEVELS = MAX_LEVEL + 1
_NUM_FIGURES = 8 + 3 * NUM_LEVELS
_NUM_PATH_FIGURES = len(PathFigures._fields) * NUM_LEVELS
_NUM_SHARES = NUM_LEVELS + 1


class Features:
    """Feature vectors of the genotypes of a space.

    Attributes:
        groups: slice of the vector that each of GROUPS takes.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._num_stem = len(space.stem)
        self._num_nodes = space.num_nodes
        self._kinds = {kind: number for number, kind in enumerate(space.kinds)}
        num_blocks, num_kinds = space.num_nodes - self._num_stem, len(space.kinds)
        sizes = (
            num_blocks * (NUM_LEVELS + num_kinds),
            num_blocks * space.num_nodes,
            2 * NUM_LEVELS * NUM_LEVELS * num_kinds,
            NUM_LEVELS**3,
            _NUM_FIGURES,
            _NUM_PATH_FIGURES,
            _NUM_SHARES,
        )
        ends = np.cumsum(sizes).tolist()
        self.groups = {name: slice(end - size, end) for name, size, end in zip(GROUPS, sizes, ends, strict=True)}
        self._size = ends[-1]
        rng = generator(0, "controller/features")
        sample = np.stack([self._raw(space.sample(rng)) for _ in range(NUM_REFERENCE)])
        self._mean, spread = sample.mean(axis=0), sample.std(axis=0)
        # Features that never occur in the sample keep a scale of 1, because a search may reach them.
        scale = np.ones(self._size)
        for figures in (self.groups["graph"], self.groups["paths"], self.groups["sharp"]):
            known = spread[figures]
            scale[figures] = np.divide(1.0, known, out=np.zeros_like(known), where=known > 1e-9)
        for where in self.groups.values():
            norm = math.sqrt(float(((sample[:, where] - self._mean[where]) * scale[where]).var(axis=0).sum()))
            scale[where] /= norm or 1.0
        self._scale = scale

    def __call__(self, genotypes: Sequence[Genotype]) -> Floats:
        """Return (number of genotypes, number of features)."""
        rows = np.stack([self._raw(genotype) for genotype in genotypes])
        rows -= self._mean
        rows *= self._scale
        return rows

    def _raw(self, genotype: Genotype) -> Floats:
        num_stem, num_nodes, num_kinds = self._num_stem, self._num_nodes, len(self._kinds)
        levels = [stem.level for stem in genotype.stem] + [block.level for block in genotype.blocks]
        places, connections, pairs, chains, _, paths, sharp = (where.start for where in self.groups.values())
        counted: list[int] = []
        depths = list(range(1, num_stem + 1))
        num_children = [0] * num_nodes
        jumps = ups = 0
        inputs: list[tuple[int, ...]] = [()] * num_stem
        for position, block in enumerate(genotype.blocks):
            level, kind, parents = block.level, self._kinds[block.kind], block.parents
            counted.append(places + position * (NUM_LEVELS + num_kinds) + level)
            counted.append(places + position * (NUM_LEVELS + num_kinds) + NUM_LEVELS + kind)
            side = 1 if block.is_output else 0
            depth = 0
            for parent in parents:
                above = levels[parent]
                counted.append(connections + position * num_nodes + parent)
                counted.append(pairs + ((side * NUM_LEVELS + above) * NUM_LEVELS + level) * num_kinds + kind)
                for grandparent in inputs[parent]:
                    counted.append(chains + (levels[grandparent] * NUM_LEVELS + above) * NUM_LEVELS + level)
                num_children[parent] += 1
                jumps += abs(above - level)
                ups += above > level
                depth = max(depth, depths[parent])
            depths.append(depth + 1)
            inputs.append(parents)
        features: Floats = np.bincount(counted, minlength=self._size).astype(np.float64)
        features[self.groups["graph"]] = self._figures(genotype, levels, depths, num_children, jumps, ups)
        graph = built_graph(genotype)
        for level, figures in path_figures(graph).items():
            features[paths + level : sharp : NUM_LEVELS] = figures
        shares = sharp_shares(graph)
        for level, share in shares.items():
            features[sharp + level] = share
        features[sharp + NUM_LEVELS] = min(shares.values())
        return features

    def _figures(
        self,
        genotype: Genotype,
        levels: list[int],
        depths: list[int],
        num_children: list[int],
        jumps: int,
        ups: int,
    ) -> list[float]:
        """Figures of the graph, without the merges of dangling blocks."""
        num_stem, num_nodes = self._num_stem, self._num_nodes
        ancestors = [1 << node for node in range(num_nodes)]  # bit sets; each node is its own ancestor
        depth_of, num_ancestors, ancestor_levels = [0.0] * NUM_LEVELS, [0.0] * NUM_LEVELS, [0.0] * NUM_LEVELS
        alive = 0
        for node, block in enumerate(genotype.blocks, start=num_stem):
            for parent in block.parents:
                ancestors[node] |= ancestors[parent]
            if block.is_output:
                alive |= ancestors[node]
                depth_of[block.level] = depths[node]
                num_ancestors[block.level] = ancestors[node].bit_count()
                seen = {levels[other] for other in range(num_nodes) if ancestors[node] >> other & 1}
                ancestor_levels[block.level] = len(seen)
        used = [node for node in range(num_nodes) if alive >> node & 1]
        return [
            max(depths),
            num_nodes - len(used),
            jumps,
            ups,
            max(num_children),
            sum(count == 0 for count in num_children),
            math.log(sum(4.0 ** -levels[node] for node in used)),
            sum(levels[node] for node in used) / len(used),
            *depth_of,
            *num_ancestors,
            *ancestor_levels,
        ]
