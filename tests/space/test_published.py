"""The published models have the printed figures, each AP with its protocol, and are found by name."""

from __future__ import annotations

import re

import pytest

from spinenas.space.baseline import Baseline, architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind
from spinenas.space.published import (
    PROTOCOLS,
    PUBLISHED,
    R0_SP53,
    R23_SP30,
    SPINENET_49,
    PublishedModel,
    published,
)

NAMES = ["spinenet-49s", "spinenet-49s-code", "spinenet-49", "spinenet-96", "spinenet-143", "spinenet-143l"]
NAMES.insert(3, "spinenet-49-896")
NAMES += ["spinenet-190", "spinenet-mobile-49xs", "spinenet-mobile-49s", "spinenet-mobile-49", "r0-sp53", "r23-sp30"]
NAMES += ["r50-fpn", "r101-fpn", "r152-fpn"]


def test_every_published_model_is_found_by_its_name() -> None:
    assert list(PUBLISHED) == NAMES
    assert all(published(name).name == name for name in NAMES)


@pytest.mark.parametrize(
    "model", [model for model in PUBLISHED.values() if model.params_millions], ids=lambda model: model.name
)
def test_printed_sizes_equal_ours_up_to_rounding_and_element_wise_operations(model: PublishedModel) -> None:
    """The paper's multiply-adds include element-wise operations, 0.1 to 0.3 %; 49S is printed as 12.0 M."""
    assert model.params_millions is not None
    assert model.madds_billions is not None
    cost = model.cost()
    assert cost.params / 1e6 == pytest.approx(model.params_millions, abs=0.1)
    # The mobile model's is printed with one digit: 1.0.
    rounding = 0.05 if model.madds_billions < 10 else 0
    assert cost.madds / 1e9 == pytest.approx(model.madds_billions, rel=0.003, abs=rounding)


FACTS = """
    val2017 A: r50-fpn 37.8, r23-sp30 39.6, r0-sp53 40.7, spinenet-49 40.8
    val2017 B: r50-fpn 40.4, r101-fpn 43.9, r152-fpn 45.1, spinenet-49 42.8, spinenet-49-896 45.3, spinenet-96 47.1,
               spinenet-143 48.1
    val2017 C: spinenet-49s 41.5, spinenet-49 44.3, spinenet-96 48.5, spinenet-143 50.6, spinenet-190 52.0
    val2017 mobile: spinenet-mobile-49 28.6, spinenet-mobile-49s 23.5
    test-dev C: spinenet-49s 41.5, spinenet-49 44.3, spinenet-49-896 46.7, spinenet-96 48.6, spinenet-143 50.7,
                spinenet-190 52.1
"""
"""All published APs of these models, by split and protocol."""


def test_every_published_ap_has_the_split_and_protocol_it_was_printed_for() -> None:
    printed = {
        (name, split, protocol, float(ap))
        for split, protocol, models in re.findall(r"(\S+) (\S+):((?:\s+\S+ [\d.]+,?)+)", FACTS)
        for name, ap in re.findall(r"(\S+) ([\d.]+)", models)
    }
    ours = {
        (model.name, ap.split, ap.protocol, round(ap.ap * 100, 1)) for model in PUBLISHED.values() for ap in model.aps
    }
    assert ours == printed
    assert {ap.protocol for model in PUBLISHED.values() for ap in model.aps} == set(PROTOCOLS)
    assert all(ap.source for model in PUBLISHED.values() for ap in model.aps)


def test_published_aps_on_val2017_are_chosen_by_activation() -> None:
    assert PUBLISHED["spinenet-49"].aps_with("relu") == {"A": 0.408, "B": 0.428}
    assert PUBLISHED["spinenet-49"].aps_with("swish") == {"C": 0.443}
    assert PUBLISHED["spinenet-49-896"].aps_with("swish") == {}
    assert PUBLISHED["spinenet-mobile-49"].aps_with("swish") == {"mobile": 0.286}
    assert PUBLISHED["spinenet-143l"].aps_with("relu") == {}


def test_an_ap_trained_with_hard_swish_is_not_compared_with_networks_of_swish() -> None:
    """Configurations of tensorflow/models train its mobile models with hard swish; tensorflow/tpu takes swish."""
    assert PUBLISHED["spinenet-mobile-49s"].aps_with("swish") == {}
    assert PUBLISHED["spinenet-mobile-49s"].aps_with("hard swish") == {"mobile": 0.235}
    for ap in (ap for model in PUBLISHED.values() for ap in model.aps):
        assert ap.activation.replace("relu", "ReLU") in PROTOCOLS[ap.protocol]


@pytest.mark.parametrize(
    ("name", "fewer"), [("spinenet-49", 0.120), ("spinenet-96", 0.186), ("spinenet-143", 0.169), ("r0-sp53", 0.022)]
)
def test_multiply_adds_saved_against_the_baseline(name: str, fewer: float) -> None:
    """The paper claims 10 to 20 % fewer for SpineNets than for ResNet-FPNs of their size."""
    model = PUBLISHED[name]
    assert model.baseline is not None
    assert 1 - model.cost().madds / PUBLISHED[model.baseline].cost().madds == pytest.approx(fewer, abs=5e-4)


def test_a_baseline_has_no_genotype() -> None:
    with pytest.raises(UserError, match=r"r50-fpn is a ResNet-FPN, which has no genotype; .* build it in Python"):
        _ = PUBLISHED["r50-fpn"].genotype


@pytest.mark.parametrize("model", PUBLISHED.values(), ids=PUBLISHED)
def test_the_text_of_an_architecture_is_read_back(model: PublishedModel) -> None:
    assert architecture_from_text(model.architecture.text) == model.architecture


def test_an_unknown_baseline_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'r51-fpn' is neither a genotype's text nor a baseline; did you mean 'r"):
        architecture_from_text("r51-fpn")
    with pytest.raises(UserError, match="there is no ResNet-18 here; known are 50, 101, 152"):
        Baseline(18)


def test_block_budgets_are_those_of_table_1() -> None:
    def budget(blocks: object) -> list[int]:
        levels = [block.level for block in blocks]  # type: ignore[attr-defined]
        return [levels.count(level) for level in range(2, 8)]

    assert budget(SPINENET_49.blocks) == [1, 2, 4, 4, 2, 2]
    assert budget(R0_SP53.blocks) == [1, 4, 6, 2, 1, 1]
    assert (budget(R23_SP30.stem), budget(R23_SP30.blocks)) == ([2, 2, 2, 1, 0, 0], [1, 2, 4, 1, 1, 1])
    assert sum(block.kind == BlockKind.RESIDUAL for block in SPINENET_49.blocks) == 4
    assert all(block.kind == BlockKind.BOTTLENECK for block in R0_SP53.blocks)


def test_genotype_keys_of_published_networks_never_change() -> None:
    assert (SPINENET_49.key, R0_SP53.key) == ("062a71e50236988c", "e4e7cf4f7a59ad02")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no published model is called 'spinenet49'; did you mean 'spinenet-49'"):
        published("spinenet49")
