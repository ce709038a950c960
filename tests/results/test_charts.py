"""Charts: marks are where the data are, files stay small, and all text is escaped."""

from __future__ import annotations

import math
import random
import re
from xml.etree import ElementTree

import pytest

from spinenas.results.pictures.charts import (
    WIDTH,
    Axis,
    Band,
    Bars,
    Chart,
    Dots,
    Line,
    Mark,
    Rule,
    Whiskers,
    box,
    chart,
    histogram,
)
from spinenas.results.pictures.charts.axes import Scale, axis_range, bounds, tick_labels, ticks
from spinenas.results.pictures.charts.data_reduction import MOST_DOTS, bins, thinned_dots, thinned_line
from spinenas.results.pictures.picture_file import png_bytes

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = r"-?\d+(?:\.\d+)?"


def drawn(*marks: Mark, x: Axis | None = None, y: Axis | None = None, title: str = "A title") -> Chart:
    return chart(marks, x or Axis("across"), y or Axis("up"), title=title, description="What it shows.")


def parsed(picture: Chart, *, styled: bool = True) -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg(styled=styled))


def texts(picture: Chart) -> list[str]:
    return [element.text or "" for element in parsed(picture).iter(f"{SVG}text")]


def paths(picture: Chart, word: str) -> list[list[tuple[float, float]]]:
    """Return the start of each segment of the paths of a class, legend included."""
    found = [path for path in parsed(picture).iter(f"{SVG}path") if word in path.get("class", "").split()]
    return [
        [(float(x), float(y)) for x, y in re.findall(f"M({NUMBER}) ({NUMBER})", path.get("d", ""))] for path in found
    ]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.31, 0.37), (-5, 12_345), (0, 3e-9), (1e6, 1e6 + 3), (-1e300, 1e300)]
)
def test_ticks_are_round_within_the_axis_and_have_distinct_labels(low: float, high: float) -> None:
    for most in range(2, 9):
        found = ticks(low, high, most)
        assert 1 <= len(found) <= most + 1
        assert all(low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high) for value in found)
        if len(found) > 1 and high - low > 1e-6 * abs(high):
            assert len(set(tick_labels(found))) == len(found)
            step = found[1] - found[0]
            assert f"{step:.0e}"[0] in "125"


def test_labels_have_as_many_decimals_as_their_distance_needs() -> None:
    assert tick_labels(ticks(0.3, 0.42, 6)) == ["0.30", "0.32", "0.34", "0.36", "0.38", "0.40", "0.42"]
    assert tick_labels(ticks(0, 20_000, 5)) == ["0", "5,000", "10,000", "15,000", "20,000"]
    assert tick_labels(ticks(0, 2, 6, whole=True)) == ["0", "1", "2"]
    assert tick_labels([]) == []


def test_an_axis_has_a_margin_beyond_its_data_but_not_beyond_included_values() -> None:
    assert bounds([0.0, 10.0]) == (-0.5, 10.5)
    assert bounds([2.0, 10.0], include=(0.0,)) == (0.0, 10.5)
    assert bounds([0.5]) == (0.45, 0.55)
    assert bounds([0.0, 0.0]) == (-0.5, 0.5)
    assert bounds([]) == (-0.05, 1.05)
    assert all(map(math.isfinite, bounds([-1.7e308, 1.7e308, math.nan])))


def test_a_scale_is_linear_and_clips() -> None:
    scale = Scale(10, 20, 300, 100)
    assert [scale.at(value) for value in (10, 15, 20, 25, 0)] == [300, 200, 100, 100, 300]


def test_each_dot_left_out_is_near_a_kept_one() -> None:
    rng = random.Random(0)
    points = [(rng.uniform(0, 400), rng.gauss(100, 30)) for _ in range(20_000)]
    kept = thinned_dots(points, (2.0, 2.0))
    assert 300 < len(kept) <= MOST_DOTS
    assert set(kept) <= set(points)
    for x, y in points[::200]:
        assert min(math.hypot(x - a, y - b) for a, b in kept) < 16 * 2**0.5
    assert sorted(thinned_dots(points[:50], (1e-9, 1e-9))) == sorted(points[:50])


