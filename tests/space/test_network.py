"""The torch network against the arithmetic and against an independent implementation of the rules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import oracle_weights
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from spinenas.space.baseline import Baseline
from spinenas.space.cost import backbone_cost
from spinenas.space.dialect import DIALECTS
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind, Genotype
from spinenas.space.graph import network_key
from spinenas.space.network import SpineNet, build_backbone, count_madds, num_parameters
from spinenas.space.network.layers import StochasticDepth, initialize, layers_of
from spinenas.space.network.resample import Resample, max_pool_same, single_pool
from spinenas.space.published import MOBILE_49, PUBLISHED, R0_SP53, R23_SP30, SPINENET_49, PublishedModel
from spinenas.space.scaling import SCALINGS, Scaling
from spinenas.space.search_space import SearchSpace

TINY = Scaling("test", 0.125, 8, 0.5, 1)


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


@pytest.mark.parametrize("number", [30, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_network_built_has_the_key_of_its_genotype(number: int) -> None:
    rng = np.random.default_rng(1)
    space = SearchSpace.spinenet49()
    for genotype in [SPINENET_49, R0_SP53, *(space.sample(rng) for _ in range(number))]:
        network = build_backbone(genotype, TINY)
        assert network.network_key() == network_key(genotype)


def test_the_key_is_read_from_the_modules_not_from_the_genotype() -> None:
    network = build_backbone(SPINENET_49, TINY)
    network.nodes[-1].parents = (network.nodes[-1].parents[0] - 1, network.nodes[-1].parents[1])
    assert network.network_key() != network_key(SPINENET_49)


def reference_forward(network: Any, images: Tensor) -> dict[int, Tensor]:
    """A second implementation of the rules, directly from the genotype and by recursion, with the network's weights."""
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
                kernel_size, stride = 3 if ratio <= 4 else 5, int(ratio) // 2
                x = max_pool_same(x, (kernel_size, kernel_size), (stride, stride))
        elif ratio < 1:
            x = x.repeat_interleave(int(1 / ratio), dim=2).repeat_interleave(int(1 / ratio), dim=3)
        return norm(module.expand, x)

    computed: dict[int, Tensor] = {}

    def feature(node: int) -> Tensor:
        if node in computed:
            return computed[node]
        module = getattr(network, f"node{node:02d}")
        if node < num_stem:
            x = feature(node - 1) if node else max_pool_same(norm(network.stem, images).clamp(min=0), (3, 3), (2, 2))
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


def test_random_genotypes_compute_the_same_as_an_independent_implementation() -> None:
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
    assert torch.equal(max_pool_same(x, (kernel_size, kernel_size), (stride, stride)), expected)


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


def test_a_genotype_that_cannot_be_built_is_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match="dialect is 'caffe'; known are tensorflow/models, tensorflow/tpu"):
        build_backbone(SPINENET_49, TINY, dialect="caffe")
    with pytest.raises(UserError, match="activation is 'gelu'; known are relu, swish"):
        build_backbone(SPINENET_49, TINY, activation="gelu")
    with pytest.raises(UserError, match="the first stem block has level 1; a stem of bottleneck blocks starts at"):
        build_backbone(Genotype.from_text("1b 2b / 3b0,1!"), TINY)
    with pytest.raises(UserError, match="block 2 is mbconv"):
        build_backbone(Genotype.from_text("2b 2b / 3m0,1!"), TINY)


def test_a_name_instead_of_an_architecture_or_scaling_is_refused_with_what_to_pass() -> None:
    with pytest.raises(UserError, match=r"pass a Genotype or a Baseline, such as published\('spinenet-49'\).arch"):
        build_backbone("spinenet-49", TINY)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"scaling is '49'; pass a Scaling, such as SCALINGS\['49'\]"):
        build_backbone(SPINENET_49, "49")  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", [(96, 96), (160, 160), (224, 224), (256, 192), (192, 320), (320, 320), (896, 96)])
@pytest.mark.parametrize("genotype", [SPINENET_49, MOBILE_49, R23_SP30], ids=["49", "mobile", "r23-sp30"])
def test_every_size_that_is_a_multiple_of_32_works(genotype: Genotype, size: tuple[int, int], dialect: str) -> None:
    outputs = build_backbone(genotype, TINY, dialect=dialect).eval()(torch.zeros(1, 3, *size))
    for level, output in outputs.items():
        assert output.shape == (1, 8, *(math.ceil(side / 2**level) for side in size))


