"""Drawings of architectures: what is drawn, where, and that hostile names are harmless."""

from __future__ import annotations

import io
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from shared_fixtures import REPOSITORY

from spinenas.results.pictures.architecture import Subject, draw, draw_pair
from spinenas.results.pictures.architecture.layout import lay_out
from spinenas.results.pictures.architecture.parts import Direction, Floats, Layout, Points, Role, Wire
from spinenas.results.pictures.architecture.routing import sampled
from spinenas.results.pictures.picture_file import PNG_WIDTH_PIXELS, png_bytes, write_picture
from spinenas.search.cli.architecture_argument import find_architecture
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, dead_blocks
from spinenas.space.published import MOBILE_49, R0_SP53, R23_SP30, SPINENET_49
from spinenas.space.search_space import SearchSpace

SVG = "{http://www.w3.org/2000/svg}"
PUBLISHED = {"spinenet-49": SPINENET_49, "r0-sp53": R0_SP53, "r23-sp30": R23_SP30, "mobile-49": MOBILE_49}
TINY = Genotype.from_text("2b 2b / 3r0,1 4r0,1 3r1,2! 4r1,4!")
"""Block 3 is dangling and merged into output 5."""
HALF_DEAD = Genotype.from_text("2b 2b 2b / 4r0,1 5b0,3 3b0,1! 4b1,5!")
"""Stem block 2 and blocks 3 and 4 reach no output: nothing has their level and kind."""


def random_genotypes(count: int) -> list[Genotype]:
    rng = np.random.default_rng(0)
    spaces = SearchSpace.spinenet49(), SearchSpace.r0_sp53()
    return [spaces[number % 2].sample(rng) for number in range(count)]


def elements(svg: str, tag: str, word: str) -> list[ElementTree.Element]:
    """Return the elements of a class."""
    return [e for e in ElementTree.fromstring(svg).iter(SVG + tag) if word in e.get("class", "").split()]


def edges(svg: str, word: str = "edge") -> list[tuple[int, int]]:
    """Return (source, target) of the connections of a class, without the legend."""
    return [
        (int(edge.get("data-from", "")), int(edge.get("data-to", "")))
        for edge in elements(svg, "path", word)
        if "edge" in edge.get("class", "").split() and edge.get("data-from")
    ]


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter(SVG + "text")]


@pytest.mark.parametrize(
    "genotype", [*PUBLISHED.values(), TINY, *random_genotypes(4)], ids=lambda genotype: genotype.key
)
def test_every_block_and_every_connection_is_drawn_once(genotype: Genotype) -> None:
    svg = draw(Subject("name", genotype))
    blocks = elements(svg, "g", "block")
    assert [int(block.get("data-node", "")) for block in blocks] == list(range(genotype.num_nodes))
    built = built_graph(genotype).nodes
    parents = [(source, node.node) for node in built for source in node.parents]
    merges = [(source, node.node) for node in built for source in node.merged]
    assert sorted(edges(svg, "parent")) == sorted(parents)
    assert sorted(edges(svg, "merge")) == sorted(merges)
    dead = [(s, n) for n in dead_blocks(genotype) for s in genotype.blocks[n - len(genotype.stem)].parents]
    assert sorted(edges(svg, "ghost")) == sorted(dead)
    assert len(edges(svg)) == len(parents) + len(merges) + len(dead)


def test_a_block_is_in_its_column_and_row_and_its_height_grows_with_its_channels() -> None:
    boxes = lay_out(SPINENET_49).boxes
    assert [box.x for box in boxes] == sorted(box.x for box in boxes)
    by_level = {box.level: box.y for box in boxes}
    assert [by_level[level] for level in sorted(by_level)] == sorted(by_level.values()), "level 2 is on top"
    assert all(box.y == by_level[box.level] for box in boxes)
    heights = {(box.channels, box.height) for box in boxes}
    assert [channels for channels, _ in sorted(heights, key=lambda pair: pair[1])] == sorted({c for c, _ in heights})


def test_directions_follow_the_levels() -> None:
    directions = {(wire.source, wire.target): wire.direction for wire in lay_out(SPINENET_49).wires}
    assert directions[2, 4] == Direction.DOWN
    assert directions[9, 10] == Direction.UP
    assert directions[4, 13] == Direction.SAME


