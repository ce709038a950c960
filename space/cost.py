"""Parameters and multiply-adds of a backbone and its RetinaNet, by arithmetic alone; nothing is built.

Parameters are the trainable ones: kernels, biases, gamma and beta of batch norms, not moving statistics.
Multiply-adds are those of all convolutions for one image, the paper's "FLOPs" to 0.3 %. Blocks that reach no
output cost nothing. f is the width of a block's 3x3 convolution; a bottleneck takes and gives 4 f channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from spinenas.space.errors import GenotypeError, UserError
from spinenas.space.genotype import BlockKind, Genotype
from spinenas.space.graph import built_graph
from spinenas.space.scaling import STEM_CHANNELS, Scaling

MIN_IMAGE_SIZE = 96
"""Pixels. Below, levels 6 and 7 have the same size, and the originals' dangling rule means something else."""

ImageSize = int | tuple[int, int]
"""Side of a square in pixels, or (height, width)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Trainable parameters, and multiply-adds for one image."""

    params: int = 0
    madds: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.madds + other.madds)


def level_size(size: int, level: int) -> int:
    """Return the side of a feature map in cells, ceil(size / 2**level)."""
    return -(-size >> level)


def backbone_cost(genotype: Genotype, scaling: Scaling, image_size: ImageSize) -> Cost:
    """Return the cost of stem, blocks, connections and endpoints."""
    return _total(_backbone_parts(genotype, scaling, _height_width(image_size)))


def retinanet_cost(
    genotype: Genotype,
    scaling: Scaling,
    image_size: ImageSize,
    *,
    class_channels: int = 91,
    head_convs: int = 4,
    head_channels: int = 256,
    num_anchors: int = 9,
) -> Cost:
    """Return the cost of the whole detector; the head runs on the levels the genotype outputs."""
    return _total(
        cost_by_part(
            genotype,
            scaling,
            image_size,
            class_channels=class_channels,
            head_convs=head_convs,
            head_channels=head_channels,
            num_anchors=num_anchors,
        )
    )


def cost_by_part(
    genotype: Genotype,
    scaling: Scaling,
    image_size: ImageSize,
    *,
    class_channels: int = 91,
    head_convs: int = 4,
    head_channels: int = 256,
    num_anchors: int = 9,
) -> dict[str, Cost]:
    """Return the detector's cost as {"stem", "node00", "node01", ..., "endpoints", "head"}, in this order.

    "stem" is the 7x7 convolution alone; "node02" is a block with the connections that feed it. Nodes that are
    not built are left out.
    """
    size = _height_width(image_size)
    parts = _backbone_parts(genotype, scaling, size)
    levels = tuple(sorted(block.level for block in genotype.blocks if block.is_output))
    parts["head"] = _head(
        levels, size, scaling.endpoint_channels, class_channels, head_convs, head_channels, num_anchors
    )
    return parts


def _total(parts: dict[str, Cost]) -> Cost:
    return Cost(sum(cost.params for cost in parts.values()), sum(cost.madds for cost in parts.values()))


def _height_width(image_size: ImageSize) -> tuple[int, int]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < MIN_IMAGE_SIZE:
        raise UserError(f"image size is {image_size}; give at least {MIN_IMAGE_SIZE} pixels each way")
    return height, width


