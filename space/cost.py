"""Computes parameters and multiply-adds of a backbone and its RetinaNet by arithmetic, without building them.

Parameters are the trainable ones: kernels, biases, gamma and beta of batch norms, not moving statistics.
Multiply-adds are those of all convolutions for one image; the paper's "FLOPs" agree to 0.3 %. Blocks that reach no
output cost nothing. The number of convolutions, and of values that convolutions and resampling write, are counted as
well: time and memory depend on them. f is the width of a ResNet block's 3x3 convolution; a bottleneck has 4 f
channels at both ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypedDict, Unpack

from spinenas.space.baseline import RESNET_BLOCKS, RESNET_CHANNELS, Architecture, Baseline
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind, Genotype
from spinenas.space.graph import built_graph, stem_strides
from spinenas.space.scaling import EXPANSION, STEM_CHANNELS, Scaling, squeezed_channels

MIN_IMAGE_SIZE = 96
"""Pixels. In smaller images levels 6 and 7 have the same size, and the original dangling rule merges other blocks."""

_PYRAMID_LEVELS: tuple[int, ...] = (3, 4, 5, 6, 7)

ImageSize = int | tuple[int, int]
"""Side of a square in pixels, or (height, width)."""

Place = tuple[int, BlockKind]
"""Level and kind of a node, which determine the size and width of its features."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a network. Two costs are equal if parameters and multiply-adds are.

    Attributes:
        params: trainable parameters.
        madds: multiply-adds for one image.
        activations: values that convolutions and resampling write for one image.
        convs: convolutions that run for one batch; those of the head count once per level.
    """

    params: int = 0
    madds: int = 0
    activations: int = field(default=0, compare=False)
    convs: int = field(default=0, compare=False)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params,
            self.madds + other.madds,
            self.activations + other.activations,
            self.convs + other.convs,
        )


def level_size(size: int, level: int) -> int:
    """Return the side of a feature map in cells, ceil(size / 2**level)."""
    return -(-size >> level)


def backbone_cost(architecture: Architecture, scaling: Scaling, image_size: ImageSize) -> Cost:
    """Return the cost of stem, blocks, connections and endpoints, or of a baseline and its pyramid."""
    return sum(_backbone_parts(architecture, scaling, _height_width(image_size)).values(), Cost())


class HeadArguments(TypedDict, total=False):
    """Keyword arguments of `cost_by_part` that describe the head."""

    class_channels: int
    head_convs: int
    head_channels: int
    num_anchors: int
    separable_head: bool


def retinanet_cost(
    architecture: Architecture, scaling: Scaling, image_size: ImageSize, **head: Unpack[HeadArguments]
) -> Cost:
    """Return the cost of the whole detector, the total of `cost_by_part`."""
    return sum(cost_by_part(architecture, scaling, image_size, **head).values(), Cost())


def cost_by_part(
    architecture: Architecture,
    scaling: Scaling,
    image_size: ImageSize,
    *,
    class_channels: int = 91,
    head_convs: int = 4,
    head_channels: int = 256,
    num_anchors: int = 9,
    separable_head: bool = False,
) -> dict[str, Cost]:
    """Return the cost of each part of a detector, whose head runs on the output levels of the architecture.

    The parts are {"stem", "node00", "node01", ..., "endpoints", "head"}, in this order.
    "stem" is only the first convolution; "node02" is a block with the connections that feed it. Nodes that are not
    built are absent. A baseline has the parts {"stem", "stage2", ..., "stage5", "pyramid", "head"}.
    """
    size = _height_width(image_size)
    parts = _backbone_parts(architecture, scaling, size)
    levels = _PYRAMID_LEVELS
    if isinstance(architecture, Genotype):
        levels = tuple(sorted(block.level for block in architecture.blocks if block.is_output))
    parts["head"] = _head(
        levels, size, scaling.endpoint_channels, class_channels, head_convs, head_channels, num_anchors, separable_head
    )
    return parts


def _height_width(image_size: ImageSize) -> tuple[int, int]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < MIN_IMAGE_SIZE:
        raise UserError(f"image size is {image_size}; give at least {MIN_IMAGE_SIZE} pixels each way")
    return height, width


def _backbone_parts(architecture: Architecture, scaling: Scaling, size: tuple[int, int]) -> dict[str, Cost]:
    if isinstance(architecture, Baseline):
        return _baseline_parts(architecture, scaling, size)
    return _genotype_parts(architecture, scaling, size)


def _baseline_parts(baseline: Baseline, scaling: Scaling, size: tuple[int, int]) -> dict[str, Cost]:
    parts = {"stem": _conv_norm(7, 3, STEM_CHANNELS, _cells(size, 1))}
    in_channels, width = STEM_CHANNELS, scaling.endpoint_channels
    pyramid = Cost()
    for level, (base, repeats) in enumerate(zip(RESNET_CHANNELS, RESNET_BLOCKS[baseline.depth], strict=True), start=2):
        f = scaling.scaled(base)
        cost = Cost()
        for i in range(repeats):
            cost += _bottleneck(in_channels, f, 2 if level > 2 and i == 0 else 1, size, level)
            in_channels = 4 * f
        parts[f"stage{level}"] = cost
        if level in _PYRAMID_LEVELS:
            pyramid += _conv_bias(1, in_channels, width, _cells(size, level))
    for level in _PYRAMID_LEVELS:
        pyramid += _conv_bias(3, width, width, _cells(size, level)) + Cost(2 * width)
    parts["pyramid"] = pyramid
    return parts


def _genotype_parts(genotype: Genotype, scaling: Scaling, size: tuple[int, int]) -> dict[str, Cost]:
    strides = stem_strides(genotype)
    graph = built_graph(genotype)
    first_kind = graph.nodes[0].kind
    in_channels = scaling.stem_channels(first_kind)
    kernel_size = 3 if first_kind == BlockKind.MBCONV else 7
    parts = {"stem": _conv_norm(kernel_size, 3, in_channels, _cells(size, 1))}
    endpoints = Cost()
    sources: dict[int, Place] = {}
    for node in graph.nodes:
        sources[node.node] = target = (node.level, node.kind)
        width = scaling.width(*target)
        if node.node < graph.num_stem:
            cost = _block(*target, in_channels, strides[node.node], scaling, size)
            in_channels = width
        else:
            cost = _block(*target, width, 1, scaling, size)
            connection = _mobile_connection if node.kind == BlockKind.MBCONV else _connection
            for parent in node.parents:
                cost += connection(sources[parent], target, scaling, size)
        parts[f"node{node.node:02d}"] = cost
        if node.is_output:
            endpoints += _conv_norm(1, width, scaling.endpoint_channels, _cells(size, node.level))
    parts["endpoints"] = endpoints
    return parts


def _cells(size: tuple[int, int], level: int) -> int:
    return level_size(size[0], level) * level_size(size[1], level)


def _conv_norm(kernel_size: int, in_channels: int, out_channels: int, cells: int) -> Cost:
    """A convolution without bias and its batch norm (gamma and beta); `cells` is the size of its output."""
    weights = kernel_size**2 * in_channels * out_channels
    return Cost(weights + 2 * out_channels, weights * cells, out_channels * cells, 1)


def _depthwise_norm(channels: int, cells: int) -> Cost:
    """A depthwise 3x3 convolution and its batch norm; `cells` is the size of its output."""
    return Cost(9 * channels + 2 * channels, 9 * channels * cells, channels * cells, 1)


def _conv_bias(kernel_size: int, in_channels: int, out_channels: int, cells: int) -> Cost:
    """A convolution with bias; `cells` is the size of its output."""
    weights = kernel_size**2 * in_channels * out_channels
    return Cost(weights + out_channels, weights * cells, out_channels * cells, 1)


@lru_cache(maxsize=1024)
def _block(level: int, kind: BlockKind, in_channels: int, stride: int, scaling: Scaling, size: tuple[int, int]) -> Cost:
    """All repeats of a block; the first one has `in_channels` and `stride`."""
    cost_of = {BlockKind.BOTTLENECK: _bottleneck, BlockKind.RESIDUAL: _residual, BlockKind.MBCONV: _mbconv}[kind]
    channels, width = scaling.channels(level, kind), scaling.width(level, kind)
    total = cost_of(in_channels, channels, stride, size, level)
    for _ in range(scaling.block_repeats - 1):
        total += cost_of(width, channels, 1, size, level)
    return total


def _bottleneck(in_channels: int, f: int, stride: int, size: tuple[int, int], level: int) -> Cost:
    """A bottleneck with its stride in the 3x3; it has a projection if width or size change."""
    cells = _cells(size, level)
    total = _conv_norm(1, in_channels, f, _cells(size, level - 1) if stride == 2 else cells)
    total += _conv_norm(3, f, f, cells) + _conv_norm(1, f, 4 * f, cells)
    if stride > 1 or in_channels != 4 * f:
        total += _conv_norm(1, in_channels, 4 * f, cells)
    return total


def _residual(in_channels: int, f: int, stride: int, size: tuple[int, int], level: int) -> Cost:
    cells = _cells(size, level)
    total = _conv_norm(3, in_channels, f, cells) + _conv_norm(3, f, f, cells)
    if stride > 1 or in_channels != f:
        total += _conv_norm(1, in_channels, f, cells)
    return total


def _mbconv(in_channels: int, channels: int, stride: int, size: tuple[int, int], level: int) -> Cost:
    """Expansion, depthwise 3x3 with the stride, squeeze-excite on one cell, projection."""
    cells = _cells(size, level)
    wide, squeezed = EXPANSION * in_channels, squeezed_channels(in_channels)
    total = _conv_norm(1, in_channels, wide, _cells(size, level - 1) if stride == 2 else cells)
    total += _depthwise_norm(wide, cells)
    total += _conv_bias(1, wide, squeezed, 1) + _conv_bias(1, squeezed, wide, 1)
    return total + _conv_norm(1, wide, channels, cells)


@lru_cache(maxsize=8192)
def _connection(parent: Place, target: Place, scaling: Scaling, size: tuple[int, int]) -> Cost:
    """A resampling connection (SpineNet, Figure 5): 1x1, a strided 3x3 if it reduces the size, 1x1."""
    parent_level, level, inner = parent[0], target[0], scaling.connection_width(*parent)
    cost = _conv_norm(1, scaling.width(*parent), inner, _cells(size, parent_level))
    if level > parent_level:  # one strided convolution; the rest is max-pooling, without multiply-adds
        cost += _conv_norm(3, inner, inner, _cells(size, parent_level + 1))
    if level not in (parent_level, parent_level + 1):
        cost += Cost(activations=inner * _cells(size, level))
    return cost + _conv_norm(1, inner, scaling.width(*target), _cells(size, level))


@lru_cache(maxsize=8192)
def _mobile_connection(parent: Place, target: Place, scaling: Scaling, size: tuple[int, int]) -> Cost:
    """A resampling connection of the mobile models: a depthwise 3x3 for each halving, 1x1."""
    parent_level, level, width = parent[0], target[0], scaling.width(*parent)
    cost = Cost()
    for passed in range(parent_level + 1, level + 1):
        cost += _depthwise_norm(width, _cells(size, passed))
    if level < parent_level:
        cost += Cost(activations=width * _cells(size, level))
    return cost + _conv_norm(1, width, scaling.width(*target), _cells(size, level))


@lru_cache(maxsize=64)
def _head(
    levels: tuple[int, ...],
    size: tuple[int, int],
    endpoint_channels: int,
    class_channels: int,
    num_convs: int,
    channels: int,
    num_anchors: int,
    separable: bool,
) -> Cost:
    """Class and box towers with predictors: all levels share kernels and biases, each level has its batch norms."""
    cells = sum(_cells(size, level) for level in levels)
    again = Cost(convs=len(levels) - 1)

    def convolution(width: int, out_channels: int) -> Cost:
        if separable:
            depthwise = Cost(9 * width, 9 * width * cells, width * cells, 1)
            return depthwise + again + _conv_bias(1, width, out_channels, cells) + again
        return _conv_bias(3, width, out_channels, cells) + again

    total = Cost()
    for predictions in (num_anchors * class_channels, num_anchors * 4):
        width = endpoint_channels
        for _ in range(num_convs):
            total += convolution(width, channels) + Cost(2 * channels * len(levels))
            width = channels
        total += convolution(width, predictions)
    return total
