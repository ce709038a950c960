"""Costs against the published tables, against the original implementations, and against each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from random_genotypes import random_genotype
from shared_fixtures import shared_folder

from spinenas.space.baseline import Baseline
from spinenas.space.cost import Cost, backbone_cost, cost_by_part, level_size, retinanet_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind, BlockSpec, Genotype
from spinenas.space.graph import built_graph, dead_blocks
from spinenas.space.published import MOBILE_49, PUBLISHED, R0_SP53, R23_SP30, SPINENET_49
from spinenas.space.scaling import BASELINE_SCALING, SCALINGS, Scaling
from spinenas.space.search_space import SearchSpace

PROXY = Scaling("proxy", 0.25, 64, 0.25, 1)

TABLE = {
    # model: (size, backbone params, backbone 1e9 madds, detector params, detector 1e9 madds); the trainable
    # parameters and convolutions of the original implementations, 91 class channels.
    "spinenet-49s-code": (640, 9_089_215, 12.325, 11_265_942, 30.779),
    "spinenet-49s": (640, 9_472_959, 12.778, 11_944_598, 33.745),
    "spinenet-49": (640, 21_831_488, 28.262, 28_543_383, 85.282),
    "spinenet-96": (1024, 36_262_976, 119.054, 42_974_871, 265.024),
    "spinenet-143": (1280, 60_247_616, 295.259, 66_959_511, 523.338),
    "spinenet-143l": (1280, 100_796_257, 491.007, 107_508_152, 719.086),
    "spinenet-190": (1280, 126_587_664, 620.983, 163_637_351, 1881.660),
    "spinenet-mobile-49xs": (256, 842_456, 0.129, 872_711, 0.166),
    "spinenet-mobile-49s": (384, 975_678, 0.341, 1_030_653, 0.496),
    "spinenet-mobile-49": (384, 2_268_708, 0.785, 2_337_579, 0.981),
    "r50-fpn": (640, 23_508_032 + 3_871_232, 39.861, 34_091_159, 96.880),
}


@pytest.mark.parametrize("name", TABLE)
def test_costs_of_the_published_models_are_those_of_the_original_implementations(name: str) -> None:
    model = PUBLISHED[name]
    size, backbone_params, backbone_madds, params, madds = TABLE[name]
    assert size == model.image_size_pixels
    backbone = backbone_cost(model.architecture, model.scaling, size)
    detector = model.cost()
    assert (backbone.params, round(backbone.madds / 1e9, 3)) == (backbone_params, backbone_madds)
    assert (detector.params, round(detector.madds / 1e9, 3)) == (params, madds)


def test_spinenet_49_at_896_pixels_has_the_same_parameters_and_more_multiply_adds() -> None:
    cost = retinanet_cost(SPINENET_49, SCALINGS["49"], 896)
    assert (cost.params, round(cost.madds / 1e9, 3)) == (28_543_383, 167.152)
    assert round(backbone_cost(SPINENET_49, SCALINGS["49"], 896).madds / 1e9, 3) == 55.394


def test_other_derived_figures_of_the_paper_are_met() -> None:
    eighty = retinanet_cost(SPINENET_49, SCALINGS["49"], 640, class_channels=80)
    assert (round(eighty.params / 1e6, 2), round(eighty.madds / 1e9, 1)) == (28.32, 83.3)
    r0_sp53 = retinanet_cost(R0_SP53, SCALINGS["49"], 640)
    assert (round(r0_sp53.params / 1e6, 1), round(r0_sp53.madds / 1e9, 1)) == (26.1, 94.8)
    r23_sp30 = retinanet_cost(R23_SP30, SCALINGS["49"], 640)
    assert round(r23_sp30.madds / 1e9, 1) == 95.5
    parts = cost_by_part(SPINENET_49, SCALINGS["49"], 640)
    without_endpoints = backbone_cost(SPINENET_49, SCALINGS["49"], 640).params - parts["endpoints"].params
    assert round(without_endpoints / 1e6, 2) == 20.65
    proxy = retinanet_cost(SPINENET_49, PROXY, 512, head_channels=64)
    assert (round(proxy.params / 1e6, 2), round(proxy.madds / 1e9, 1)) == (1.96, 5.8)


def test_costs_equal_every_row_of_the_oracle_to_the_last_digit() -> None:
    rows = json.loads((shared_folder("oracle") / "params_flops.json").read_text())["rows"]
    ours = {"49S": "49S-code", "49S-paper": "49S"}
    assert len(rows) >= 12
    for row in rows:
        architecture, scaling = {
            "spinenet": lambda key: (SPINENET_49, SCALINGS[ours.get(key, key)]),
            "mobile": lambda key: (MOBILE_49, SCALINGS[f"mobile-{key}"]),
            "resnet": lambda key: (Baseline(int(key)), BASELINE_SCALING),
        }[row["kind"]](row["id"])
        parts = cost_by_part(
            architecture,
            scaling,
            row["size"],
            class_channels=row["num_classes"],
            head_convs=row["head_convs"],
            head_channels=row["head_filters"],
            separable_head=row["separable_head"],
        )
        assert sum(parts.values(), Cost()) == Cost(row["total_trainable"], row["retinanet_conv_macs"])
        assert parts.pop("head").params == row["head_trainable"]
        assert parts.pop("pyramid", Cost()).params == row["decoder_trainable"]
        assert sum(parts.values(), Cost()) == Cost(row["backbone_trainable"], row["backbone_conv_macs"])


@pytest.mark.parametrize(
    "case",
    ["tfv_rand0_relu_1x128x128", "tfv_rand1788_relu_1x128x128", "tfv_49_relu_1x192x192", "tfv_49_swish_2x256x128"],
)
def test_costs_of_random_genotypes_with_merges_equal_the_oracle(case: str) -> None:
    data = json.loads((shared_folder("oracle") / f"{case}.json").read_text())
    options = data["kwargs"]
    rows = [row for row in data["block_specs"] if not row[3] or row[0] >= options["min_level"]]
    genotype = Genotype(
        tuple(
            BlockSpec(level, BlockKind(kind), tuple(sorted(parents)), is_output)
            for level, kind, parents, is_output in rows
        )
    )
    scaling = Scaling(
        "oracle",
        options["filter_size_scale"],
        options["endpoints_num_filters"],
        options["resample_alpha"],
        options["block_repeats"],
    )
    cost = backbone_cost(genotype, scaling, (data["input"]["h"], data["input"]["w"]))
    assert cost.params == data["trainable_params"]
    assert cost.madds == data["conv_macs_at_input"]


def test_parts_add_up_and_name_exactly_what_is_built() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        genotype = SearchSpace.spinenet49().sample(rng)
        parts = cost_by_part(genotype, PROXY, (256, 320))
        built = [f"node{node.node:02d}" for node in built_graph(genotype).nodes]
        assert list(parts) == ["stem", *built, "endpoints", "head"]
        total = sum(parts.values(), Cost())
        assert total == retinanet_cost(genotype, PROXY, (256, 320))
        assert backbone_cost(genotype, PROXY, (256, 320)) == Cost(
            total.params - parts["head"].params, total.madds - parts["head"].madds
        )


def test_a_dead_block_costs_nothing() -> None:
    with_dead = Genotype.from_text("2b 2b / 7r0,1 4b0,1 4b0,3!")
    without = Genotype.from_text("2b 2b / 4b0,1 4b0,2!")
    assert dead_blocks(with_dead) == (2,)
    assert backbone_cost(with_dead, PROXY, 256) == backbone_cost(without, PROXY, 256)


def test_the_head_is_counted_on_the_levels_the_genotype_has() -> None:
    one = Genotype.from_text("2b 2b / 4b0,1!")
    two = Genotype.from_text("2b 2b / 4b0,1! 5b0,1!")
    heads = [cost_by_part(genotype, PROXY, 256, head_channels=8)["head"] for genotype in (one, two)]
    cells = [16 * 16, 16 * 16 + 8 * 8]
    assert heads[0].madds * cells[1] == heads[1].madds * cells[0]
    # Two towers of four convolutions: another gamma and beta for each of their 8 channels on the second level.
    assert heads[1].params - heads[0].params == 2 * 4 * 2 * 8


def test_level_size_is_halving_with_ceil_again_and_again() -> None:
    for size in range(1, 700):
        halved = size
        for level in range(1, 8):
            halved = (halved + 1) // 2
            assert level_size(size, level) == halved


def test_multiply_adds_of_a_wide_image_are_those_of_its_cells() -> None:
    square = backbone_cost(SPINENET_49, PROXY, 256)
    wide = backbone_cost(SPINENET_49, PROXY, (128, 512))
    assert square == wide == backbone_cost(SPINENET_49, PROXY, (512, 128))


def test_a_small_network_is_what_one_counts_by_hand() -> None:
    """Width 1/32: every block has f = 2 at level 2, 4 at level 3 and 8 at level 4; alpha 0.5 gives 1 and 2."""
    scaling = Scaling("by hand", 1 / 32, 5, 0.5, 1)
    parts = cost_by_part(Genotype.from_text("2b 2b / 4r0,1!"), scaling, 100, head_convs=0, class_channels=2)
    stem = 7 * 7 * 3 * 64
    assert parts["stem"] == Cost(stem + 2 * 64, stem * 50 * 50)
    first = 64 * 2 + 9 * 2 * 2 + 2 * 8 + 64 * 8  # reduce, 3x3, expand, projection
    assert parts["node00"] == Cost(first + 2 * (2 + 2 + 8 + 8), first * 25 * 25)
    second = 8 * 2 + 9 * 2 * 2 + 2 * 8
    assert parts["node01"] == Cost(second + 2 * (2 + 2 + 8), second * 25 * 25)
    block = 2 * 9 * 8 * 8
    reduce, down, expand = 8 * 1, 9 * 1 * 1, 1 * 8  # each of the two connections, L2 to L4: 25, 13, 7 cells a side
    assert parts["node02"] == Cost(
        block + 2 * (8 + 8) + 2 * (reduce + down + expand + 2 * (1 + 1 + 8)),
        block * 7 * 7 + 2 * (reduce * 25 * 25 + down * 13 * 13 + expand * 7 * 7),
    )
    assert parts["endpoints"] == Cost(8 * 5 + 2 * 5, 8 * 5 * 7 * 7)
    predictors = 9 * 5 * 9 * (2 + 4)
    assert parts["head"] == Cost(predictors + 9 * (2 + 4), predictors * 7 * 7)


def test_a_residual_stem_has_a_projection_only_where_widths_differ() -> None:
    """At width 1 a level-2 residual block takes the stem's 64 channels as they are; at width 0.5 it cannot."""
    genotype = Genotype.from_text("2r 2r / 4b0,1!")
    parts = cost_by_part(genotype, SCALINGS["49"], 256)
    assert parts["node00"] == parts["node01"]
    half = cost_by_part(genotype, Scaling("half", 0.5, 64, 0.5, 1), 256)
    assert half["node00"].params - half["node01"].params == 9 * 32 * 32 + (64 * 32 + 2 * 32)


