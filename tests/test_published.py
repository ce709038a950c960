"""The published models say what the authors printed, and are found by name."""

from __future__ import annotations

import pytest

from spinenas.space.cost import retinanet_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind
from spinenas.space.published import PUBLISHED, R0_SP53, SPINENET_49, PublishedModel, published

NAMES = ["spinenet-49s", "spinenet-49s-code", "spinenet-49", "spinenet-96", "spinenet-143", "spinenet-143l"]
NAMES += ["spinenet-190", "r0-sp53"]


def test_every_published_model_is_found_by_its_name() -> None:
    assert list(PUBLISHED) == NAMES
    assert all(published(name).name == name for name in NAMES)


@pytest.mark.parametrize(
    "model", [model for model in PUBLISHED.values() if model.params_millions], ids=lambda model: model.name
)
def test_printed_figures_are_ours_within_rounding_and_element_wise_work(model: PublishedModel) -> None:
    """The paper's multiply-adds include element-wise operations, 0.1 to 0.3 %, and 49S is printed as 11.9 or 12.0 M."""
    assert model.params_millions is not None
    assert model.madds_billions is not None
    cost = retinanet_cost(
        model.genotype,
        model.scaling,
        model.image_size_pixels,
        head_convs=model.head_convs,
        head_channels=model.head_channels,
    )
    assert cost.params / 1e6 == pytest.approx(model.params_millions, abs=0.06)
    assert cost.madds / 1e9 == pytest.approx(model.madds_billions, rel=0.003)


def test_block_budgets_are_those_of_table_1() -> None:
    def budget(blocks: object) -> list[int]:
        levels = [block.level for block in blocks]  # type: ignore[attr-defined]
        return [levels.count(level) for level in range(2, 8)]

    assert budget(SPINENET_49.blocks) == [1, 2, 4, 4, 2, 2]
    assert budget(R0_SP53.blocks) == [1, 4, 6, 2, 1, 1]
    assert sum(block.kind == BlockKind.RESIDUAL for block in SPINENET_49.blocks) == 4
    assert all(block.kind == BlockKind.BOTTLENECK for block in R0_SP53.blocks)


def test_genotype_keys_of_published_networks_never_change() -> None:
    assert (SPINENET_49.key, R0_SP53.key) == ("062a71e50236988c", "e4e7cf4f7a59ad02")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no published model is called 'spinenet49'; did you mean 'spinenet-49'"):
        published("spinenet49")
