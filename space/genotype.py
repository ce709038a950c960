"""The genotype of an architecture: frozen plain data, with a one-line text and a JSON form.

Node numbers are used everywhere: node i of the graph is stem block i for i < len(stem), and block b of the
scale-permuted part is node len(stem) + b. `parents` are node numbers. The feature map of a block at level L is
1 / 2**L the size of the image (SpineNet, section 3.1).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

from spinenas.space.errors import GenotypeError

SCHEMA = "spinenas-genotype/1"
MIN_LEVEL, MAX_LEVEL = 1, 7


class BlockKind(StrEnum):
    """The three block types of the published models; each member equals its name as a string."""

    RESIDUAL = "residual"
    BOTTLENECK = "bottleneck"
    MBCONV = "mbconv"


_LETTERS = {BlockKind.RESIDUAL: "r", BlockKind.BOTTLENECK: "b", BlockKind.MBCONV: "m"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}
_NODE_TEXT = re.compile(r"(\d+)([a-z])(?:(\d+)(?:,(\d+))?(!?))?")


@dataclass(frozen=True, slots=True)
class StemBlock:
    """A block of the fixed stem; each block is fed by the one before it.

    Attributes:
        level: stride is 2**level.
        kind: block type.
    """

    level: int
    kind: BlockKind = BlockKind.BOTTLENECK


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """A block of the scale-permuted part.

    Attributes:
        level: stride is 2**level.
        kind: block type.
        parents: node numbers of the inputs, ascending; two, or one in the paper's ablations (section 5.2).
        is_output: whether the endpoint of this level is built on this block.
    """

    level: int
    kind: BlockKind
    parents: tuple[int, ...]
    is_output: bool = False


SPINENET_STEM = (StemBlock(2), StemBlock(2))
"""The two level-2 bottleneck blocks of SpineNet and R0-SP53 (Table 1)."""


@dataclass(frozen=True)
class Genotype:
    """An architecture: the stem and the blocks in order. Invalid data raises `GenotypeError` at construction.

    Checked here is that the graph can be built; `SearchSpace.check` checks the rules of one search space.
    """

    blocks: tuple[BlockSpec, ...]
    stem: tuple[StemBlock, ...] = SPINENET_STEM

    def __post_init__(self) -> None:
        if not self.stem:
            raise GenotypeError("a genotype needs at least one stem block; give it one, such as a level-2 bottleneck")
        for node, stem_block in enumerate(self.stem):
            _check_level("stem block", node, stem_block.level)
        output_levels: dict[int, int] = {}
        for node, block in enumerate(self.blocks, start=len(self.stem)):
            _check_level("block", node, block.level)
            parents = block.parents
            if not 1 <= len(parents) <= 2:
                raise GenotypeError(f"block {node} has {len(parents)} parents; a block takes one or two")
            for parent in parents:
                if not 0 <= parent < node:
                    raise GenotypeError(
                        f"block {node} has parent {parent}; a parent is an earlier node, 0 to {node - 1}"
                    )
            if len(parents) == 2 and parents[0] >= parents[1]:
                raise GenotypeError(
                    f"block {node} has parents {list(parents)}; two parents are distinct and in ascending order"
                )
            if block.is_output:
                if block.level in output_levels:
                    raise GenotypeError(
                        f"block {node} and block {output_levels[block.level]} are both outputs of level "
                        f"{block.level}; each level has at most one output"
                    )
                output_levels[block.level] = node
        if not output_levels:
            raise GenotypeError("no block is an output; mark at least one with is_output")

    @property
    def num_nodes(self) -> int:
        """Number of stem blocks and blocks together."""
        return len(self.stem) + len(self.blocks)

    @cached_property
    def key(self) -> str:
        """Identity of this genotype: first 16 hex digits of SHA-256 over its canonical JSON."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()[:16]

    @cached_property
    def text(self) -> str:
        """One line that `from_text` reads back: "2b 2b / 2b0,1 4r0,1 ... 4b5,10! ..."; ! marks an output."""
        stem = " ".join(f"{block.level}{_LETTERS[block.kind]}" for block in self.stem)
        blocks = " ".join(
            f"{block.level}{_LETTERS[block.kind]}{','.join(map(str, block.parents))}{'!' * block.is_output}"
            for block in self.blocks
        )
        return f"{stem} / {blocks}"

    @classmethod
    def from_text(cls, text: str) -> Genotype:
        """Read the `text` of a genotype. Raises GenotypeError."""
        stem_text, slash, blocks_text = text.partition("/")
        if not slash:
            raise GenotypeError(f"genotype text {text[:60]!r} has no '/' between the stem and the blocks")
        blocks = [_block_from_text(word) for word in blocks_text.split()]
        return cls(blocks=tuple(blocks), stem=_stem_from_text(stem_text.strip()))

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a JSON file; `from_json` reads it back."""
        return {
            "schema": SCHEMA,
            "stem": [{"level": block.level, "kind": str(block.kind)} for block in self.stem],
            "blocks": [
                {
                    "level": block.level,
                    "kind": str(block.kind),
                    "parents": list(block.parents),
                    "is_output": block.is_output,
                }
                for block in self.blocks
            ],
        }

    @classmethod
    def from_json(cls, data: Any) -> Genotype:
        """Build a genotype from untrusted plain data. Raises GenotypeError, naming block and field."""
        if not isinstance(data, dict):
            raise GenotypeError("a genotype is a JSON object with the fields schema, stem and blocks")
        if data.get("schema") != SCHEMA:
            raise GenotypeError(f"genotype schema is {data.get('schema')!r}; this version reads {SCHEMA!r}")
        stem_data, blocks_data = data.get("stem"), data.get("blocks")
        if not isinstance(stem_data, list) or not isinstance(blocks_data, list):
            raise GenotypeError("a genotype needs the lists stem and blocks")
        stem = tuple(
            StemBlock(_integer(row, "level", f"stem block {node}"), _kind(row, f"stem block {node}"))
            for node, row in enumerate(stem_data)
        )
        blocks = []
        for node, row in enumerate(blocks_data, start=len(stem)):
            name = f"block {node}"
            level, kind = _integer(row, "level", name), _kind(row, name)
            parents = row.get("parents")
            if not isinstance(parents, list) or not all(type(parent) is int for parent in parents):
                raise GenotypeError(f"{name} has parents {parents!r}; it must be a list of node numbers")
            is_output = row.get("is_output", False)
            if type(is_output) is not bool:
                raise GenotypeError(f"{name} has is_output {is_output!r}; it must be true or false")
            blocks.append(BlockSpec(level, kind, tuple(parents), is_output))
        return cls(blocks=tuple(blocks), stem=stem)


def canonical_json(data: Any) -> str:
    """Return the JSON text that keys are hashed from: sorted names, no spaces, ASCII, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=64)
