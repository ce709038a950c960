"""Genotypes: text and JSON read back, identity is stable, and every error names what is wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from random_genotypes import random_genotype

from spinenas.space.errors import GenotypeError, UserError, nearest
from spinenas.space.genotype import BlockKind, BlockSpec, Genotype, StemBlock
from spinenas.space.published import SPINENET_49


def test_text_and_json_read_back_to_the_same_genotype() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        genotype = random_genotype(rng, kinds=tuple(BlockKind))
        assert Genotype.from_text(genotype.text) == genotype
        assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


def test_different_genotypes_have_different_keys_and_texts() -> None:
    rng = np.random.default_rng(1)
    genotypes = {random_genotype(rng, num_blocks=3) for _ in range(500)}
    assert len(genotypes) > 300
    assert len({genotype.key for genotype in genotypes}) == len(genotypes)
    assert len({genotype.text for genotype in genotypes}) == len(genotypes)


def test_the_key_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from spinenas.space.genotype import Genotype; import sys; print(Genotype.from_text(sys.argv[1]).key)"
    for hash_seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", code, SPINENET_49.text],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.strip() == SPINENET_49.key


def test_a_genotype_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPINENET_49.blocks = ()  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPINENET_49.blocks[0].level = 3  # type: ignore[misc]


def test_kinds_equal_their_names() -> None:
    assert BlockKind.BOTTLENECK == "bottleneck"
    assert [str(kind) for kind in BlockKind] == ["residual", "bottleneck", "mbconv"]


OUTPUT = BlockSpec(4, BlockKind.BOTTLENECK, (0, 1), True)


@pytest.mark.parametrize(
    ("blocks", "stem", "message"),
    [
        ((OUTPUT,), (), "a genotype needs at least one stem block"),
        ((OUTPUT,), (StemBlock(0), StemBlock(2)), "stem block 0 has level 0; levels are 1 to 7"),
        ((dataclasses.replace(OUTPUT, level=8),), None, "block 2 has level 8; levels are 1 to 7"),
        ((dataclasses.replace(OUTPUT, parents=()),), None, "block 2 has 0 parents; a block takes one or two"),
        (
            (dataclasses.replace(OUTPUT, parents=(0, 2)),),
            None,
            "block 2 has parent 2; a parent is an earlier node, 0 to 1",
        ),
        ((dataclasses.replace(OUTPUT, parents=(-1, 0)),), None, "block 2 has parent -1"),
        ((dataclasses.replace(OUTPUT, parents=(1, 1)),), None, "block 2 has parents .1, 1.; two parents are distinct"),
        ((dataclasses.replace(OUTPUT, parents=(1, 0)),), None, "block 2 has parents .1, 0.; two parents are distinct"),
        ((OUTPUT, OUTPUT), None, "block 3 and block 2 are both outputs of level 4; each level has at most one"),
        ((dataclasses.replace(OUTPUT, is_output=False),), None, "no block is an output; mark at least one"),
        ((), None, "no block is an output"),
    ],
)
def test_an_invalid_genotype_cannot_be_constructed(
    blocks: tuple[BlockSpec, ...], stem: tuple[StemBlock, ...] | None, message: str
) -> None:
    with pytest.raises(GenotypeError, match=message):
        Genotype(blocks) if stem is None else Genotype(blocks, stem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2b 2b 4b0,1!", "has no '/' between the stem and the blocks"),
        ("2b 2b! / 4b0,1!", "stem block '2b!' is not written as level and kind"),
        ("2b 2x / 4b0,1!", "stem block '2x' is not written as level and kind"),
        ("2b0 2b / 4b0,1!", "stem block '2b0' is not written"),
        ("2b 2b / 4b!", "block '4b!' is not written as level, kind and parents"),
        ("2b 2b / 4x0,1!", "block '4x0,1!' is not written as level, kind and parents"),
        ("2b 2b / 4b0,1,2!", "block '4b0,1,2!' is not written"),
    ],
)
def test_invalid_text_is_refused_with_the_offending_word(text: str, message: str) -> None:
    with pytest.raises(GenotypeError) as error:
        Genotype.from_text(text)
    assert message in str(error.value)


def broken(path: tuple[Any, ...], value: Any) -> Any:
    """SpineNet-49 as JSON with one field changed."""
    data: Any = SPINENET_49.to_json()
    if not path:
        return value
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), [], "a genotype is a JSON object with the fields schema, stem and blocks"),
        (("schema",), "spinenas-genotype/9", "genotype schema is 'spinenas-genotype/9'"),
        (("stem",), None, "a genotype needs the lists stem and blocks"),
        (("blocks",), {}, "a genotype needs the lists stem and blocks"),
        (("stem", 1), 3, "stem block 1 is 3; it must be an object with level and kind"),
        (("stem", 0, "level"), "2", "stem block 0 has level '2'; it must be an integer"),
        (("blocks", 3), None, "block 5 is None; it must be an object with level and kind"),
        (("blocks", 3, "level"), 4.0, "block 5 has level 4.0; it must be an integer"),
        (("blocks", 3, "level"), True, "block 5 has level True; it must be an integer"),
        (("blocks", 3, "kind"), "conv", "block 5 has kind 'conv'; known are residual, bottleneck, mbconv"),
        (("blocks", 3, "kind"), [], "block 5 has kind []; known are"),
        (("blocks", 3, "parents"), "2,4", "block 5 has parents '2,4'; it must be a list of node numbers"),
        (("blocks", 3, "parents"), [2, "4"], "block 5 has parents [2, '4']; it must be a list of node numbers"),
        (("blocks", 3, "is_output"), 1, "block 5 has is_output 1; it must be true or false"),
        (("blocks", 3, "parents"), [2, 40], "block 5 has parent 40; a parent is an earlier node, 0 to 4"),
    ],
)
def test_invalid_json_is_refused_with_block_and_field(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(GenotypeError) as error:
        Genotype.from_json(broken(path, value))
    assert message in str(error.value)
    assert isinstance(error.value, UserError)


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all() -> None:
    assert nearest("spinnet", ["spinenet", "resnet"]) == "; did you mean 'spinenet'?"
    assert nearest("x", ["b", "a"]) == "; known are a, b"
    assert nearest("x", []) == ""


def test_a_name_like_no_other_is_answered_with_the_shortest_that_contains_it_or_its_number() -> None:
    known = ["spinenet-49-896", "spinenet-49", "r50-fpn", "spinenet-490"]
    assert nearest("49", known) == "; did you mean 'spinenet-49'?"
    assert nearest("49s", [*known, "spinenet-49s"]) == "; did you mean 'spinenet-49s'?"
    assert nearest("resnet-50", known) == "; did you mean 'r50-fpn'?"
    assert nearest("7", known).startswith("; known are ")


def test_reading_the_space_loads_no_heavy_library() -> None:
    code = "import sys, spinenas.space; print([m for m in ('torch', 'ray', 'pandas', 'optuna') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
