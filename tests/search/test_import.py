"""`spinenas import`: architectures of other programs are read, and published ones are recognized."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from spinenas.results.export.architecture_files import export_genotype, read_architecture
from spinenas.search.cli.main import main
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockSpec, Genotype
from spinenas.space.published import MOBILE_49, PUBLISHED, SPINENET_49
from spinenas.space.scaling import SCALINGS

LEVEL_2 = BlockSpec(2, "bottleneck", (2, 13), is_output=True)
"""The last row of tensorflow/models, for detectors that begin at level 2."""


def source_of(genotype: Genotype, name: str = "SPINENET_BLOCK_SPECS") -> str:
    """Return a module with block specs as in both code bases: tuples in a list, among other code."""
    rows = [(block.level, str(block.kind), block.parents, block.is_output) for block in genotype.blocks]
    lines = "".join(f"    {row!r},\n" for row in rows)
    return (
        "from absl import logging\n"
        "FILTER_SIZE_MAP = {1: 32, 2: 64}\n"
        f"{name} = [\n{lines}]\n"
        "def build(specs=None, order=[1, 2], names=['a']):\n"
        "  return [BlockSpec(*b) for b in specs or SPINENET_BLOCK_SPECS]\n"
        "raise SystemExit('this was executed')\n"
    )


def run_import(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def facts_of(*arguments: Any) -> dict[str, str]:
    result = run_import(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return {row["what"]: row["value"] for row in json.loads(result.stdout)}


def test_block_specs_are_read_from_python_source(tmp_path: Path) -> None:
    path = tmp_path / "spinenet.py"
    for genotype in (SPINENET_49, MOBILE_49, replace(SPINENET_49, blocks=(*SPINENET_49.blocks, LEVEL_2))):
        path.write_text(source_of(genotype))
        assert read_architecture(path) == (genotype, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rows = []", "has no block table, which is a list of rows .*; none of its 0 lists and tuples has such a row"),
        (
            "rows = [\n(2, 'bottleneck', (0, 1), True),\n(2, 'bottleneck', (0, 1), f())]",
            "the list in line 1 is none because of line 3: it has an entry that is computed",
        ),
        ("rows = [(2, 'bottleneck', (0, 1), True), (2, 'bottleneck')]", "line 1: it has 2 entries instead of 4"),
        ("rows = [(2, 7, (0, 1), True)]", "line 1: its block 7 is neither a string nor the name of a class"),
        (source_of(SPINENET_49) + source_of(MOBILE_49), "has 2 block tables, in line 3, line 25"),
        ("rows = [", "is not Python"),
        ("[" * 100_000, "is not Python"),
        ("\0", "is not Python"),
        ("rows = [(2, 'botleneck', (0, 1), True)]", "block 2 has kind 'botleneck'"),
        ("rows = [(2, 'bottleneck', (0, 9), True)]", "block 2 has parent 9"),
        ("rows = [({2}, 'bottleneck', (0, 1), True)]", "line 1: it has an entry that is computed"),
        ("rows = [(2, Bottleneck, (0, None), True)]", r"block 2 has parents \[0, None\]"),
        ("# --- end of the architecture\n", "exported without METADATA, by an earlier version; export it again"),
        ("METADATA = dict(a=1)", "its metadata is not a description of schema"),
    ],
)
def test_a_file_without_valid_block_specs_is_refused_in_one_sentence(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(source)
    with pytest.raises(UserError, match=message) as caught:
        read_architecture(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["json", "block-specs"])
def test_every_published_model_is_recognized_by_its_file(tmp_path: Path, format: str) -> None:
    for model in PUBLISHED.values():
        if isinstance(model.architecture, Genotype):
            path = tmp_path / f"{model.name}.json"
            export_genotype(model.genotype, path, format=format, scaling=model.scaling)
            known = facts_of(path)
            assert model.name in known["published"].split(" and ")
            assert known["key"] == model.genotype.key


def test_import_prints_facts_about_an_architecture(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(source_of(SPINENET_49))
    known = facts_of(path)
    assert known["published"].startswith("the blocks of spinenet-49s, ")
    assert known["parameters"].startswith("28,543,383 ")
    assert known["dead blocks"] == "none"
    assert known["output levels"] == "3 4 5 6 7"
    path.write_text(source_of(replace(SPINENET_49, blocks=(*SPINENET_49.blocks, LEVEL_2))))
    assert facts_of(path)["published"].endswith(", beside an output of level 2")
    other = replace(SPINENET_49, blocks=(replace(SPINENET_49.blocks[0], level=3), *SPINENET_49.blocks[1:]))
    path.write_text(source_of(other))
    assert facts_of(path)["published"] == "no"


def test_import_writes_the_architecture_and_overwrites_nothing(tmp_path: Path) -> None:
    path, out = tmp_path / "a.json", tmp_path / "b.json"
    export_genotype(SPINENET_49, path, format="block-specs", scaling=SCALINGS["96"])
    assert run_import(path, "--out", out).exit_code == 0
    assert json.loads(out.read_text())["blocks"]
    assert read_architecture(out) == (SPINENET_49, SCALINGS["96"])
    out.write_text("mine")
    refused = run_import(path, "--out", out)
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr
    assert out.read_text() == "mine"
    assert run_import(path, "--out", out, "--force").exit_code == 0
    assert read_architecture(out) == (SPINENET_49, SCALINGS["96"])
    assert run_import(path, "--force").exit_code == 2


PORT = """
import torch.nn as nn
from .resnet import BasicBlock, Bottleneck

POINTS = [(0, x, (1, 2), y)]
SPINENET_BLOCK_SPECS = (
    (2, Bottleneck, (None, None), False),
    (2, Bottleneck, (None, None), False),
{rows})
raise SystemExit("this was executed")
"""
"""A table as PyTorch ports have it: classes instead of strings, and rows of the stem."""


def port_of(genotype: Genotype, row: str) -> str:
    names = {"bottleneck": "Bottleneck", "residual": "blocks.BasicBlock"}
    rows = [row.format(b.level, names[b.kind], b.parents, b.is_output) for b in genotype.blocks]
    return PORT.format(rows="".join(f"    {text},\n" for text in rows))


@pytest.mark.parametrize(
    "row", ["({}, {}, {}, {})", "BlockSpec({}, {}, {}, {})", "BlockSpec({}, {}, {}, is_output={})"]
)
def test_the_table_of_a_pytorch_port_is_read(tmp_path: Path, row: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(port_of(SPINENET_49, row))
    assert read_architecture(path) == (SPINENET_49, None)
    assert facts_of(path)["published"].startswith("the blocks of spinenet-49s, ")


def test_rows_of_a_mobile_network_take_a_mobile_scaling(tmp_path: Path) -> None:
    path, out = tmp_path / "a.py", tmp_path / "a.json"
    path.write_text(source_of(MOBILE_49))
    assert facts_of(path, "--out", out)["scaling"] == "not named, assumed to be mobile-49"
    assert read_architecture(out) == (MOBILE_49, SCALINGS["mobile-49"])


def test_a_json_list_of_rows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [[b.level, str(b.kind), list(b.parents), b.is_output] for b in SPINENET_49.blocks]
    for stem in ([], [[2, "bottleneck", [None, None], False]] * 2):
        path.write_text(json.dumps(stem + rows))
        assert read_architecture(path) == (SPINENET_49, None)


def test_a_folder_without_a_backbone_is_refused(tmp_path: Path) -> None:
    result = run_import(tmp_path)
    assert (result.exit_code, "is a folder without spinenet_backbone.py" in result.stderr) == (1, True)