def _stem_from_text(text: str) -> tuple[StemBlock, ...]:
    """Read the part before the slash. Cached, because all genotypes of a space share their stem."""
    stem = []
    for word in text.split():
        match = _NODE_TEXT.fullmatch(word)
        if not match or match[3] or match[2] not in _KINDS:
            raise GenotypeError(f"stem block {word!r} is not written as level and kind, such as 2b")
        stem.append(StemBlock(int(match[1]), _KINDS[match[2]]))
    return tuple(stem)


@lru_cache(maxsize=4096)
def _block_from_text(word: str) -> BlockSpec:
    """Read one block. Cached, because the genotypes of a run share a few hundred different blocks."""
    match = _NODE_TEXT.fullmatch(word)
    if not match or not match[3] or match[2] not in _KINDS:
        raise GenotypeError(f"block {word!r} is not written as level, kind and parents, such as 4r0,1")
    parents = tuple(int(parent) for parent in (match[3], match[4]) if parent is not None)
    return BlockSpec(int(match[1]), _KINDS[match[2]], parents, bool(match[5]))


def _check_level(kind: str, node: int, level: int) -> None:
    if not MIN_LEVEL <= level <= MAX_LEVEL:
        raise GenotypeError(f"{kind} {node} has level {level}; levels are {MIN_LEVEL} to {MAX_LEVEL}")


def _integer(row: Any, field: str, name: str) -> int:
    if not isinstance(row, dict):
        raise GenotypeError(f"{name} is {row!r}; it must be an object with level and kind")
    value = row.get(field)
    if type(value) is not int:
        raise GenotypeError(f"{name} has {field} {value!r}; it must be an integer")
    return value


def _kind(row: dict[str, Any], name: str) -> BlockKind:
    value = row.get("kind")
    if value not in list(BlockKind):
        raise GenotypeError(f"{name} has kind {value!r}; known are {', '.join(BlockKind)}")
    return BlockKind(value)