@pytest.mark.parametrize(
    "model", {(model.architecture, model.scaling): model for model in PUBLISHED.values()}.values(), ids=lambda m: m.name
)
def test_every_published_backbone_has_the_parameters_and_madds_of_the_arithmetic(model: PublishedModel) -> None:
    network = build_backbone(model.architecture, model.scaling).eval().to("meta")
    cost = backbone_cost(model.architecture, model.scaling, 256)
    assert num_parameters(network) == cost.params
    assert count_madds(network, torch.empty(1, 3, 256, 256, device="meta")) == cost.madds
    assert network.network_key() == network_key(model.architecture)


def test_a_damaged_variant_with_one_parent_a_block_is_built() -> None:
    """The paper cuts edges of R0-SP53 so that each block keeps one parent (SpineNet, section 5.2)."""
    cut = Genotype(tuple(replace(block, parents=block.parents[-1:]) for block in R0_SP53.blocks))
    network = build_backbone(cut, TINY).eval()
    assert list(network(torch.zeros(1, 3, 128, 128))) == [3, 4, 5, 6, 7]
    cost = backbone_cost(cut, TINY, 128)
    assert num_parameters(network) == cost.params
    assert cost.params < backbone_cost(R0_SP53, TINY, 128).params


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_a_baseline_adds_upsampled_levels_and_ends_in_batch_norms(dialect: str, activation: str) -> None:
    """The pyramid computed again, step by step (tensorflow/tpu and tensorflow/models `fpn.py`)."""
    network = build_backbone(
        Baseline(50), Scaling("test", 0.125, 8, 1.0, 1), dialect=dialect, activation=activation
    ).eval()
    act = functional.relu if activation == "relu" else functional.silu
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))

    def down(x: Tensor, layer: Any) -> Tensor:
        # SAME in both: at an even size nothing before and one cell after.
        return functional.conv2d(functional.pad(x, (0, 1, 0, 1)), layer.weight, layer.bias, stride=2)

    def smooth(x: Tensor, layer: Any) -> Tensor:
        return functional.conv2d(x, layer.weight, layer.bias, padding=1)

    with torch.no_grad():
        outputs = network(images)
        c3 = network.stage3(network.stage2(max_pool_same(act(network.stem(images)), (3, 3), (2, 2))))
        c4 = network.stage4(c3)
        p5 = network.lateral5(network.stage5(c4))
        p4 = network.lateral4(c4) + p5.repeat_interleave(2, 2).repeat_interleave(2, 3)
        p3 = network.lateral3(c3) + p4.repeat_interleave(2, 2).repeat_interleave(2, 3)
        expected = {3: smooth(p3, network.smooth3), 4: smooth(p4, network.smooth4), 5: smooth(p5, network.smooth5)}
        expected[6] = down(expected[5], network.smooth6)
        expected[7] = down((functional.relu if dialect == "tensorflow/tpu" else act)(expected[6]), network.smooth7)
        for level, output in outputs.items():
            torch.testing.assert_close(output, getattr(network, f"bn{level}")(expected[level]))
            assert output.shape == (1, 8, 128 >> level, 128 >> level)


@pytest.mark.parametrize(
    ("parent_size", "size", "kernel_size", "stride"),
    [
        (40, 20, 1, 1),
        (20, 5, 3, 2),
        (40, 5, 5, 4),
        (20, 3, 5, 2),  # sizes that do not divide: a stride of 2, and a resize for the rest
        (7, 2, 3, 2),
        (10, 3, 3, 2),
        (5, 2, 1, 1),  # the whole part of the ratio decides
    ],
)
def test_the_one_pool_of_tensorflow_tpu(parent_size: int, size: int, kernel_size: int, stride: int) -> None:
    assert single_pool(parent_size, size) == (kernel_size, stride)


