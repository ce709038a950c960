"""Maps each genotype to exactly one sequence of categorical choices, for policies.

`SearchSpace.decisions` has a Lehmer digit and a level step for each level, so that many decision vectors give the same
genotype. With five base blocks of level 4 left, for example, five digits are equivalent. A policy that learned from the
canonical vector would leave the equivalent ones as likely as before. This sequence therefore chooses the levels
themselves, in this order:

    the level of each intermediate block, the level of each output block, then parents and kind of each block.

The prior of a level is the number of ways in which decisions give it, after the levels before it. It is 0 if no base
block is left for the level, and that is the only mask. A policy that adds nothing to the prior equals
`SearchSpace.sample`. Choices with one option are left out.

Shapes: K choices, O options of the largest, F features of the largest, B sequences.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spinenas.space.combinatorics import rank_pair, unrank_pair
from spinenas.space.genotype import BlockSpec, Genotype
from spinenas.space.search_space import SearchSpace

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of the sequence: it takes one of `num_options`, which are described by `num_features`.

    Each option is a feature of its own, except for a pair of parents, whose two features are the nodes.
    """

    name: str
    num_options: int
    num_features: int


class ChoiceSequence:
    """The choices of a search space, and genotypes as sequences of options."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._bases = Counter(space.intermediate_levels)
        offsets = space.level_offsets
        self._levels = sorted({base + step for base in self._bases for step in offsets})
        self._num_intermediate = len(space.intermediate_levels)
        self._ways: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {
            (): {tuple(self._bases.values()): 1},
        }
        self._priors: dict[tuple[bool, tuple[int, ...]], Floats] = {}
        all_choices = self._all_choices()
        self._kept = [index for index, choice in enumerate(all_choices) if choice.num_options > 1]
        self._num_all = len(all_choices)
        num_blocks = space.num_nodes - len(space.stem)
        self.choices = tuple(all_choices[index] for index in self._kept)
        self.num_levels = sum(index < num_blocks for index in self._kept)
        """Number of level choices, which come first. Their priors depend on earlier choices; others are constant."""

    @property
    def num_choices(self) -> int:
        return len(self.choices)

    @cached_property
    def max_options(self) -> int:
        return max(choice.num_options for choice in self.choices)

    @cached_property
    def max_features(self) -> int:
        return max(choice.num_features for choice in self.choices)

    @cached_property
    def features(self) -> Floats:
        """(K, F, O); 1 if an option has a feature."""
        features = np.zeros((self.num_choices, self.max_features, self.max_options))
        for number, choice in enumerate(self.choices):
            for option in range(choice.num_options):
                is_pair = choice.name.endswith("parents")
                features[number, unrank_pair(option) if is_pair else option, option] = 1.0
        return features

    @cached_property
    def constant_log_prior(self) -> Floats:
        """(K, O); 0 for options and -inf beyond them. Level choices need `level_log_prior` instead."""
        sizes = np.array([choice.num_options for choice in self.choices])
        return np.where(np.arange(self.max_options) < sizes[:, None], 0.0, -np.inf)

    def level_log_prior(self, number: int, options: Sequence[int]) -> Floats:
        """Return (O,), the log of how many decisions give each option of level choice `number`.

        Args:
            number: number of the choice, below `num_levels`.
            options: options taken by the choices before it.
        """
        full = [0] * self._kept[number]
        for index, option in zip(self._kept[:number], options, strict=False):
            full[index] = option
        is_output = self._kept[number] >= self._num_intermediate
        before = tuple(sorted(full[self._num_intermediate :] if is_output else full))
        prior = self._priors.get((is_output, before))
        if prior is None:
            weights = self._output_weights(before) if is_output else self._level_weights(before)
            padded = np.array(weights + [0] * (self.max_options - len(weights)), dtype=np.float64)
            with np.errstate(divide="ignore"):
                prior = self._priors[is_output, before] = np.log(padded / padded.sum())
        return prior

    def log_prior(self, options: Sequence[int]) -> Floats:
        """Return (K, O), the log prior at each choice of a whole sequence."""
        prior = self.constant_log_prior.copy()
        for number in range(self.num_levels):
            prior[number] = self.level_log_prior(number, options[:number])
        return prior

    def genotype(self, options: Sequence[int]) -> Genotype:
        """Return the genotype that takes these options, one for each of `choices`."""
        full = [0] * self._num_all
        for index, option in zip(self._kept, options, strict=True):
            full[index] = int(option)
        space, values = self._space, iter(full)
        levels = [self._levels[next(values)] for _ in range(self._num_intermediate)]
        levels += [space.output_levels[next(values)] for _ in space.output_levels]
        blocks = []
        for node, level in enumerate(levels, start=len(space.stem)):
            first = space.parent_candidates(node).start
            parents = tuple(first + parent for parent in unrank_pair(next(values)))
            blocks.append(BlockSpec(level, space.kinds[next(values)], parents, node >= space.first_output))
        return Genotype(tuple(blocks), space.stem)

    def options(self, genotype: Genotype) -> list[int]:
        """Return the options that a genotype of the space takes."""
        space = self._space
        full = [self._levels.index(block.level) for block in genotype.blocks[: self._num_intermediate]]
        full += [space.output_levels.index(block.level) for block in genotype.blocks[self._num_intermediate :]]
        for node, block in enumerate(genotype.blocks, start=len(space.stem)):
            first = space.parent_candidates(node).start
            full.append(rank_pair(block.parents[0] - first, block.parents[1] - first))
            full.append(space.kinds.index(block.kind))
        return [full[index] for index in self._kept]

    def _all_choices(self) -> list[Choice]:
        space = self._space
        choices = []
        for node in range(len(space.stem), space.num_nodes):
            count = len(self._levels) if node < space.first_output else len(space.output_levels)
            choices.append(Choice(f"block {node} level", count, count))
        for node in range(len(space.stem), space.num_nodes):
            nodes = len(space.parent_candidates(node))
            choices.append(Choice(f"block {node} parents", math.comb(nodes, 2), nodes))
            choices.append(Choice(f"block {node} kind", len(space.kinds), len(space.kinds)))
        return choices

    def _output_weights(self, before: tuple[int, ...]) -> list[int]:
        return [int(option not in before) for option in range(len(self._space.output_levels))]

    def _level_weights(self, before: tuple[int, ...]) -> list[int]:
        """Count pairs of a remaining base block and a step by the level they give, over all ways so far."""
        weights = [0] * len(self._levels)
        for left, ways in self._ways_to(before).items():
            for base, count in zip(self._bases, left, strict=True):
                for step in self._space.level_offsets:
                    weights[self._levels.index(base + step)] += count * ways
        return weights

    def _ways_to(self, options: tuple[int, ...]) -> dict[tuple[int, ...], int]:
        """Return the number of ways in which base blocks take these levels, by the remaining count of each base level.

        The order of the levels does not matter, so a sorted tuple stands for all its permutations.
        """
        if options not in self._ways:
            level = self._levels[options[-1]]
            ways: Counter[tuple[int, ...]] = Counter()
            for left, count in self._ways_to(options[:-1]).items():
                for place, base in enumerate(self._bases):
                    if left[place] and level - base in self._space.level_offsets:
                        ways[(*left[:place], left[place] - 1, *left[place + 1 :])] += count * left[place]
            self._ways[options] = dict(ways)
        return self._ways[options]
