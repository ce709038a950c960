"""Synthetic objectives of genotypes that take microseconds, for comparing controllers.

There are three families. None is computed from the features of the predictor.

    edges: a weight for each connection between blocks, which are named by level and rank within the level; weights for
        the name and the kind at each place; weights for 25 combinations of three connections; and penalties for dead
        blocks and for shallow or deep graphs.
    nk: each node of the built network contributes a random figure that depends on the node and all its inputs, and one
        for each single input (Kauffman's NK model). Figures belong to the properties of a block and not to its place,
        so that the landscape is rugged and still has slopes. Genotypes of the same network have the same value.
    flow: a small random signal runs through the graph. A block mixes its inputs and applies tanh. Resampling damps the
        signal at each level. Fixed weights read the outputs.

True values are in standard deviations over random networks without dead blocks, above their mean. A training measures
0.1 + 0.05 times that, with noise that grows with the value, and never less than 0. Some trainings fail. `curves.py` has
what a training measures before its end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.search.controller_bench.curves import NUM_EPOCHS, SLOW_SHARE, early_aps, evaluation_up_to
from spinenas.search.controller_bench.wl_labels import node_label
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import MAX_LEVEL, MIN_LEVEL, BlockKind, Genotype
from spinenas.space.graph import built_graph, dead_blocks, depth, network_key
from spinenas.space.random_streams import generator, seed_for
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

NUM_REFERENCE = 300
"""Number of random networks that give mean and spread."""

MEAN_AP, AP_SPREAD = 0.1, 0.05
"""Mean and standard deviation over trainings of random networks; one in forty is at the minimum of 0."""

FAILURE_SHARE = 0.05

FIRST_CROSSING = 100_000
"""Number of the first landscape that shifts the early epochs of others; comparisons use lower ones."""

Floats = NDArray[np.float64]
Score = Callable[[Genotype], float]


@dataclass(frozen=True)
class Landscape:
    """A true value for each genotype of a space.

    Args:
        name: family and number, such as "nk-3".
        space: search space of its genotypes.
        score: returns the value on an arbitrary scale.
        crossing: landscape whose values shift the early epochs of each training (`curves.CROSSING`); None for curves
            that keep their order.
    """

    name: str
    space: SearchSpace
    score: Score = field(repr=False)
    crossing: Landscape | None = None
    num_epochs: int = NUM_EPOCHS

    @cached_property
    def _reference(self) -> tuple[float, float]:
        rng = generator(0, f"landscape/reference/{self.name}")
        scores = [self.score(sample_without_dead_blocks(self.space, rng)) for _ in range(NUM_REFERENCE)]
        return float(np.mean(scores)), float(np.std(scores))

    def value(self, genotype: Genotype) -> float:
        """Return the true value, in standard deviations above the mean of random networks."""
        mean, spread = self._reference
        return (self.score(genotype) - mean) / spread

    def train(
        self, genotype: Genotype, replicate: int, *, seed: int, noise: float, until: int | None = None
    ) -> Evaluation | Failure:
        """Return the result of a training, which depends on seed, network and replicate. See `measured` for `noise`.

        With `until`, it pauses after that epoch. A training that fails does so in any epoch with equal probability.
        """
        name = f"{self.name}/{network_key(genotype)}"
        rng = generator(seed, f"bench/noise/{name}", replicate)
        early = generator(seed, f"bench/curve/{name}", replicate)
        failure, failing_epoch = _failure(rng), int(early.integers(1, NUM_EPOCHS + 1))
        if failure is not None and failing_epoch <= (until or NUM_EPOCHS):
            return failure
        value, deviation = self.value(genotype), float(rng.normal())
        aps = early_aps(
            max(0.0, MEAN_AP + AP_SPREAD * value),
            noise=AP_SPREAD * _noise_at(value, noise),
            common=deviation,
            shift=0.0 if self.crossing is None else AP_SPREAD * self.crossing.value(genotype),
            is_slow=bool(generator(0, f"bench/slow/{name}").random() < SLOW_SHARE),
            rng=early,
        )
        return evaluation_up_to(until, [*aps, _final_ap(value, noise, deviation)])


def measured(value: float, *, noise: float, rng: np.random.Generator) -> Evaluation | Failure:
    """Return the result of training a network with this true value to the end.

    Args:
        value: in standard deviations over random networks.
        noise: standard deviation of a training of a mean network, in the same unit. It is half as large at values of -2
            and below, and 1.5 times as large at +2 and above.
        rng: generator for this training.

    Half of the failures are diverged networks, half are lost workers.
    """
    return _failure(rng) or Evaluation(_final_ap(value, noise, float(rng.normal())))


def _failure(rng: np.random.Generator) -> Failure | None:
    if rng.random() >= FAILURE_SHARE:
        return None
    kind = FailureKind.DIVERGED if rng.random() < 0.5 else FailureKind.WORKER_LOST
    return Failure(kind, "simulated failure")


def _noise_at(value: float, noise: float) -> float:
    return noise * (1 + float(np.clip(value, -2, 2)) / 4)


def _final_ap(value: float, noise: float, deviation: float) -> float:
    return max(0.0, MEAN_AP + AP_SPREAD * (value + _noise_at(value, noise) * deviation))


def make_landscape(family: str, number: int, space: SearchSpace) -> Landscape:
    """Return one landscape of a family, the same in every process. Raises UserError."""
    if family not in FAMILIES:
        raise UserError(f"landscape family {family!r} is unknown{nearest(family, FAMILIES)}")
    return Landscape(f"{family}-{number}", space, FAMILIES[family](number, space))


def with_crossing_curves(landscape: Landscape, number: int) -> Landscape:
    """Return a landscape with the same final values, whose early epochs also follow a landscape of their own."""
    return replace(landscape, crossing=make_landscape("nk", FIRST_CROSSING + number, landscape.space))


def _edges(number: int, space: SearchSpace) -> Score:
    draws = normal_figures(f"edges-{number}")
    rng = generator(number, "landscape/edges")
    samples = [sample_without_dead_blocks(space, rng) for _ in range(25)]
    triples = []
    for genotype in samples:  # each from one network, so that every combination can occur
        found = _named_edges(genotype)
        triples.append(frozenset(found[place] for place in rng.choice(len(found), 3, replace=False)))

    def score(genotype: Genotype) -> float:
        edges = _named_edges(genotype)
        total = sum(draws("edge", *edge) for edge in edges)
        total += sum(draws("place", place, child) for place, (child, _) in enumerate(edges)) / 2
        total += sum(draws("kind", place, str(block.kind)) for place, block in enumerate(genotype.blocks))
        present = set(edges)
        total += 4.0 * sum(draws("triple", place) for place, triple in enumerate(triples) if triple <= present)
        return total - 1.5 * len(dead_blocks(genotype)) - 0.5 * abs(depth(genotype) - 11)

    return score


def _named_edges(genotype: Genotype) -> list[tuple[str, str]]:
    """Return connections as (child, parent); a block is named by its level and the number of that level before it."""
    seen: Counter[int] = Counter()
    names = []
    for level in [*(stem.level for stem in genotype.stem), *(block.level for block in genotype.blocks)]:
        names.append(f"{level}.{seen[level]}")
        seen[level] += 1
    num_stem = len(genotype.stem)
    return [
        (names[num_stem + place], names[parent])
        for place, block in enumerate(genotype.blocks)
        for parent in block.parents
    ]


def _nk(number: int, space: SearchSpace) -> Score:
    draws = normal_figures(f"nk-{number}")

    def score(genotype: Genotype) -> float:
        nodes = built_graph(genotype).nodes
        states = {node.node: node_label(node) for node in nodes}
        total = 0.0
        for node in nodes:
            own = states[node.node]
            inputs = sorted(states[parent] for parent in node.parents)
            merged = sorted(states[source] for source in node.merged)
            total += draws("all", own, *inputs, "+", *merged)
            total += sum(draws("one", own, parent) for parent in inputs)
        return total / math.sqrt(len(nodes))

    return score


def _flow(number: int, space: SearchSpace) -> Score:
    width = 6
    rng = generator(number, "landscape/flow")
    mixes = {
        (level, kind): rng.normal(0, 1.3 / math.sqrt(width), (width, width))
        for level in range(MIN_LEVEL, MAX_LEVEL + 1)
        for kind in BlockKind
    }
    biases = {key: rng.normal(0, 0.3, width) for key in mixes}
    start = rng.normal(0, 1, width)
    readers = {level: rng.normal(0, 1, width) for level in space.output_levels}
    kept = float(rng.uniform(0.6, 0.85))

    def score(genotype: Genotype) -> float:
        levels = [stem.level for stem in genotype.stem]
        signals: list[Floats] = []
        for stem in genotype.stem:
            key = (stem.level, stem.kind)
            signals.append(np.tanh(mixes[key] @ (signals[-1] if signals else start) + biases[key]))
        total = 0.0
        for block in genotype.blocks:
            key = (block.level, block.kind)
            given = np.zeros(width)
            for parent in block.parents:
                given += kept ** abs(levels[parent] - block.level) * signals[parent]
            signals.append(np.tanh(mixes[key] @ given + biases[key]))
            levels.append(block.level)
            if block.is_output:
                total += float(readers[block.level] @ signals[-1])
        return total - 0.3 * len(dead_blocks(genotype))

    return score


FAMILIES: dict[str, Callable[[int, SearchSpace], Score]] = {"edges": _edges, "nk": _nk, "flow": _flow}


def normal_figures(name: str) -> Callable[..., float]:
    """Return a function that returns a standard normal figure for each key, always the same one."""

    @cache
    def figure(*key: object) -> float:
        # The Box-Muller transform of two halves of 63 uniform bits.
        bits = seed_for(0, f"landscape/{name}/{'/'.join(map(str, key))}")
        radius = math.sqrt(-2 * math.log(((bits >> 31) + 1) / 2**32))
        return radius * math.cos(2 * math.pi * (bits & (2**31 - 1)) / 2**31)

    return figure
