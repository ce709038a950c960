"""The torch module of a genotype, in the dialect of either public code base.

Only blocks that reach an output are built. The input is NCHW; the output is one map per output level, after a 1x1
convolution, BN and activation (SpineNet, section 3.1). Module names are the canonical weight names: `stem`,
`node02.in0.reduce`, `node02.rep0.conv1`, `end3`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spinenas.space.genotype import BlockKind, Genotype
from spinenas.space.graph import BuiltGraph, BuiltNode, built_graph, canonical_key, stem_strides
from spinenas.space.network.blocks import BLOCKS, Block
from spinenas.space.network.layers import ConvNorm, FeatureInfo, Layers, StochasticDepth, feature_info
from spinenas.space.network.resample import MobileResample, Resample, max_pool_same
from spinenas.space.random_streams import seed_for
from spinenas.space.scaling import Scaling


class Node(nn.Module):
    """A block of the graph: sums its resampled parents, activates, and runs the repeated blocks.

    Attributes:
        node, level, parents, merged, is_output: as in `BuiltNode`; the forward pass uses them.
    """

    def __init__(
        self,
        spec: BuiltNode,
        *,
        sources: dict[int, tuple[int, BlockKind]],
        stem_input: tuple[int, int] | None,
        scaling: Scaling,
        layers: Layers,
        depth: StochasticDepth | None,
    ):
        """Build a node; `sources`: (level, kind) by node; `stem_input`: (channels, stride) of a stem block, or None."""
        super().__init__()
        self.node, self.level, self.is_output = spec.node, spec.level, spec.is_output
        self.parents, self.merged = spec.parents, spec.merged
        self.activation = layers.activation
        target = (spec.level, spec.kind)
        width = scaling.width(*target)
        self.inputs: list[Resample | MobileResample] = []
        if stem_input is None:
            connect = MobileResample if spec.kind == BlockKind.MBCONV else Resample
            for i, parent in enumerate(spec.parents):
                connection = connect(sources[parent], target, scaling, layers)
                self.add_module(f"in{i}", connection)
                self.inputs.append(connection)
        self.repeats: list[Block] = []
        first_channels, stride = stem_input or (width, 1)
        for i in range(scaling.block_repeats):
            block = BLOCKS[spec.kind](
                width if i else first_channels,
                scaling.channels(*target),
                layers,
                stride=1 if i else stride,
                depth=depth,
            )
            self.add_module(f"rep{i}", block)
            self.repeats.append(block)

    def fuse(self, features: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Sum the resampled parents and then the merged dangling blocks, and apply the activation."""
        x: Tensor = self.inputs[0](features[self.parents[0]], size)
        for parent, connection in zip(self.parents[1:], self.inputs[1:], strict=True):
            x = x + connection(features[parent], size)
        for dangling in self.merged:
            x = x + features[dangling]
        return self.activation(x)

    def forward(self, features: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Compute the features of this node from those of earlier nodes, by node number."""
        x = self.fuse(features, size) if self.inputs else features[self.node - 1]
        for block in self.repeats:
            x = block(x)
        return x


class SpineNet(nn.Module):
    """A scale-permuted backbone; `build_backbone` creates it.

    Attributes:
        genotype, scaling, layers: the data it was built from.
        levels: output levels, ascending.
        channels: channels of every endpoint.
    """

    def __init__(
        self,
        genotype: Genotype,
        scaling: Scaling,
        layers: Layers,
        *,
        stochastic_depth: float,
        generator: torch.Generator,
    ):
        """Build the modules; `generator` seeds stochastic depth."""
        super().__init__()
        self.genotype, self.scaling, self.layers = genotype, scaling, layers
        strides = stem_strides(genotype)
        graph = built_graph(genotype)
        self.num_stem = graph.num_stem
        self.activation = layers.activation
        first_kind = graph.nodes[0].kind
        channels = scaling.stem_channels(first_kind)
        self.has_max_pool = first_kind != BlockKind.MBCONV
        self.stem = ConvNorm(3, channels, 7 if self.has_max_pool else 3, layers, stride=2)
        sources = {spec.node: (spec.level, spec.kind) for spec in graph.nodes}
        num_rated = len(genotype.blocks) + (layers.dialect.unused_blocks if self.has_max_pool else 0)
        dropped = torch.Generator().manual_seed(seed_for(generator.initial_seed(), "stochastic-depth"))
        self.nodes: list[Node] = []
        for spec in graph.nodes:
            in_stem = spec.node < graph.num_stem
            depth = None
            if stochastic_depth and not in_stem:
                rate = stochastic_depth * (spec.node - graph.num_stem + 1) / num_rated
                depth = StochasticDepth(rate, dropped)
            node = Node(
                spec,
                sources=sources,
                stem_input=(channels, strides[spec.node]) if in_stem else None,
                scaling=scaling,
                layers=layers,
                depth=depth,
            )
            channels = scaling.width(spec.level, spec.kind)
            self.add_module(f"node{spec.node:02d}", node)
            self.nodes.append(node)
        self.channels = scaling.endpoint_channels
        self.outputs: dict[int, int] = {}
        for spec in sorted(graph.nodes, key=lambda spec: spec.level):
            if spec.is_output:
                self.outputs[spec.level] = spec.node
                width = scaling.width(spec.level, spec.kind)
                self.add_module(f"end{spec.level}", ConvNorm(width, self.channels, 1, layers))
        self.levels = tuple(self.outputs)

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """Level, stride and channels of each output, levels ascending."""
        return feature_info(self.levels, self.channels)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map (N, 3, H, W) to {level: (N, channels, ceil(H / 2**level), ceil(W / 2**level))}, levels ascending."""
        height, width = images.shape[-2:]
        x = self.activation(self.stem(images))
        if self.has_max_pool:
            x = max_pool_same(x, (3, 3), (2, 2))
        features = {-1: x}
        for node in self.nodes:
            size = (-(-height // 2**node.level), -(-width // 2**node.level))
            features[node.node] = node(features, size)
        return {
            level: self.activation(getattr(self, f"end{level}")(features[node])) for level, node in self.outputs.items()
        }

    def realised_graph(self) -> BuiltGraph:
        """Read the graph back from the modules of the forward pass, not from the genotype."""
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
        """Identity of the modules that were built; it equals `spinenas.space.graph.network_key` of the genotype."""
        return canonical_key(self.realised_graph())
