"""RetinaNet: class and box towers on the endpoints of a backbone (SpineNet, section 4.1; tensorflow/tpu `heads.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spinenas.proxy_task.anchors import anchor_boxes
from spinenas.proxy_task.config import HeadConfig
from spinenas.space.genotype import Genotype
from spinenas.space.network.blocks import Activation, activation_function, conv
from spinenas.space.network.spinenet import BN_EPS, BN_MOMENTUM, SpineNet, build_backbone
from spinenas.space.scaling import Scaling


class Tower(nn.Module):
    """3x3 convolutions with bias shared by the levels, a batch norm per level, and a predictor."""

    def __init__(
        self,
        levels: Sequence[int],
        *,
        in_channels: int,
        channels: int,
        num_convs: int,
        out_channels: int,
        bn_momentum: float,
        bn_eps: float,
        activation: Activation,
    ):
        super().__init__()
        self.activation = activation
        self.convs, self.bns = [], []
        for i in range(num_convs):
            layer = conv(channels if i else in_channels, channels, 3, bias=True)
            norms = nn.ModuleDict(
                {f"L{level}": nn.BatchNorm2d(channels, eps=bn_eps, momentum=bn_momentum) for level in levels}
            )
            self.add_module(f"conv{i}", layer)
            self.add_module(f"bn{i}", norms)
            self.convs.append(layer)
            self.bns.append(norms)
        self.predict = conv(channels if num_convs else in_channels, out_channels, 3, bias=True)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Map one level's features (N, C, h, w) to predictions (N, out_channels, h, w)."""
        for layer, norms in zip(self.convs, self.bns, strict=True):
            x = self.activation(norms[f"L{level}"](layer(x)))
        y: Tensor = self.predict(x)
        return y


class RetinaNet(nn.Module):
    """Backbone and head; predictions come in the order of `anchors`."""

    def __init__(self, backbone: SpineNet, cls: Tower, box: Tower, *, head: HeadConfig, class_channels: int):
        super().__init__()
        self.backbone = backbone
        self._head_config = head
        self.head = nn.ModuleDict({"cls": cls, "box": box})
        self.class_channels = class_channels

    def anchors(self, image_size: tuple[int, int]) -> Tensor:
        """Anchor boxes yxyx (A, 4) for images of (height, width), in the order of the predictions."""
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
                parts.append(y.permute(0, 2, 3, 1).reshape(len(images), -1, width).float())
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)


def build_retinanet(
    genotype: Genotype,
    scaling: Scaling,
    head: HeadConfig,
    *,
    class_channels: int,
    activation: str = "relu",
    bn_momentum: float = BN_MOMENTUM,
    bn_eps: float = BN_EPS,
    generator: torch.Generator | None = None,
) -> RetinaNet:
    """Build the detector of a genotype.

    Args:
        class_channels: classes plus the unused channel 0 (91 for published weights).
        generator: draws the weights; None for one seeded with 0.
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    backbone = build_backbone(
        genotype,
        scaling,
        activation=activation,
        bn_momentum=bn_momentum,
        bn_eps=bn_eps,
        generator=generator,
    )
    num_anchors = head.num_scales * len(head.aspect_ratios)
    towers = [
        Tower(
            backbone.levels,
            in_channels=backbone.channels,
            channels=head.channels,
            num_convs=head.num_convs,
            out_channels=num_anchors * width,
            bn_momentum=bn_momentum,
            bn_eps=bn_eps,
            activation=activation_function(activation),
        )
        for width in (class_channels, 4)
    ]
    network = RetinaNet(backbone, *towers, head=head, class_channels=class_channels)
    _initialize_head(network, generator)
    return network


def _initialize_head(network: RetinaNet, generator: torch.Generator) -> None:
    """Towers N(0, 0.01), predictors N(0, 1e-5), class bias at a prior of 0.01 (tensorflow/tpu `heads.py`)."""
    for name, tower in network.head.items():
        assert isinstance(tower, Tower)
        for layer in tower.convs:
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(tower.predict.weight, std=1e-5, generator=generator)
        nn.init.constant_(tower.predict.bias, -math.log(99) if name == "cls" else 0.0)  # type: ignore[arg-type]
