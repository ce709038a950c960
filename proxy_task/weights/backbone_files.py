"""Writes a backbone for other programs, as safetensors or as ONNX, and reads what it wrote.

Each file carries the description of its network. Of an ONNX file only the description is read.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from spinenas.proxy_task.weights.weights_file import load_detector, load_tensors, read_header
from spinenas.results.export.description import (
    METADATA_KEY,
    ExportDescription,
    NetworkOptions,
    is_description,
    parse_description_text,
)
from spinenas.space.errors import UserError, explained_os_errors
from spinenas.space.network import Backbone, build_backbone

OPSET = 18
"""Operator set version of ONNX files."""


def initial_backbone(description: ExportDescription) -> Backbone:
    """Return a backbone with random weights, in evaluation mode. Raises UserError."""
    options = description.options or NetworkOptions()
    return build_backbone(description.architecture, description.scaling, **asdict(options)).eval()


def load_backbone(path: Path) -> Backbone:
    """Read the backbone in a file of `save_detector` or `safetensors_bytes`, in evaluation mode. Raises UserError."""
    if not is_backbone_file(path):
        return load_detector(path)[0].backbone
    backbone = initial_backbone(read_backbone_description(path))
    load_tensors(path, backbone)
    return backbone


def is_backbone_file(path: Path) -> bool:
    """Whether a safetensors file holds only a backbone. Raises UserError for another kind of file."""
    metadata, names = read_header(path)
    if METADATA_KEY in metadata:
        return is_description(metadata[METADATA_KEY])
    return any(name.startswith("stem.") for name in names)


def read_backbone_description(path: Path) -> ExportDescription:
    """Read the description in a file of `safetensors_bytes`. Raises UserError."""
    metadata, _ = read_header(path)
    if METADATA_KEY not in metadata:
        raise UserError(
            f"{path} holds a backbone's weights without a description of the network, as earlier versions wrote it; "
            "export it again"
        )
    return _description(metadata[METADATA_KEY], path)


def read_onnx_description(path: Path) -> ExportDescription:
    """Read the description in a file of `onnx_bytes`. Raises UserError, also without the package onnx."""
    check_onnx()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        with explained_os_errors(f"cannot read {path}", "name an exported file"):
            model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise UserError(f"{path} is not an ONNX model; name another file") from error
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not texts:
        raise UserError(
            f"{path} has no description of a network ({METADATA_KEY} in its metadata); name an ONNX model that "
            "`spinenas export` wrote"
        )
    return _description(texts[0], path)


def _description(text: str, path: Path) -> ExportDescription:
    try:
        return parse_description_text(text)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from error


def safetensors_bytes(backbone: Backbone, description: ExportDescription) -> bytes:
    """Return the backbone's state dict as the bytes of a safetensors file, with the description in its metadata."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in backbone.state_dict().items()}
    return save(tensors, {METADATA_KEY: description.to_text()})


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


def onnx_bytes(backbone: Backbone, image_size_pixels: int, description: ExportDescription) -> bytes:
    """Return an ONNX model from "images" (N, 3, S, S) float to "P3" ... "P7", for any N and a fixed size.

    The description is in the model's metadata.
    """
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
    model = program.model_proto
    model.metadata_props.add(key=METADATA_KEY, value=description.to_text())
    content: bytes = model.SerializeToString()
    return content