def test_repeats_multiply_blocks_and_not_connections() -> None:
    once, thrice = (cost_by_part(SPINENET_49, Scaling("repeats", 1.0, 256, 0.5, repeats), 640) for repeats in (1, 3))
    f = 256
    block = 2 * 9 * f * f + 2 * 2 * f
    assert thrice["node03"].params - once["node03"].params == 2 * block
    assert thrice["endpoints"] == once["endpoints"]
    assert thrice["head"] == once["head"]


@pytest.mark.parametrize(
    ("genotype", "size", "message"),
    [
        ("2b 2b / 4m0,1!", 256, "block 2 is mbconv and stem block 0 is bottleneck; MBConv blocks are not mixed"),
        ("1m 2r / 4m0,1!", 256, "block 1 is residual and stem block 0 is mbconv; MBConv blocks are not mixed"),
        ("3b 3b / 4b0,1!", 256, "the first stem block has level 3; a stem of bottleneck blocks starts at level 2"),
        ("2m 2m / 4m0,1!", 256, "the first stem block has level 2; a stem of mbconv blocks starts at level 1"),
        ("2b 4b / 4b0,1!", 256, "stem block 1 has level 4 after level 2; a stem stays at a level or goes one down"),
        ("2b 2b / 4b0,1!", 64, "image size is 64; give at least 96 pixels each way"),
        ("2b 2b / 4b0,1!", (640, 95), r"image size is \(640, 95\); give at least 96 pixels each way"),
    ],
)
def test_what_cannot_be_counted_is_refused(genotype: str, size: int | tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        backbone_cost(Genotype.from_text(genotype), PROXY, size)


def test_any_genotype_can_be_counted_at_any_size() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        genotype = random_genotype(rng)
        size = (int(rng.integers(96, 700)), int(rng.integers(96, 700)))
        smaller = backbone_cost(genotype, PROXY, size)
        larger = backbone_cost(genotype, PROXY, (size[0] + 128, size[1]))
        assert larger.params == smaller.params > 0
        assert larger.madds > smaller.madds