def test_a_thinned_line_keeps_its_extremes() -> None:
    rng = random.Random(0)
    points = [(i / 100, rng.random()) for i in range(10_000)]
    kept = thinned_line(points, 1.0)
    assert len(kept) <= 4 * 101
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    for strip in range(100):
        inside = [y for x, y in points if x // 1 == strip]
        assert {min(inside), max(inside)} <= {y for x, y in kept if x // 1 == strip}


def test_bins_hold_every_value_once() -> None:
    rng = random.Random(0)
    values = [0.0, 1.0, *(rng.random() for _ in range(100))]
    found = bins(values, 0.0, 1.0, 7)
    assert sum(number for _, _, number in found) == len(values)
    for start, end, number in found[:-1]:
        assert number == sum(start <= value < end for value in values)


def test_dots_are_where_the_data_are() -> None:
    picture = drawn(Dots("", [(0, 0), (10, 1), (5, 0.5)]), x=Axis("x", include=(0, 10)), y=Axis("y", include=(0, 1)))
    (dots,) = paths(picture, "dots")
    (left, bottom), (middle, half), (right, top) = sorted(dots)
    assert left < middle < right <= WIDTH
    assert top < half < bottom
    assert (middle, half) == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=0.1)


def test_everything_is_named_and_stays_on_the_page() -> None:
    many: list[Mark] = [Dots(f"the series with the number {index}", [(index, index)]) for index in range(9)]
    rules = [Rule(f"published-model-{index}", 1 + index / 50) for index in range(5)]
    picture = drawn(*many, *rules, x=Axis("multiply-adds, G"), y=Axis("AP"), title="t" * 200)
    found = texts(picture)
    for name in [mark.name for mark in many] + [rule.name for rule in rules] + ["multiply-adds, G", "AP"]:
        assert found.count(name) == 1
    for element in parsed(picture).iter(f"{SVG}text"):
        assert 0 <= float(element.get("x", "")) <= WIDTH
        assert 0 < float(element.get("y", "")) < picture.height
    assert all("..." in text for text in found if text.startswith("ttt"))


def test_names_of_rules_do_not_overlap() -> None:
    picture = drawn(Dots("", [(0, 0), (1, 1)]), *[Rule(f"model {index}", 0.5) for index in range(4)])
    rows = [element.get("y") for element in parsed(picture).iter(f"{SVG}text") if "name" in element.get("class", "")]
    assert len(rows) == len(set(rows)) == 4


def test_a_chart_of_many_points_stays_small() -> None:
    rng = random.Random(0)
    points = [(float(index), rng.random()) for index in range(20_000)]
    band = [(x, y, y + 1) for x, y in points]
    picture = drawn(Dots("dots", points, style="faint"), Line("line", points), Band("band", band))
    assert len(picture.svg()) < 120_000


def test_texts_are_escaped_and_contain_only_xml_characters() -> None:
    hostile = '</text><script>alert(1)</script>&"\x00\x1b'
    picture = drawn(
        Dots(hostile, [(0, 0)]),
        Rule(hostile, 0.5),
        x=Axis(hostile),
        y=Axis("", categories=(hostile,)),
        title=hostile,
    )
    root = parsed(picture)
    assert not list(root.iter(f"{SVG}script"))
    assert "<script" not in picture.svg()
    assert hostile.replace("\x00", "\ufffd").replace("\x1b", "\ufffd") in texts(picture)


def test_the_same_data_give_the_same_bytes_and_both_modes_have_colours() -> None:
    mark = Dots("", [(index, index * index % 17) for index in range(3000)])
    assert drawn(mark).svg() == drawn(mark).svg()
    assert "prefers-color-scheme: dark" in drawn(mark).svg()
    assert "<style>" not in drawn(mark).svg(styled=False)
    assert "@" not in drawn(mark).svg().replace("@media", "")


def test_a_box_shows_quartiles_of_many_values_and_dots_for_few() -> None:
    line, bar, middle = box([float(value) for value in range(10)], 2.0)
    assert isinstance(line, Whiskers)
    assert isinstance(bar, Bars)
    assert isinstance(middle, Whiskers)
    assert line.pieces == [(0.0, 2.0, 9.0, 2.0)]
    assert (bar.boxes[0][0], bar.boxes[0][2]) == (2.25, 6.75)
    assert middle.pieces[0][0] == 4.5
    (dots,) = box([3.0, 1.0], 2.0)
    assert isinstance(dots, Dots)
    assert dots.points == [(1.0, 2.0), (3.0, 2.0)]


def test_a_histogram_counts_each_value_in_its_bin() -> None:
    bars = histogram("n", [0.1, 0.1, 0.9], 0.0, 1.0, 2, "second")
    assert [(x0, y1) for x0, _, _, y1 in bars.boxes] == [(0.0, 2), (0.5, 1)]


def test_a_chart_becomes_a_png() -> None:
    png = png_bytes(drawn(Dots("dots", [(0, 0), (1, 1)]), Whiskers("whiskers", [(0, 0, 1, 1)])).svg(), 300)
    assert png.startswith(b"\x89PNG")


def test_an_axis_never_goes_beyond_what_its_quantity_can_be() -> None:
    bounded = Axis("AP", least=0.0, most=1.0)
    assert axis_range(bounded, [-0.4, 0.2]) == (0.0, pytest.approx(0.21))
    assert axis_range(bounded, [0.0, 0.0]) == (0.0, 0.5)
    assert axis_range(bounded, [0.2, 1.4]) == (pytest.approx(0.16), 1.0)
    low, high = axis_range(bounded, [0.4, 0.6])
    assert (low, high) == (pytest.approx(0.39), pytest.approx(0.61)), "as before"


def test_a_line_through_a_single_point_is_visible() -> None:
    picture = drawn(Line("front", [(1.0, 2.0)], stepped=True), x=Axis("x"), y=Axis("y"), title="t")
    lines = [path.get("d", "") for path in parsed(picture).iter() if "line" in path.get("class", "").split()]
    assert len(lines) == 2, "the line and its sample in the legend"
    assert all(re.search(f"[HL]{NUMBER}", line) for line in lines)
