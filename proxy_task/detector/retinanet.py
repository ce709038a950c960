"""RetinaNet: class and box towers on the endpoints of a backbone (SpineNet, section 4.1; tensorflow/tpu `heads.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from spinenas.proxy_task.detector.anchors import anchor_boxes
from spinenas.proxy_task.detector.losses import at_least_float32
from spinenas.space.baseline import Architecture
from spinenas.space.head import HeadConfig
from spinenas.space.network import Backbone, build_backbone
from spinenas.space.network.build import BackboneOptions
from spinenas.space.network.layers import Layers, conv, draw_glorot
from spinenas.space.scaling import Scaling


class SeparableConv(nn.Module):
    """Depthwise 3x3 convolution and a 1x1 convolution with bias, as in the mobile heads."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.depthwise = conv(in_channels, in_channels, 3, groups=in_channels)
        self.pointwise = conv(in_channels, out_channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


class Tower(nn.Module):
    """3x3 convolutions with bias and a predictor, shared by all levels, with batch norms of each level's own."""

    def __init__(self, levels: Sequence[int], *, in_channels: int, head: HeadConfig, out_channels: int, layers: Layers):
        super().__init__()
        self.activation = layers.activation

        def convolution(width: int, channels: int) -> nn.Conv2d | SeparableConv:
            return SeparableConv(width, channels) if head.separable else conv(width, channels, 3, bias=True)

        self.convs, self.bns = [], []
        width = in_channels
        for i in range(head.num_convs):
            layer = convolution(width, head.channels)
            norms = nn.ModuleDict({f"L{level}": layers.norm(head.channels) for level in levels})
            self.add_module(f"conv{i}", layer)
            self.add_module(f"bn{i}", norms)
            self.convs.append(layer)
            self.bns.append(norms)
            width = head.channels
        self.predict = convolution(width, out_channels)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Map the features of one level (N, C, h, w) to predictions (N, out_channels, h, w)."""
        for layer, norms in zip(self.convs, self.bns, strict=True):
            x = self.activation(norms[f"L{level}"](layer(x)))
        y: Tensor = self.predict(x)
        return y


class RetinaNet(nn.Module):
    """Backbone and head; predictions are in the order of `anchors`."""

    def __init__(self, backbone: Backbone, cls: Tower, box: Tower, *, head: HeadConfig, class_channels: int):
        super().__init__()
        self.backbone = backbone
        self._head_config = head
        self.head = nn.ModuleDict({"cls": cls, "box": box})
        self.class_channels = class_channels

    def anchors(self, image_size: tuple[int, int]) -> Tensor:
        """Return the anchors yxyx (A, 4) of images of (height, width), in the order of the predictions."""
        head = self._head_config
        return anchor_boxes(
            image_size,
            self.backbone.levels,
            anchor_scale=head.anchor_scale,
            num_scales=head.num_scales,
            aspect_ratios=head.aspect_ratios,
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, 3, H, W) to class logits (N, A, class_channels) and box deltas (N, A, 4), float32."""
        features = self.backbone(images)
        logits: list[Tensor] = []
        deltas: list[Tensor] = []
        for level in sorted(features):
            for tower, parts, width in (("cls", logits, self.class_channels), ("box", deltas, 4)):
                y = self.head[tower](features[level], level)
                parts.append(at_least_float32(y.permute(0, 2, 3, 1).reshape(len(images), -1, width)))
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)


def build_retinanet(
    architecture: Architecture,
    scaling: Scaling,
    head: HeadConfig,
    *,
    class_channels: int,
    generator: torch.Generator | None = None,
    **options: Unpack[BackboneOptions],
) -> RetinaNet:
    """Build the detector of a genotype or a baseline. Arguments not described here are those of `build_backbone`.

    Args:
        class_channels: classes plus the unused channel 0 (91 for published weights).
        generator: draws the weights; None for one seeded with 0.
        options: dialect, activation, batch norm and stochastic depth.
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    backbone = build_backbone(architecture, scaling, generator=generator, **options)
    towers = [
        Tower(
            backbone.levels,
            in_channels=backbone.channels,
            head=head,
            out_channels=head.num_anchors * width,
            layers=backbone.layers,
        )
        for width in (class_channels, 4)
    ]
    network = RetinaNet(backbone, *towers, head=head, class_channels=class_channels)
    _initialize_head(network, generator)
    return network


def _initialize_head(network: RetinaNet, generator: torch.Generator) -> None:
    """Draw the initial weights of the head (tensorflow/tpu `heads.py`).

    Towers are N(0, 0.01), predictors N(0, 1e-5), and the class bias corresponds to a prior of 0.01. Separable
    convolutions are Glorot-uniform, TensorFlow's default, which both code bases use.
    """

    def draw(layer: nn.Conv2d | SeparableConv, std: float, bias: float) -> None:
        if isinstance(layer, SeparableConv):
            draw_glorot(layer.depthwise, generator)
            draw_glorot(layer.pointwise, generator)
            layer = layer.pointwise
        else:
            nn.init.normal_(layer.weight, std=std, generator=generator)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, bias)

    for name, tower in network.head.items():
        assert isinstance(tower, Tower)
        for layer in tower.convs:
            draw(layer, 0.01, 0.0)
        draw(tower.predict, 1e-5, -math.log(99) if name == "cls" else 0.0)
