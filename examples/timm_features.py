"""Registers a SpineNet as a `features_only` model of timm: a list of features with a `feature_info`.

python examples/timm_features.py
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from spinenas.space import SCALINGS
from spinenas.space.network import Backbone, build_backbone
from spinenas.space.published import SPINENET_49


class TimmFeatures(nn.Module):
    """Maps images to a list of features, finest first; `feature_info` is a timm FeatureInfo."""

    def __init__(self, backbone: Backbone, out_indices: tuple[int, ...] | None = None) -> None:
        from timm.models import FeatureInfo

        super().__init__()
        self.body = backbone
        outputs = backbone.feature_info
        chosen = tuple(range(len(outputs))) if out_indices is None else tuple(out_indices)
        described = [
            {"num_chs": output.channels, "reduction": output.stride, "module": f"end{output.level}"}
            for output in outputs
        ]
        self.feature_info = FeatureInfo(described, chosen)
        self._levels = [outputs[index].level for index in chosen]

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        return [features[level] for level in self._levels]


def spinenet_49(pretrained: bool = False, **options: Any) -> TimmFeatures:
    """Entry point that `timm.create_model("spinenet_49", features_only=True)` calls."""
    if pretrained or not options.get("features_only"):
        raise ValueError("spinenet_49 has no pretrained weights and returns only features; pass features_only=True")
    return TimmFeatures(build_backbone(SPINENET_49, SCALINGS["49"]), options.get("out_indices"))


def main() -> None:
    try:
        import timm
        from timm.models import register_model
    except ImportError:
        sys.exit(
            f"this example needs torchvision and timm, which spinenas itself does not: first install the torchvision "
            f"release made for your torch {torch.__version__} (see torchvision's table of versions; any other would "
            "replace your torch), then timm"
        )
    register_model(spinenet_49)
    model = timm.create_model("spinenet_49", features_only=True, out_indices=(0, 1, 2)).eval()
    with torch.no_grad():
        features = model(torch.rand(1, 3, 256, 256))
    for channels, reduction, feature in zip(
        model.feature_info.channels(), model.feature_info.reduction(), features, strict=True
    ):
        print(f"{channels} channels at 1/{reduction}: {tuple(feature.shape)}")


if __name__ == "__main__":
    main()
