"""Writing what a command was pointed at in any of the formats of `spinenas export`."""

from __future__ import annotations

from pathlib import Path

from spinenas.results.export.architecture_files import FORMATS, export_genotype
from spinenas.results.export.python_source import NetworkOptions, mmdet_files, python_module
from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.search.cli.target import Target
from spinenas.space.errors import UserError, nearest
from spinenas.space.scaling import Scaling

EXPORT_FORMATS = (*FORMATS, "python", "mmdet", "safetensors", "onnx")
"""json and block-specs: the architecture. python: one file that needs PyTorch alone. mmdet: a folder of a backbone and
a config for MMDetection 3. safetensors, onnx: of the backbone, with the weights of a weights file or fresh ones."""


def export_target(
    target: Target, path: Path, *, format: str, scaling: Scaling, image_size_pixels: int | None, force: bool
) -> None:
    """Write an architecture to a file, or a folder for "mmdet", whole or not at all. Raises UserError.

    Args:
        target: what to write.
        path: where.
        format: one of EXPORT_FORMATS.
        scaling: width and depth; a file with weights has its own.
        image_size_pixels: side of the square input of an ONNX model; None for what the target is meant for.
        force: replace what is there.
    """
    if format not in EXPORT_FORMATS:
        raise UserError(f"export format {format!r} is unknown{nearest(format, EXPORT_FORMATS)}")
    if format in FORMATS:
        export_genotype(target.genotype, path, format=format, scaling=scaling, force=force)
        return
    if image_size_pixels is not None and format != "onnx":
        raise UserError(f"--image-size is of the format onnx; {format} takes images of any size")
    if target.weights is not None and scaling != target.scaling:
        raise UserError(f"{target.weights} has weights of scaling {target.scaling.name!r}; leave --scaling out")
    if format == "mmdet":
        files = mmdet_files(target.genotype, scaling, target.name, _options(target))
        contents = {path / name: text.encode() for name, text in files.items()}
    elif format == "python":
        contents = {path: python_module(target.genotype, scaling, target.name, _options(target)).encode()}
    else:
        contents = {path: b""}
    for file in contents:
        if file.exists() and not force:
            raise UserError(f"{file} exists already; choose another file, or force its replacement")
    if format in ("safetensors", "onnx"):
        contents[path] = _network_file(target, scaling, format, image_size_pixels)
    try:
        if format == "mmdet":
            path.mkdir(exist_ok=True)
        for file, content in contents.items():
            write_bytes_atomically(file, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a place that can be written") from error


def _options(target: Target) -> NetworkOptions:
    if target.weights is None:
        return NetworkOptions()
    from spinenas.proxy_task.weights.weights_file import read_spec  # torch

    spec = read_spec(target.weights)
    return NetworkOptions(spec.dialect, spec.activation, spec.bn_momentum, spec.bn_eps)


def _network_file(target: Target, scaling: Scaling, format: str, image_size_pixels: int | None) -> bytes:
    from spinenas.proxy_task.weights.backbone_files import backbone_of, onnx_bytes, safetensors_bytes  # torch

    backbone = backbone_of(target.architecture, scaling, target.weights)
    if format == "safetensors":
        return safetensors_bytes(backbone)
    return onnx_bytes(backbone, image_size_pixels or target.detector["image_size"])
