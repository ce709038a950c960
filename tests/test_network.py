"""The torch network: equal to the published one, to the arithmetic, and to an independent reading of the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import oracle_weights
import pytest
import torch
from shared_fixtures import shared_folder
from torch import Tensor
from torch.nn import functional

from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.network import build_backbone, count_madds, num_parameters
from spinenas.space.network.resample import max_pool_same
from spinenas.space.published import R0_SP53, SPINENET_49
from spinenas.space.scaling import SCALINGS, Scaling
from spinenas.space.search_space import SearchSpace

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "tensorflow_tpu_backbones.json").read_text(encoding="utf-8")
)
TOLERANCE = 1e-5
"""Of the largest value of a tensor."""

TINY = Scaling("test", 0.125, 8, 0.5, 1)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_every_block_has_the_statistics_of_the_tensorflow_implementation(name: str) -> None:
    case = GOLDEN[name]
    network = oracle_weights.backbone(case)
    taps: dict[str, Tensor] = {}
    for node in network.nodes:
        node.register_forward_hook(
            lambda module, inputs, output, node=node: taps.update({f"node{node.node:02d}.out": output})
        )
    with torch.no_grad():
        taps |= {f"end{level}": output for level, output in network(oracle_weights.image(case)).items()}
    assert len(taps) == sum(tap in taps for tap in case["taps"]) == len(network.nodes) + len(network.levels)
    for tap, golden in case["taps"].items():
        if tap not in taps:
            continue  # the stem, and blocks that reach no output
        for statistic, value in oracle_weights.statistics(taps[tap]).items():
            assert abs(value - golden[statistic]) <= TOLERANCE * golden["abs_max"], f"{tap} differs in {statistic}"


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_endpoints_equal_the_tensorflow_implementation(name: str) -> None:
    folder = shared_folder("oracle")
    case = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    endpoints = np.load(folder / f"{name}.npz", allow_pickle=False)
    with torch.no_grad():
        outputs = oracle_weights.backbone(case)(oracle_weights.image(case))
    for level, output in outputs.items():
        golden = endpoints[f"end{level}"]
        difference = np.abs(output.permute(0, 2, 3, 1).numpy() - golden).max()
        assert difference <= TOLERANCE * np.abs(golden).max(), f"endpoint {level} differs"


def test_parameters_and_madds_of_random_genotypes_equal_the_arithmetic() -> None:
    rng = np.random.default_rng(0)
    space = SearchSpace.spinenet49()
    for _ in range(12):
        genotype = space.sample(rng)
        scaling = Scaling(
            "test", float(rng.choice([0.125, 0.3])), 16, float(rng.choice([0.25, 1.0])), int(rng.integers(1, 3))
        )
        height, width = (int(size) for size in rng.choice([96, 128, 160, 224], size=2))
        network = build_backbone(genotype, scaling).eval().to("meta")
        cost = backbone_cost(genotype, scaling, (height, width))
        assert num_parameters(network) == cost.params
        assert count_madds(network, torch.empty(1, 3, height, width, device="meta")) == cost.madds


def test_the_network_built_has_the_key_of_its_genotype() -> None:
    rng = np.random.default_rng(1)
    space = SearchSpace.spinenet49()
    for genotype in [SPINENET_49, R0_SP53, *(space.sample(rng) for _ in range(30))]:
        network = build_backbone(genotype, TINY)
        assert network.network_key() == network_key(genotype)


def test_the_key_is_read_off_the_modules_not_off_the_genotype() -> None:
    network = build_backbone(SPINENET_49, TINY)
    network.nodes[-1].parents = (network.nodes[-1].parents[0] - 1, network.nodes[-1].parents[1])
    assert network.network_key() != network_key(SPINENET_49)


def reference_forward(network: Any, images: Tensor) -> dict[int, Tensor]:
    """Read the rules again, straight from the genotype, with the network's weights (nodes as plain recursion)."""
    genotype: Genotype = network.genotype
    num_stem = len(genotype.stem)
    levels = [block.level for block in (*genotype.stem, *genotype.blocks)]
    kinds = [block.kind for block in (*genotype.stem, *genotype.blocks)]
    children = [0] * len(levels)
    merged: dict[int, list[int]] = {}
    for node, block in enumerate(genotype.blocks, start=num_stem):
        for parent in block.parents:
            children[parent] += 1
        if block.is_output:
            joins = [
                old
                for old in range(node)
                if children[old] == 0 and levels[old] == block.level and kinds[old] == block.kind
            ]
            merged[node] = joins
            for old in joins:
                children[old] += 1

    def norm(module: Any, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        scale = module.bn.weight / torch.sqrt(module.bn.running_var + module.bn.eps)
        x = functional.conv2d(x, module.conv.weight, stride=module.conv.stride, padding=module.conv.padding)
        return (x - module.bn.running_mean.view(shape)) * scale.view(shape) + module.bn.bias.view(shape)

    def resample(module: Any, x: Tensor, size: int) -> Tensor:
        ratio = x.shape[-1] / size
        x = norm(module.reduce, x).clamp(min=0)
        if ratio > 1:
            x = norm(module.down, x).clamp(min=0)
            if ratio > 2:
                x = max_pool_same(x, 3 if ratio <= 4 else 5, int(ratio) // 2)
        elif ratio < 1:
            x = x.repeat_interleave(int(1 / ratio), dim=2).repeat_interleave(int(1 / ratio), dim=3)
        return norm(module.expand, x)

    computed: dict[int, Tensor] = {}

    def feature(node: int) -> Tensor:
        if node in computed:
            return computed[node]
        module = getattr(network, f"node{node:02d}")
        if node < num_stem:
            x = feature(node - 1) if node else max_pool_same(norm(network.stem, images).clamp(min=0), 3, 2)
        else:
            size = images.shape[-1] // 2 ** levels[node]
            parents = genotype.blocks[node - num_stem].parents
            x = sum(
                (resample(getattr(module, f"in{i}"), feature(parent), size) for i, parent in enumerate(parents)),
                torch.zeros(()),
            )
            for old in merged.get(node, []):
                x = x + feature(old)
            x = x.clamp(min=0)
        for repeat in module.repeats:
            x = repeat(x)
        computed[node] = x
        return x

    return {
        block.level: norm(getattr(network, f"end{block.level}"), feature(node)).clamp(min=0)
        for node, block in enumerate(genotype.blocks, start=num_stem)
        if block.is_output
    }


def test_random_genotypes_compute_what_an_independent_reading_of_the_rules_computes() -> None:
    rng = np.random.default_rng(2)
    space = SearchSpace.spinenet49()
    images = torch.from_numpy(rng.standard_normal((1, 3, 128, 128))).float()
    for _ in range(10):
        network = build_backbone(space.sample(rng), TINY)
        oracle_weights.fill_from_formulas(network)
        network.eval()
        with torch.no_grad():
            outputs, expected = network(images.clone()), reference_forward(network, images)
        assert outputs.keys() == expected.keys()
        for level, output in outputs.items():
            torch.testing.assert_close(output, expected[level], rtol=1e-4, atol=1e-5 * float(output.abs().max()))


def test_endpoints_come_in_ascending_levels_whatever_the_order_of_the_blocks() -> None:
    outputs = build_backbone(SPINENET_49, TINY).eval()(torch.zeros(1, 3, 128, 128))
    assert list(outputs) == [3, 4, 5, 6, 7]
    assert [tuple(output.shape) for output in outputs.values()] == [(1, 8, 2**i, 2**i) for i in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(("size", "kernel_size", "stride"), [(8, 3, 2), (9, 3, 2), (16, 5, 4), (12, 5, 3), (7, 3, 1)])
def test_max_pool_pads_as_tensorflow_does(size: int, kernel_size: int, stride: int) -> None:
    x = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(0))
    expected = torch.full((1, 2, -(-size // stride), -(-size // stride)), float("-inf"))
    start = max((expected.shape[-1] - 1) * stride + kernel_size - size, 0) // 2
    for row in range(expected.shape[-1]):
        for column in range(expected.shape[-1]):
            top, left = row * stride - start, column * stride - start
            window = x[..., max(top, 0) : top + kernel_size, max(left, 0) : left + kernel_size]
            expected[..., row, column] = window.amax(dim=(-2, -1))
    assert torch.equal(max_pool_same(x, kernel_size, stride), expected)


def test_the_same_generator_draws_the_same_weights_and_no_global_state_is_touched() -> None:
    before = torch.random.get_rng_state()
    first, second = (build_backbone(SPINENET_49, TINY, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    other = build_backbone(SPINENET_49, TINY, generator=torch.Generator().manual_seed(6))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.stem.conv.weight, other.stem.conv.weight)
    assert torch.equal(before, torch.random.get_rng_state())


def test_kernels_start_with_variance_one_over_fan_in() -> None:
    network = build_backbone(SPINENET_49, SCALINGS["49"])
    kernel = network.node04.rep0.conv2.weight  # type: ignore[union-attr, union-attr]
    assert float(kernel.detach().std()) == pytest.approx((9 * 128) ** -0.5, rel=0.02)


def test_what_cannot_be_built_is_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match="dialect is 'caffe'; known are tensorflow/tpu"):
        build_backbone(SPINENET_49, TINY, dialect="caffe")
    with pytest.raises(UserError, match="activation is 'gelu'; known are relu, swish"):
        build_backbone(SPINENET_49, TINY, activation="gelu")
    with pytest.raises(UserError, match="the first stem block has level 1"):
        build_backbone(Genotype.from_text("1b 2b / 3b0,1!"), TINY)
    with pytest.raises(UserError, match="block 2 is mbconv"):
        build_backbone(Genotype.from_text("2b 2b / 3m0,1!"), TINY)