def test_each_axis_is_pooled_by_its_own_ratio() -> None:
    """From 10 x 6 cells to 2 x 1: the axes are independent."""
    generator = torch.Generator().manual_seed(0)
    parent, target = (4, BlockKind.RESIDUAL), (7, BlockKind.RESIDUAL)
    connection = Resample(parent, target, TINY, layers_of("tensorflow/tpu", "relu", None, None)).eval()
    initialize(connection, generator)
    x = torch.rand(1, TINY.width(*parent), 10, 6, generator=generator)
    with torch.no_grad():
        y = connection.down(connection.reduce(x).clamp(min=0)).clamp(min=0)  # type: ignore[misc]
        assert y.shape[-2:] == (5, 3)
        # Height: a kernel of 5 and a stride of 10 / 2 // 2 = 2 make 3 of 5 cells, of which a resize to 2 keeps the
        # first two. Width: a kernel of 5 and a stride of 6 / 1 // 2 = 3 make one of all 3.
        rows = [y[:, :, max(0, 2 * i - 2) : 2 * i + 3].amax(dim=(2, 3), keepdim=True) for i in range(2)]
        torch.testing.assert_close(connection(x, (2, 1)), connection.expand(torch.cat(rows, dim=2)))


@pytest.mark.parametrize(("dialect", "denominator"), [("tensorflow/tpu", 15), ("tensorflow/models", 16)])
def test_stochastic_depth_rises_with_the_block_and_spares_the_stem(dialect: str, denominator: int) -> None:
    network = build_backbone(SPINENET_49, SCALINGS["96"], dialect=dialect, stochastic_depth=0.2)
    assert isinstance(network, SpineNet)
    for node in network.nodes:
        for block in node.repeats:
            if node.node < 2:
                assert block.depth is None
            else:
                assert block.depth is not None
                assert block.depth.rate == pytest.approx(0.2 * (node.node - 1) / denominator)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_stochastic_depth_of_the_mobile_models_counts_their_16_blocks(dialect: str) -> None:
    network = build_backbone(MOBILE_49, SCALINGS["mobile-49"], dialect=dialect, stochastic_depth=0.2)
    assert isinstance(network, SpineNet)
    depths = [node.repeats[0].depth for node in network.nodes[2:]]
    assert [depth.rate for depth in depths if depth] == pytest.approx([0.2 * (i + 1) / 16 for i in range(16)])


def test_a_dropped_branch_leaves_the_shortcut_and_a_kept_one_is_scaled() -> None:
    depth = StochasticDepth(0.25, torch.Generator().manual_seed(0))
    branch = torch.ones(4000, 1, 1, 1)
    kept = depth(branch)
    assert sorted(kept.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert float((kept == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(depth.eval()(branch), branch)
    assert depth.train()(torch.ones(4, 2, 3, 3)).reshape(4, -1).std(dim=1).max() == 0, "a sample is dropped as a whole"


def test_stochastic_depth_follows_the_generator_and_leaves_the_initial_weights_alone() -> None:
    images = torch.randn(8, 3, 128, 128, generator=torch.Generator().manual_seed(0))

    def trained(seed: int, rate: float) -> Tensor:
        network = build_backbone(
            SPINENET_49, TINY, stochastic_depth=rate, generator=torch.Generator().manual_seed(seed)
        )
        assert isinstance(network, SpineNet)
        return network.train()(images)[3]

    before = torch.random.get_rng_state()
    assert torch.equal(trained(1, 0.5), trained(1, 0.5))
    assert not torch.equal(trained(1, 0.5), trained(1, 0.0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_kernels_of_depthwise_convolutions_start_as_in_tensorflow() -> None:
    network = build_backbone(MOBILE_49, SCALINGS["mobile-49"])
    kernel = network.node13.rep0.dw.conv.weight  # type: ignore[union-attr]
    assert kernel.shape == (480, 1, 3, 3)
    assert float(kernel.detach().std()) == pytest.approx((9 * 480) ** -0.5, rel=0.05)


def test_depthwise_kernels_of_mobile_connections_start_glorot_uniform_in_tensorflow_models() -> None:
    network = build_backbone(MOBILE_49, SCALINGS["mobile-49"], dialect="tensorflow/models")
    kernel = network.node16.in0.dw0.conv.weight.detach()  # type: ignore[union-attr]
    limit = math.sqrt(6 / (9 * kernel.shape[0] + 9))
    assert 0.98 * limit < float(kernel.abs().max()) <= limit
    assert float(kernel.std()) == pytest.approx(limit / 3**0.5, rel=0.05)
