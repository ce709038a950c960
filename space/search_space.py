"""Search spaces: the rules of a space, its exact size, and its genotypes as one flat list of decisions.

A space permutes intermediate blocks among themselves and output blocks among themselves, connects every block to two
earlier ones, and lets levels and kinds vary (SpineNet, section 3.2). `decode(encode(g)) == g` always holds, and
`encode` returns the smallest of all vectors that decode to g.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from spinenas.space.combinatorics import (
    count_arrangements,
    lehmer_decode,
    lehmer_encode,
    match_steps,
    rank_pair,
    unrank_pair,
)
from spinenas.space.errors import GenotypeError, UserError, nearest
from spinenas.space.genotype import (
    MAX_LEVEL,
    MIN_LEVEL,
    SPINENET_STEM,
    BlockKind,
    BlockSpec,
    Genotype,
    StemBlock,
)

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Decision:
    """One categorical choice among the integers 0 to num_options - 1."""

    name: str
    num_options: int


@dataclass(frozen=True)
class SearchSpace:
    """All genotypes of one kind. Every block has two distinct parents.

    Attributes:
        name: name of the space, which includes the parent window.
        stem: fixed blocks before the searched ones; they may be parents.
        intermediate_levels: base levels, ascending; these blocks come in any order, before the outputs.
        output_levels: distinct levels, ascending; one output block each, in any order.
        level_offsets: consecutive offsets that an intermediate block's level may have from its base level.
        kinds: block types that every block chooses from.
        intermediate_window: number of nodes before an intermediate block that may be its parents; None for all.
    """

    name: str
    stem: tuple[StemBlock, ...]
    intermediate_levels: tuple[int, ...]
    output_levels: tuple[int, ...]
    level_offsets: tuple[int, ...]
    kinds: tuple[BlockKind, ...]
    intermediate_window: int | None

    def __post_init__(self) -> None:
        low, high = self.level_offsets[0], self.level_offsets[-1]
        bases, outputs, window = self.intermediate_levels, self.output_levels, self.intermediate_window
        reached = [*(base + step for base in bases for step in (low, high)), *outputs]
        rules = (
            (len(self.stem) >= 2, "needs two stem blocks or more: the first block has two parents"),
            (bases == tuple(sorted(bases)), "lists base levels ascending"),
            (outputs == tuple(sorted(set(outputs))), "lists distinct output levels ascending"),
            (bool(outputs), "needs an output level"),
            (self.level_offsets == tuple(range(low, high + 1)), "needs consecutive level offsets"),
            (MIN_LEVEL <= min(reached) <= max(reached) <= MAX_LEVEL, f"stays within levels {MIN_LEVEL} to {MAX_LEVEL}"),
            (0 < len(set(self.kinds)) == len(self.kinds), "needs distinct kinds, at least one"),
            (window is None or window >= 2, "needs a window of at least 2 nodes"),
        )
        for holds, rule in rules:
            if not holds:
                raise UserError(f"the search space {self.name!r} {rule}")

    @classmethod
    def spinenet49(cls, window: int | None = 5) -> SearchSpace:
        """The space in which SpineNet-49 was found (SpineNet, sections 3.2 and 4; Table 1)."""
        return cls(
            name=f"spinenet49-{_window_name(window)}",
            stem=SPINENET_STEM,
            intermediate_levels=(2, 3, 3, 3, 4, 4, 4, 4, 4, 5),
            output_levels=(3, 4, 5, 6, 7),
            level_offsets=(-1, 0, 1, 2),
            kinds=(BlockKind.BOTTLENECK, BlockKind.RESIDUAL),
            intermediate_window=window,
        )

    @classmethod
    def r0_sp53(cls, window: int | None = 5) -> SearchSpace:
        """The space of R0-SP53: scale permutation and connections only (SpineNet, section 5.1)."""
        name = f"r0-sp53-{_window_name(window)}"
        return replace(cls.spinenet49(window), name=name, level_offsets=(0,), kinds=(BlockKind.BOTTLENECK,))

    @classmethod
    def tiny(cls) -> SearchSpace:
        """A space small enough to enumerate, with every kind of decision and with dangling and dead blocks."""
        return cls(
            name="tiny",
            stem=SPINENET_STEM,
            intermediate_levels=(3, 4),
            output_levels=(3, 4),
            level_offsets=(0, 1),
            kinds=(BlockKind.BOTTLENECK, BlockKind.RESIDUAL),
            intermediate_window=2,
        )

    @cached_property
    def identity(self) -> str:
        """One line with every rule of the space but its name; two spaces are the same if their lines are equal."""
        return "; ".join(
            (
                f"stem {_stem_text(self.stem)}",
                f"intermediate levels {_spaced(self.intermediate_levels)}",
                f"output levels {_spaced(self.output_levels)}",
                f"level offsets {_spaced(self.level_offsets)}",
                f"kinds {' '.join(kind.value for kind in self.kinds)}",
                f"parents 2 among {self.intermediate_window or 'all'} before an intermediate block",
            )
        )

    @property
    def first_output(self) -> int:
        """Node number of the first output block."""
        return len(self.stem) + len(self.intermediate_levels)

    @property
    def num_nodes(self) -> int:
        """Number of stem blocks and blocks together."""
        return self.first_output + len(self.output_levels)

    def parent_candidates(self, node: int) -> range:
        """Nodes that may be parents of a block: the window before it, or all earlier nodes for an output block."""
        if self.intermediate_window is None or node >= self.first_output:
            return range(node)
        return range(max(0, node - self.intermediate_window), node)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The choices that make a genotype, without those that have a single option."""
        return tuple(decision for decision in self._all_decisions if decision.num_options > 1)

    @cached_property
    def _all_decisions(self) -> tuple[Decision, ...]:
        """Lehmer digits of both orders, then for each block its parents, level offset and kind."""
        decisions = [
            Decision(f"{group} order {position}", len(levels) - position)
            for group, levels in (("intermediate", self.intermediate_levels), ("output", self.output_levels))
            for position in range(len(levels))
        ]
        for node in range(len(self.stem), self.num_nodes):
            decisions.append(Decision(f"block {node} parents", math.comb(len(self.parent_candidates(node)), 2)))
            if node < self.first_output:
                decisions.append(Decision(f"block {node} level step", len(self.level_offsets)))
            decisions.append(Decision(f"block {node} kind", len(self.kinds)))
        return tuple(decisions)

    @cached_property
    def _num_options(self) -> list[int]:
        return [decision.num_options for decision in self.decisions]

    def num_vectors(self) -> int:
        """Return the number of decision vectors; several may decode to one genotype."""
        return math.prod(decision.num_options for decision in self.decisions)

    def size(self) -> int:
        """Return the exact number of distinct genotypes.

        Base blocks of one level are interchangeable, and a level offset can undo a swap. Sequences of levels are
        therefore counted, not permutations and offsets.
        """
        low, high = self.level_offsets[0], self.level_offsets[-1]
        connections_and_kinds = math.prod(
            math.comb(len(self.parent_candidates(node)), 2) * len(self.kinds)
            for node in range(len(self.stem), self.num_nodes)
        )
        orders = count_arrangements(self.intermediate_levels, low, high) * math.factorial(len(self.output_levels))
        return orders * connections_and_kinds

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Draw every decision uniformly, as published; genotypes with several vectors are more likely."""
        vector: list[int] = rng.integers(self._num_options).tolist()
        return self.decode(vector)

    def decode(self, vector: Sequence[int]) -> Genotype:
        """Return the genotype of a vector with one value for each of `decisions`."""
        if len(vector) != len(self.decisions):
            raise UserError(f"the vector has {len(vector)} values; {self.name} has {len(self.decisions)} decisions")
        for decision, value in zip(self.decisions, vector, strict=True):
            if not 0 <= value < decision.num_options:
                raise UserError(
                    f"decision {decision.name!r} has the value {value}; it is 0 to {decision.num_options - 1}"
                )
        given = map(int, vector)  # keeps numpy integers out of the genotype
        values = iter([next(given) if decision.num_options > 1 else 0 for decision in self._all_decisions])
        levels = [
            level
            for group in (self.intermediate_levels, self.output_levels)
            for level in lehmer_decode([next(values) for _ in group], group)
        ]
        blocks = []
        for node, level in enumerate(levels, start=len(self.stem)):
            is_output = node >= self.first_output
            first = self.parent_candidates(node).start
            parents = tuple(first + parent for parent in unrank_pair(next(values)))
            step = 0 if is_output else self.level_offsets[next(values)]
            blocks.append(BlockSpec(level + step, self.kinds[next(values)], parents, is_output))
        return Genotype(tuple(blocks), self.stem)

    def encode(self, genotype: Genotype) -> tuple[int, ...]:
        """Return the canonical vector: the lexicographically smallest that decodes to this genotype.

        Raises GenotypeError if the genotype is not in this space.
        """
        self.check(genotype)
        num_intermediate = len(self.intermediate_levels)
        levels = [block.level for block in genotype.blocks]
        low, high = self.level_offsets[0], self.level_offsets[-1]
        bases = match_steps(levels[:num_intermediate], self.intermediate_levels, low, high)
        assert bases is not None, "check lets only levels pass that the bases reach"
        values = lehmer_encode(bases) + lehmer_encode(levels[num_intermediate:])
        for position, block in enumerate(genotype.blocks):
            first = self.parent_candidates(len(self.stem) + position).start
            values.append(rank_pair(block.parents[0] - first, block.parents[1] - first))
            if position < num_intermediate:
                values.append(block.level - bases[position] - low)
            values.append(self.kinds.index(block.kind))
        return tuple(
            value for decision, value in zip(self._all_decisions, values, strict=True) if decision.num_options > 1
        )

    def contains(self, genotype: Genotype) -> bool:
        """Whether a genotype is in this space."""
        try:
            self.check(genotype)
        except GenotypeError:
            return False
        return True

    def check(self, genotype: Genotype) -> None:
        """Raise GenotypeError, naming the block and the rule, unless the genotype is in this space."""
        if genotype.stem != self.stem:
            raise GenotypeError(
                f"the stem is {_stem_text(genotype.stem)}; in {self.name} it is {_stem_text(self.stem)}"
            )
        num_blocks = self.num_nodes - len(self.stem)
        if len(genotype.blocks) != num_blocks:
            raise GenotypeError(f"{len(genotype.blocks)} blocks follow the stem; in {self.name} there are {num_blocks}")
        for node, block in enumerate(genotype.blocks, start=len(self.stem)):
            if block.is_output != (node >= self.first_output):
                raise GenotypeError(
                    f"block {node} is {'an' if block.is_output else 'no'} output; in {self.name} the outputs "
                    f"are the last {len(self.output_levels)}, {self.first_output} to {self.num_nodes - 1}"
                )
            if block.kind not in self.kinds:
                raise GenotypeError(
                    f"block {node} is of kind {block.kind.value}; in {self.name} blocks are "
                    f"{' or '.join(kind.value for kind in self.kinds)}"
                )
            if len(block.parents) != 2:
                raise GenotypeError(f"block {node} has one parent; in {self.name} every block has two")
            candidates = self.parent_candidates(node)
            if block.parents[0] < candidates.start:
                raise GenotypeError(
                    f"block {node} has parent {block.parents[0]}; in {self.name} an intermediate block has "
                    f"its parents among the {self.intermediate_window} nodes before it, "
                    f"here {candidates.start} to {node - 1}"
                )
            if block.is_output and block.level not in self.output_levels:
                raise GenotypeError(
                    f"block {node} is an output of level {block.level}; in {self.name} the output levels are "
                    f"{_spaced(self.output_levels)}, each once"
                )
        self._check_levels([block.level for block in genotype.blocks[: len(self.intermediate_levels)]])

    def _check_levels(self, levels: Sequence[int]) -> None:
        """Check that each intermediate block has its own base block; sorted levels match in order or not at all."""
        low, high = self.level_offsets[0], self.level_offsets[-1]
        order = sorted(range(len(levels)), key=levels.__getitem__)
        for position, base in zip(order, self.intermediate_levels, strict=True):
            if not low <= levels[position] - base <= high:
                raise GenotypeError(
                    f"block {len(self.stem) + position} has level {levels[position]}, for which no base "
                    f"block is left; in {self.name} intermediate blocks have the levels "
                    f"{_spaced(self.intermediate_levels)} in any order, each changed by {low} to {high}"
                )

    def enumerate(self) -> Iterator[Genotype]:
        """Yield every genotype of the space once; only for spaces as small as `tiny`."""
        low, high = self.level_offsets[0], self.level_offsets[-1]
        reachable = sorted({base + step for base in self.intermediate_levels for step in self.level_offsets})
        sequences = itertools.product(reachable, repeat=len(self.intermediate_levels))
        intermediate = [s for s in sequences if match_steps(s, self.intermediate_levels, low, high) is not None]
        choices = [
            list(itertools.product(itertools.combinations(self.parent_candidates(node), 2), self.kinds))
            for node in range(len(self.stem), self.num_nodes)
        ]
        for first, last in itertools.product(intermediate, itertools.permutations(self.output_levels)):
            for chosen in itertools.product(*choices):
                blocks = tuple(
                    BlockSpec(level, kind, parents, is_output=position >= len(first))
                    for position, (level, (parents, kind)) in enumerate(zip(first + last, chosen, strict=True))
                )
                yield Genotype(blocks, self.stem)


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "spinenet49": SearchSpace.spinenet49,
    "spinenet49-window5": SearchSpace.spinenet49,
    "spinenet49-window4": lambda: SearchSpace.spinenet49(window=4),
    "spinenet49-unlimited": lambda: SearchSpace.spinenet49(window=None),
    "r0-sp53": SearchSpace.r0_sp53,
    "r0-sp53-window5": SearchSpace.r0_sp53,
    "tiny": SearchSpace.tiny,
}
"""Spaces by full and short name."""


def space_by_name(name: str) -> SearchSpace:
    """Return a space by name. Raises UserError, naming the closest match."""
    if name not in SPACES:
        raise UserError(f"no search space is called {name!r}{nearest(name, SPACES)}")
    return SPACES[name]()


def _window_name(window: int | None) -> str:
    return "unlimited" if window is None else f"window{window}"


def _spaced(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _stem_text(stem: Sequence[StemBlock]) -> str:
    return ", ".join(f"level {block.level} {block.kind.value}" for block in stem)
