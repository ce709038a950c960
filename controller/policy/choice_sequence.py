"""A genotype as one sequence of categorical choices, one to one, for policies; nothing of how likely a policy finds it.

`SearchSpace.decisions` would do, and every vector of them is legal. But there a level is a Lehmer digit and a level
step, and many vectors mean one genotype: of five base blocks of level 4 that are left, five digits mean the same. A
policy that learned on the canonical one of them would leave the others as likely as they were. So the levels are chosen
here themselves, and each genotype has exactly one sequence:

    the level of each intermediate block, of each output block, then the parents and the kind of block after block.

A level's prior is the number of ways in which decisions give it, with the levels before it: 0 where no base block is
left for it, which is the only mask there is. A policy that adds nothing to the prior is `SearchSpace.sample`. Choices
with one option are left out.

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
    """One of the sequence: `num_options` of which it takes one, and by how many features they are told apart.

    An option is a feature of its own, but for a pair of parents, which has two: the nodes.
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
        every = self._every_choice()
        self._kept = [index for index, choice in enumerate(every) if choice.num_options > 1]
        self._num_all = len(every)
        num_blocks = space.num_nodes - len(space.stem)
        self.choices = tuple(every[index] for index in self._kept)
        self.num_levels = sum(index < num_blocks for index in self._kept)
        """The first so many choices are levels; their priors depend on those before, all others' are constant."""

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
        """(K, F, O), 1 where an option has a feature."""
        features = np.zeros((self.num_choices, self.max_features, self.max_options))
        for number, choice in enumerate(self.choices):
            for option in range(choice.num_options):
                is_pair = choice.name.endswith("parents")
                features[number, unrank_pair(option) if is_pair else option, option] = 1.0
        return features

    @cached_property
    def constant_log_prior(self) -> Floats:
        """(K, O), 0 for options and -inf beyond them; for levels before any other is chosen."""
        sizes = np.array([choice.num_options for choice in self.choices])
        return np.where(np.arange(self.max_options) < sizes[:, None], 0.0, -np.inf)

    def level_log_prior(self, number: int, options: Sequence[int]) -> Floats:
        """Return (O,), the log of how many decisions give each option of level choice `number`.

        Args:
            number: of the choice, below `num_levels`.
            options: what the choices before it took.
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
        """Return (K, O), the prior at each choice of a whole sequence."""
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

    def _every_choice(self) -> list[Choice]:
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
        """Pairs of a base block that is left and a step, by the level they give, over all ways to come this far."""
        weights = [0] * len(self._levels)
        for left, ways in self._ways_to(before).items():
            for base, count in zip(self._bases, left, strict=True):
                for step in self._space.level_offsets:
                    weights[self._levels.index(base + step)] += count * ways
        return weights

    def _ways_to(self, options: tuple[int, ...]) -> dict[tuple[int, ...], int]:
        """Return in how many ways base blocks can have taken these levels, by how many of each base level are left.

        The order of the levels does not matter, so that a sorted tuple serves for all of its arrangements.
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
