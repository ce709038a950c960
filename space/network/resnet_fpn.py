"""The torch module of the paper's baseline: a ResNet with a feature pyramid of levels 3 to 7 (SpineNet, section 5.2).

ResNet v1 with the stride in the 3x3 convolution; the pyramid as both code bases build it (tensorflow/tpu `fpn.py`): 1x1
with bias on levels 3 to 5, nearest upsampling and sums, 3x3 with bias, levels 6 and 7 by strided 3x3 convolutions
from the level below (padded as SAME in both), and a batch norm at the end of every level. Tensors are NCHW.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinenas.space.baseline import RESNET_BLOCKS, RESNET_CHANNELS, Baseline
from spinenas.space.network.blocks import Bottleneck
from spinenas.space.network.layers import ConvNorm, FeatureInfo, Layers, conv, draw_glorot, feature_info
from spinenas.space.network.resample import max_pool_same
from spinenas.space.scaling import STEM_CHANNELS, Scaling


class ResNetFPN(nn.Module):
    """A ResNet-FPN; `build_backbone` creates it.

    Attributes:
        baseline, scaling, layers: the data it was built from.
        levels: output levels, ascending.
        channels: channels of every level.
    """

    levels = (3, 4, 5, 6, 7)

    def __init__(self, baseline: Baseline, scaling: Scaling, layers: Layers):
        super().__init__()
        self.baseline, self.scaling, self.layers = baseline, scaling, layers
        self.channels, self.activation = scaling.endpoint_channels, layers.activation
        self.stem = ConvNorm(3, STEM_CHANNELS, 7, layers, stride=2)
        in_channels = STEM_CHANNELS
        self.stages: dict[int, nn.Sequential] = {}
        stages = zip(RESNET_CHANNELS, RESNET_BLOCKS[baseline.depth], strict=True)
        for level, (base, repeats) in enumerate(stages, start=2):
            channels = scaling.scaled(base)
            blocks = []
            for i in range(repeats):
                blocks.append(Bottleneck(in_channels, channels, layers, stride=2 if level > 2 and i == 0 else 1))
                in_channels = 4 * channels
            self.stages[level] = nn.Sequential(*blocks)
            self.add_module(f"stage{level}", self.stages[level])
        for level in self.levels:
            if level <= 5:
                lateral = conv(4 * scaling.scaled(RESNET_CHANNELS[level - 2]), self.channels, 1, bias=True)
                self.add_module(f"lateral{level}", lateral)
            stride = 1 if level <= 5 else 2
            self.add_module(
                f"smooth{level}", conv(self.channels, self.channels, 3, stride=stride, bias=True, same=True)
            )
            self.add_module(f"bn{level}", layers.norm(self.channels))

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """Level, stride and channels of each output, levels ascending."""
        return feature_info(self.levels, self.channels)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map (N, 3, H, W) to {level: (N, channels, ceil(H / 2**level), ceil(W / 2**level))}, levels ascending."""
        x = max_pool_same(self.activation(self.stem(images)), (3, 3), (2, 2))
        laterals: dict[int, Tensor] = {}
        for level, stage in self.stages.items():
            x = stage(x)
            if level in self.levels:
                laterals[level] = getattr(self, f"lateral{level}")(x)
        for level in (4, 3):
            above = functional.interpolate(laterals[level + 1], size=laterals[level].shape[-2:], mode="nearest")
            laterals[level] = laterals[level] + above
        features = {level: getattr(self, f"smooth{level}")(x) for level, x in laterals.items()}
        features[6] = getattr(self, "smooth6")(features[5])  # noqa: B009 (made by add_module, unknown to types)
        # A copy, because the activation may work in place and level 6 is read again below.
        activation = functional.relu if self.layers.dialect.pyramid_relu else self.activation
        features[7] = getattr(self, "smooth7")(activation(features[6].clone()))  # noqa: B009
        return {level: getattr(self, f"bn{level}")(x) for level, x in features.items()}

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the pyramid's kernels again if the dialect initialises them Glorot-uniform."""
        if self.layers.dialect.glorot_pyramid:
            for layer in self.children():
                if isinstance(layer, nn.Conv2d):  # laterals and smoothing; the ResNet's convolutions are nested deeper
                    draw_glorot(layer, generator)

    def network_key(self) -> str:
        """Identity of the blocks that were built."""
        repeats = tuple(len(stage) for stage in self.stages.values())
        depths = [depth for depth, blocks in RESNET_BLOCKS.items() if blocks == repeats]
        return Baseline(depths[0]).key
