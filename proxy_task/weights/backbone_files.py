"""Exports a backbone for other programs: its weights as safetensors, or the backbone as ONNX."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from spinenas.proxy_task.weights.weights_file import load_detector
from spinenas.results.export.python_source import NetworkOptions
from spinenas.space.baseline import Architecture
from spinenas.space.errors import UserError
from spinenas.space.network import Backbone, build_backbone
from spinenas.space.scaling import Scaling

OPSET = 18
"""Operator set version of ONNX files."""


def backbone_of(
    architecture: Architecture, scaling: Scaling, weights: Path | None, options: NetworkOptions | None = None
) -> Backbone:
    """Return a backbone in evaluation mode: that of a weights file, or one with initial weights. Raises UserError.

    Args:
        architecture, scaling, options: the backbone to build; a weights file has its own.
        weights: the weights file.
    """
    if weights is not None:
        return load_detector(weights)[0].backbone
    return build_backbone(architecture, scaling, **asdict(options or NetworkOptions())).eval()


def safetensors_bytes(backbone: Backbone) -> bytes:
    """Return the backbone's state dict as the bytes of a safetensors file."""
    return save({name: tensor.detach().contiguous() for name, tensor in backbone.state_dict().items()})


class _Outputs(nn.Module):
    """A backbone that returns a tuple, finest level first."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(images).values())


def check_onnx() -> None:
    """Raise UserError without the extra `spinenas[onnx]`."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the format onnx needs packages that are not installed; pip install 'spinenas[onnx]' or, in a clone, "
            "pip install -e '.[onnx]' -c constraints.txt"
        ) from error


def onnx_bytes(backbone: Backbone, image_size_pixels: int) -> bytes:
    """Return an ONNX model from "images" (N, 3, S, S) float to "P3" ... "P7", for any N and a fixed size."""
    images = torch.zeros(2, 3, image_size_pixels, image_size_pixels)
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)  # it reports four times that torchvision is not installed
    try:
        with warnings.catch_warnings(action="ignore"):  # about torch's own code
            program = torch.onnx.export(
                _Outputs(backbone).eval(),
                (images,),
                input_names=["images"],
                output_names=[f"P{level}" for level in backbone.levels],
                dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content
