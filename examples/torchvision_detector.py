"""Uses a SpineNet as the backbone of torchvision's detectors: one training step and one detection, on random images.

python examples/torchvision_detector.py [FILE]      # FILE: written by `spinenas export --format json`
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

from spinenas.results.export import read_genotype
from spinenas.space import SCALINGS
from spinenas.space.network import Backbone, build_backbone
from spinenas.space.published import SPINENET_49


class TorchvisionBackbone(nn.Module):
    """The backbone interface of torchvision's detectors: features by name, finest first, and `out_channels`."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.body = backbone
        self.out_channels = backbone.channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((f"P{level}", features) for level, features in self.body(images).items())


def main() -> None:
    try:
        from torchvision.models.detection import FasterRCNN, RetinaNet
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.ops import MultiScaleRoIAlign
    except ImportError:
        sys.exit(
            f"this example needs torchvision, which spinenas itself does not: install the release made for your torch "
            f"{torch.__version__} (see torchvision's table of versions); any other would replace your torch"
        )
    genotype = read_genotype(Path(sys.argv[1])) if len(sys.argv) > 1 else SPINENET_49
    images = [torch.rand(3, 256, 256), torch.rand(3, 192, 256)]
    targets = [{"boxes": torch.tensor([[20.0, 30, 120, 150]]), "labels": torch.tensor([1])} for _ in images]
    for detector_class in (RetinaNet, FasterRCNN):
        backbone = build_backbone(genotype, SCALINGS["49S"])
        outputs = backbone.feature_info
        sides = tuple((3 * output.stride,) for output in outputs)  # of the smallest anchor (SpineNet, section 4.1)
        options = {}
        if detector_class is RetinaNet:
            options["anchor_generator"] = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * len(outputs))
        else:
            options["rpn_anchor_generator"] = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * len(outputs))
            finest = [f"P{output.level}" for output in outputs[:4]]
            options["box_roi_pool"] = MultiScaleRoIAlign(finest, output_size=7, sampling_ratio=2)
        detector = detector_class(TorchvisionBackbone(backbone), num_classes=3, min_size=256, max_size=256, **options)
        sum(detector(images, targets).values()).backward()
        with torch.no_grad():
            (found, _) = detector.eval()(images)
        print(f"{detector_class.__name__}: trained a step, {len(found['boxes'])} detections in the first image")


if __name__ == "__main__":
    main()