def points_on(points: Points) -> Floats:
    """Sample a curve, (100 x pieces, 2)."""
    curve: Floats = sampled(np.array([points]), [100] * (len(points) // 3))[0]
    return curve


def blocks_hit(layout: Layout, wire: Wire) -> tuple[int, ...]:
    """Return the nodes whose blocks a connection crosses, without its two ends."""
    curve = points_on(wire.points)
    others = (box for box in layout.boxes if box.node not in (wire.source, wire.target))
    return tuple(box.node for box in others if box.holds(curve, 0.0).any())


def check_geometry(layout: Layout) -> int:
    """Check invariants of every layout, and return the number of connections that run through a block."""
    for first, second in combinations(layout.boxes, 2):
        assert abs(first.x - second.x) >= (first.width + second.width) / 2
    through = 0
    for wire in layout.wires:
        source, target = layout.boxes[wire.source], layout.boxes[wire.target]
        curve = points_on(wire.points)
        assert source.x < curve[0, 0] <= source.x + source.width / 2
        assert target.x - target.width / 2 <= curve[-1, 0] < target.x
        assert (curve >= 0).all()
        assert (curve <= (layout.width, layout.height)).all()
        through += bool(blocks_hit(layout, wire))
    return through


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_connection_of_a_published_model_runs_through_a_block(name: str) -> None:
    assert check_geometry(lay_out(PUBLISHED[name])) == 0


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_few_connections_of_random_genotypes_run_through_a_block(count: int) -> None:
    layouts = [lay_out(genotype) for genotype in random_genotypes(count)]
    share = sum(map(check_geometry, layouts)) / sum(len(layout.wires) for layout in layouts)
    assert share < 0.01, "0.005 of 200; most of them graze a corner"


def test_a_connection_through_a_block_is_detected() -> None:
    layout = lay_out(TINY)
    wire = layout.wires[1]
    source, target = layout.boxes[0], layout.boxes[2]
    assert (wire.source, wire.target) == (0, 2)
    points = ((source.x, source.y), (source.x + 1, source.y), (target.x - 1, source.y), (target.x, target.y))
    straight = type(wire)(wire.source, wire.target, wire.role, wire.direction, points)
    assert blocks_hit(layout, straight) == (1,)


def test_dead_blocks_are_ghosts_and_outputs_are_named() -> None:
    svg = draw(Subject("name", HALF_DEAD))
    ghosts = [e.text for e in elements(svg, "text", "ghost")]
    assert ghosts == ["2", "3", "4"]
    assert sorted(edges(svg, "ghost")) == [(0, 3), (0, 4), (1, 2), (1, 3), (3, 4)]
    assert [e.text for e in elements(svg, "text", "name")] == ["P3", "P4"]
    assert "reaches no output, not built" in texts(svg)
    assert "reaches no output, not built" not in texts(draw(Subject("name", SPINENET_49)))


def test_a_dangling_block_is_drawn_dashed_into_its_output() -> None:
    (wire,) = [wire for wire in lay_out(SPINENET_49).wires if wire.role == Role.MERGE]
    assert (wire.source, wire.target) == (11, 14)
    assert "dangling block, added to an output" in texts(draw(Subject("name", SPINENET_49)))


HOSTILE = "</text><script>alert('x')</script>&amp;\"' ]]> <!-- \x00\x1b\ud800 \N{SNOWMAN}"


def test_hostile_names_are_escaped() -> None:
    harmless = HOSTILE.translate({0: "\ufffd", 0x1B: "\ufffd", 0xD800: "\ufffd"})
    tags = {"svg", "title", "desc", "style", "rect", "g", "line", "text", "path"}
    for svg in (draw(Subject(HOSTILE, SPINENET_49, HOSTILE)), draw_pair(*[Subject(HOSTILE, SPINENET_49, HOSTILE)] * 2)):
        assert texts(svg)[:2] == [harmless[: len(texts(svg)[0])], harmless]
        page = ElementTree.fromstring(svg.encode())
        assert harmless in (page.findtext(SVG + "title") or "")
        assert {element.tag.removeprefix(SVG) for element in page.iter()} <= tags


def test_a_long_name_is_shortened_in_the_drawing_and_complete_in_the_title() -> None:
    name = "a run with a very long name/" * 20 + " 7"
    svg = draw(Subject(name, SPINENET_49))
    assert texts(svg)[0].startswith("a run")
    assert texts(svg)[0].endswith("name/ 7")
    assert len(texts(svg)[0]) < 80
    assert ElementTree.fromstring(svg).findtext(SVG + "title") == name


def test_a_comparison_marks_differences_and_fades_common_connections() -> None:
    text = SPINENET_49.text.replace("4b2,4 ", "5r2,4 ", 1).replace("7b5,14!", "7b6,14!")
    svg = draw_pair(Subject("one", SPINENET_49), Subject("other", Genotype.from_text(text)))
    words = elements(svg, "text", "word")
    assert [word.text for word in words] == ["level", "type", "inputs"]
    assert [int(float(word.get("x", "")) - 80) // 46 for word in words] == [5, 5, 15]
    assert "2 of 17 positions differ. Connections: 31 in both, 1 only above, 1 only below." in texts(svg)
    lines = [edge for edge in elements(svg, "path", "edge") if edge.get("data-from")]
    own = [edge for edge in lines if "common" not in edge.get("class", "").split()]
    assert [(edge.get("data-from"), edge.get("data-to")) for edge in own] == [("5", "15"), ("6", "15")]
    assert len([rect for rect in elements(svg, "rect", "changed") if rect.get("x") != "6"]) == 4


def test_architectures_of_different_lengths_and_levels_can_be_compared() -> None:
    svg = draw_pair(Subject("a", MOBILE_49), Subject("b", TINY))
    assert texts(svg).count("only") == MOBILE_49.num_nodes - TINY.num_nodes
    assert texts(svg).count("L1") == 2
    assert "No difference." in texts(draw_pair(Subject("a", TINY), Subject("b", TINY)))


def test_the_same_architecture_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys; from spinenas.results.pictures.architecture import *; from spinenas.space.published import *\n"
        "svg = draw_pair(Subject('a', R0_SP53), Subject('b', MOBILE_49)); sys.stdout.buffer.write(svg.encode())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode() == draw_pair(Subject("a", R0_SP53), Subject("b", MOBILE_49))


def test_the_picture_in_the_documentation_is_up_to_date() -> None:
    kept = (REPOSITORY / "docs" / "spinenet-49.svg").read_text(encoding="utf-8")
    assert kept == draw(find_architecture(("spinenet-49",)).subject()), (
        "spinenas show spinenet-49 --draw docs/spinenet-49.svg"
    )


def test_a_png_has_its_size_and_shows_something() -> None:
    svg = draw(Subject("spinenet-49", SPINENET_49))
    image = Image.open(io.BytesIO(png_bytes(svg))).convert("RGB")
    page = ElementTree.fromstring(svg)
    ratio = float(page.get("height", "")) / float(page.get("width", ""))
    assert image.width == PNG_WIDTH_PIXELS
    assert image.height == pytest.approx(PNG_WIDTH_PIXELS * ratio, abs=1)
    colours = dict((colour, count) for count, colour in image.getcolors(1 << 20) or [])
    assert colours[255, 255, 255] > 0.7 * image.width * image.height, "light, on white"
    assert colours[0xCF, 0xE6, 0xDA] > 10_000, "bottlenecks"
    title = np.asarray(image.crop((0, 0, image.width, 120)).convert("L"))
    assert (title < 100).sum() > 1000, "letters"


def test_a_picture_is_replaced_only_if_forced_and_its_suffix_sets_the_format(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    write_picture("<svg/>", path)
    with pytest.raises(UserError, match="exists already"):
        write_picture("<svg></svg>", path)
    assert path.read_text() == "<svg/>"
    write_picture("<svg></svg>", path, force=True)
    assert path.read_text() == "<svg></svg>"
    with pytest.raises(UserError, match=r"end it in \.svg or \.png"):
        write_picture("<svg/>", tmp_path / "a.jpg")
    with pytest.raises(UserError, match="no does not exist; create it first"):
        write_picture("<svg/>", tmp_path / "no" / "a.svg")


def test_without_resvg_a_png_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(
        UserError, match=r"pip install 'spinenas\[draw\]' or, in a clone, pip install -e '\.\[draw\]' -c constraints"
    ):
        write_picture("<svg/>", tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