def _backbone_parts(genotype: Genotype, scaling: Scaling, size: tuple[int, int]) -> dict[str, Cost]:
    graph = built_graph(genotype)
    parts = {"stem": _conv_norm(7, 3, STEM_CHANNELS, _cells(size, 1))}
    endpoints = Cost()
    in_channels = STEM_CHANNELS
    kinds: dict[int, tuple[int, BlockKind]] = {}
    for node in graph.nodes:
        kinds[node.node] = (node.level, node.kind)
        out_channels = _out_channels(node.level, node.kind, scaling)
        if node.kind not in (BlockKind.BOTTLENECK, BlockKind.RESIDUAL):
            raise GenotypeError(
                f"block {node.node} is of kind {node.kind.value}; costs are known for bottleneck and residual"
            )
        if node.node < graph.num_stem:
            if node.level != 2:
                raise GenotypeError(f"stem block {node.node} has level {node.level}; costs are known for level 2")
            cost = _block(node.level, node.kind, in_channels, scaling, size)
            in_channels = out_channels
        else:
            cost = _block(node.level, node.kind, out_channels, scaling, size)
            for parent in node.parents:
                cost += _connection(*kinds[parent], node.level, node.kind, scaling, size)
        parts[f"node{node.node:02d}"] = cost
        if node.is_output:
            endpoints += _conv_norm(1, out_channels, scaling.endpoint_channels, _cells(size, node.level))
    parts["endpoints"] = endpoints
    return parts


def _cells(size: tuple[int, int], level: int) -> int:
    return level_size(size[0], level) * level_size(size[1], level)


def _out_channels(level: int, kind: BlockKind, scaling: Scaling) -> int:
    return scaling.channels(level) * (4 if kind == BlockKind.BOTTLENECK else 1)


def _conv_norm(kernel_size: int, in_channels: int, out_channels: int, cells: int) -> Cost:
    """A convolution without bias giving so many cells, and its batch norm (gamma and beta)."""
    weights = kernel_size**2 * in_channels * out_channels
    return Cost(weights + 2 * out_channels, weights * cells)


@lru_cache(maxsize=1024)
def _block(level: int, kind: BlockKind, in_channels: int, scaling: Scaling, size: tuple[int, int]) -> Cost:
    """All repeats of a block; a first one whose input has another width than its output has a projection."""
    f, cells = scaling.channels(level), _cells(size, level)
    out_channels = _out_channels(level, kind, scaling)
    total = Cost()
    for width in (in_channels, *[out_channels] * (scaling.block_repeats - 1)):
        if kind == BlockKind.BOTTLENECK:
            total += _conv_norm(1, width, f, cells) + _conv_norm(3, f, f, cells) + _conv_norm(1, f, 4 * f, cells)
        else:
            total += _conv_norm(3, width, f, cells) + _conv_norm(3, f, f, cells)
        if width != out_channels:
            total += _conv_norm(1, width, out_channels, cells)
    return total


@lru_cache(maxsize=8192)
def _connection(
    parent_level: int,
    parent_kind: BlockKind,
    level: int,
    kind: BlockKind,
    scaling: Scaling,
    size: tuple[int, int],
) -> Cost:
    """A resampling connection (SpineNet, Figure 5): 1x1, a strided 3x3 if it goes down in size, 1x1."""
    width = max(1, int(scaling.channels(parent_level) * scaling.resample_alpha))
    cost = _conv_norm(1, _out_channels(parent_level, parent_kind, scaling), width, _cells(size, parent_level))
    if level > parent_level:  # one strided convolution; the rest of the way is max-pooling, which is free
        cost += _conv_norm(3, width, width, _cells(size, parent_level + 1))
    return cost + _conv_norm(1, width, _out_channels(level, kind, scaling), _cells(size, level))


@lru_cache(maxsize=64)
def _head(
    levels: tuple[int, ...],
    size: tuple[int, int],
    endpoint_channels: int,
    class_channels: int,
    num_convs: int,
    channels: int,
    num_anchors: int,
) -> Cost:
    """Class and box towers and predictors: kernels and biases shared by levels, a batch norm per level."""
    cells = sum(_cells(size, level) for level in levels)
    params = weights = 0
    for predictions in (num_anchors * class_channels, num_anchors * 4):
        width = endpoint_channels
        for _ in range(num_convs):
            weights += 9 * width * channels
            params += channels + 2 * channels * len(levels)
            width = channels
        weights += 9 * width * predictions
        params += predictions
    return Cost(params + weights, weights * cells)
