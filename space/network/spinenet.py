"""A genotype as a torch module, in the dialect of tensorflow/tpu (the one of the paper's numbers and weights).

Only blocks that reach an output are built. The input is NCHW; what comes out is one map per output level, after a
1x1 convolution, BN and activation (SpineNet, section 3.1). Module names are the canonical weight names: `stem`,
`node02.in0.reduce`, `node02.rep0.conv1`, `end3`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spinenas.space.errors import GenotypeError, UserError
from spinenas.space.genotype import BlockKind, Genotype
from spinenas.space.graph import BuiltGraph, BuiltNode, built_graph, canonical_key
from spinenas.space.network.blocks import (
    BLOCKS,
    Activation,
    ConvNorm,
    NormFactory,
    activation_function,
    initialize,
    output_channels,
)
from spinenas.space.network.resample import Resample, max_pool_same
from spinenas.space.scaling import STEM_CHANNELS, Scaling

DIALECTS = ("tensorflow/tpu",)
BN_MOMENTUM, BN_EPS = 0.003, 1e-4
"""tensorflow/tpu `config/base_config.py`: momentum 0.997 in TensorFlow's sense, epsilon 1e-4."""


class Node(nn.Module):
    """A block of the graph: its resampled parents are summed, activated, and sent through the repeats.

    Attributes:
        node, level, parents, merged, is_output: as in `BuiltNode`; the forward pass goes by them.
    """

    def __init__(
        self,
        spec: BuiltNode,
        *,
        sources: dict[int, tuple[int, BlockKind]],
        in_channels: int | None,
        scaling: Scaling,
        norm: NormFactory,
        activation: Activation,
    ):
        """Build one node; `sources` gives (level, kind) by node, `in_channels` is given for stem blocks."""
        super().__init__()
        self.node, self.level, self.is_output = spec.node, spec.level, spec.is_output
        self.parents, self.merged = spec.parents, spec.merged
        self.activation = activation
        channels = scaling.channels(spec.level)
        width = output_channels(spec.kind, channels)
        self.inputs: list[Resample] = []
        if in_channels is None:
            for i, parent in enumerate(spec.parents):
                level, kind = sources[parent]
                connection = Resample(
                    parent_level=level,
                    parent_kind=kind,
                    parent_channels=scaling.channels(level),
                    level=spec.level,
                    channels=width,
                    alpha=scaling.resample_alpha,
                    norm=norm,
                    activation=activation,
                )
                self.add_module(f"in{i}", connection)
                self.inputs.append(connection)
        self.repeats = []
        for i in range(scaling.block_repeats):
            first_channels = width if in_channels is None or i else in_channels
            block = BLOCKS[spec.kind](first_channels, channels, norm, activation)
            self.add_module(f"rep{i}", block)
            self.repeats.append(block)

    def fuse(self, features: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Sum the resampled parents and the merged dangling blocks, in this order, and activate."""
        x: Tensor = self.inputs[0](features[self.parents[0]], size)
        for parent, connection in zip(self.parents[1:], self.inputs[1:], strict=True):
            x = x + connection(features[parent], size)
        for dangling in self.merged:
            x = x + features[dangling]
        return self.activation(x)

    def forward(self, features: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Map the features of earlier nodes, by node number, to this one's."""
        x = self.fuse(features, size) if self.inputs else features[self.node - 1]
        for block in self.repeats:
            x = block(x)
        return x


class SpineNet(nn.Module):
    """Scale-permuted backbone. Made by `build_backbone`.

    Attributes:
        genotype, scaling: what it was built from.
        levels: output levels, ascending.
        channels: channels of every endpoint.
    """

    def __init__(self, genotype: Genotype, scaling: Scaling, *, norm: NormFactory, activation: Activation):
        super().__init__()
        self.genotype, self.scaling = genotype, scaling
        graph = built_graph(genotype)
        self.num_stem = graph.num_stem
        self.activation = activation
        if graph.nodes[0].level != 2:
            raise GenotypeError(
                f"the first stem block has level {graph.nodes[0].level}; the ResNet-type stem ends at level 2"
            )
        self.stem = ConvNorm(3, STEM_CHANNELS, 7, norm, stride=2)
        sources = {spec.node: (spec.level, spec.kind) for spec in graph.nodes}
        self.nodes: list[Node] = []
        for spec in graph.nodes:
            if spec.kind not in BLOCKS:
                raise GenotypeError(
                    f"block {spec.node} is {spec.kind!s}; the ResNet-type builder knows {', '.join(BLOCKS)}"
                )
            in_channels = None
            if spec.node < graph.num_stem:
                in_channels = STEM_CHANNELS
                if spec.parents:
                    level, kind = sources[spec.parents[0]]
                    in_channels = output_channels(kind, scaling.channels(level))
            node = Node(
                spec,
                sources=sources,
                in_channels=in_channels,
                scaling=scaling,
                norm=norm,
                activation=activation,
            )
            self.add_module(f"node{spec.node:02d}", node)
            self.nodes.append(node)
        self.channels = scaling.endpoint_channels
        self.outputs: dict[int, int] = {}
        for spec in sorted(graph.nodes, key=lambda spec: spec.level):
            if spec.is_output:
                self.outputs[spec.level] = spec.node
                width = output_channels(spec.kind, scaling.channels(spec.level))
                self.add_module(f"end{spec.level}", ConvNorm(width, self.channels, 1, norm))
        self.levels = tuple(self.outputs)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map (N, 3, H, W) to {level: (N, channels, ceil(H / 2**level), ceil(W / 2**level))}, levels ascending."""
        height, width = images.shape[-2:]
        x = max_pool_same(self.activation(self.stem(images)), 3, 2)
        features = {-1: x}
        for node in self.nodes:
            size = (-(-height // 2**node.level), -(-width // 2**node.level))
            features[node.node] = node(features, size)
        return {
            level: self.activation(getattr(self, f"end{level}")(features[node])) for level, node in self.outputs.items()
        }

    def realised_graph(self) -> BuiltGraph:
        """Read the graph back from the modules that the forward pass uses, not from the genotype."""
        nodes = tuple(
            BuiltNode(
                node=node.node,
                level=node.level,
                kind=node.repeats[0].kind,
                parents=node.parents,
                merged=node.merged,
                is_output=self.outputs.get(node.level) == node.node,
            )
            for node in self.nodes
        )
        return BuiltGraph(num_stem=self.num_stem, nodes=nodes)

    def network_key(self) -> str:
        """Identity of what was really built; equals `spinenas.space.graph.network_key` of the genotype."""
        return canonical_key(self.realised_graph())


def build_backbone(
    genotype: Genotype,
    scaling: Scaling,
    *,
    dialect: str = "tensorflow/tpu",
    activation: str = "relu",
    bn_momentum: float = BN_MOMENTUM,
    bn_eps: float = BN_EPS,
    generator: torch.Generator | None = None,
) -> SpineNet:
    """Build the backbone of a genotype.

    Args:
        genotype: blocks of kind residual and bottleneck on a level-2 stem.
        scaling: width, alpha and repeats.
        dialect: whose padding and pooling rules; "tensorflow/tpu".
        activation: "relu" or "swish".
        bn_momentum, bn_eps: of every batch norm, in PyTorch's sense.
        generator: draws the weights; None for one seeded with 0.

    Returns:
        A module that maps images (N, 3, H, W) float to {3: (N, C, H/8, W/8), ..., 7: ...}.

    Raises:
        UserError: for another dialect or activation.
        GenotypeError: for another stem or block kind.
    """
    if dialect not in DIALECTS:
        raise UserError(f"dialect is {dialect!r}; known are {', '.join(DIALECTS)}")

    def norm(channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=bn_eps, momentum=bn_momentum)

    network = SpineNet(genotype, scaling, norm=norm, activation=activation_function(activation))
    initialize(network, generator if generator is not None else torch.Generator().manual_seed(0))
    return network


def num_parameters(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def count_madds(module: nn.Module, images: Tensor, forward: Callable[[Tensor], object] | None = None) -> int:
    """Count the multiply-adds of all convolutions that really run on these images, per image.

    Run it on meta tensors to pay nothing: `count_madds(module.to("meta"), torch.empty(1, 3, 640, 640, device="meta"))`.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += layer.weight[0].numel() * output[0].numel()

    handles = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    try:
        with torch.no_grad():
            (forward or module)(images)
    finally:
        for handle in handles:
            handle.remove()
    return total
