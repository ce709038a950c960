"""`spinenas export`: writes an architecture to a file for other programs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click

from spinenas.proxy_task.config import is_image_size
from spinenas.results.export.architecture_files import FORMATS, export_genotype
from spinenas.results.export.python_source import NetworkOptions, RetinaHead, mmdet_files, python_module
from spinenas.results.storage.atomic_write import check_destination, write_bytes_atomically
from spinenas.search.cli.architecture_argument import ArchitectureArgument, find_architecture
from spinenas.search.cli.options import architecture_argument, force_option, note, path_option
from spinenas.space.dialect import DIALECTS
from spinenas.space.errors import UserError, explained_os_errors, nearest
from spinenas.space.scaling import SCALINGS, Scaling

EXPORT_FORMATS = (*FORMATS, "python", "mmdet", "safetensors", "onnx")


@click.command()
@architecture_argument
@click.option(
    "--format",
    required=True,
    metavar="FORMAT",
    help=f"Format of the file: {', '.join(EXPORT_FORMATS[:-1])} or {EXPORT_FORMATS[-1]}.",
)
@path_option("--out", "File to write; a folder for mmdet.", required=True)
@click.option("--scaling", metavar="NAME", help="Width and depth to build the backbone with, such as 49 or 96.")
@click.option(
    "--activation",
    type=click.Choice(["relu", "swish"]),
    help="Activation of the backbone. The default is that of the search or weights file, else relu.",
)
@click.option(
    "--dialect",
    metavar="NAME",
    type=click.Choice(list(DIALECTS)),
    help=f"Rules of padding, pooling and batch norm: {' or '.join(DIALECTS)}. The default is that of the search or "
    "weights file, else tensorflow/tpu.",
)
@click.option(
    "--image-size",
    type=int,
    metavar="PIXELS",
    help="Side of the square input of an ONNX model, a multiple of 32 and at least 96.",
)
@force_option
def export(
    architecture: tuple[str, ...],
    format: str,
    out: Path,
    scaling: str | None,
    activation: str | None,
    dialect: str | None,
    image_size: int | None,
    force: bool,
) -> None:
    """Write an architecture to a file for other programs.

    \b
    json, block-specs  the architecture
    python             one file that defines the backbone and needs PyTorch alone
    mmdet              a folder with a backbone and a config for MMDetection 3
    safetensors, onnx  the backbone with weights: those of a weights file, else fresh ones

    The default scaling of a searched architecture is 49, full width. A published model has its own scaling, and so has
    a file that names one.

    Except in json and block-specs, activation and dialect change what the backbone computes. The command prints both.
    """
    if format not in EXPORT_FORMATS:
        raise UserError(f"export format {format!r} is unknown{nearest(format, EXPORT_FORMATS)}")
    if scaling is not None and scaling not in SCALINGS:
        raise UserError(f"scaling {scaling!r} is unknown{nearest(scaling, SCALINGS)}")
    if image_size is not None and format != "onnx":
        raise UserError(f"--image-size belongs to the format onnx; a {format} file takes images of any size")
    if image_size is not None and not is_image_size(image_size):
        raise UserError(f"--image-size is {image_size}; it must be a multiple of 32, and at least 96")
    if format in FORMATS and (activation is not None or dialect is not None):
        raise UserError(f"the format {format} has neither activation nor dialect; leave out --activation and --dialect")
    found = find_architecture(architecture)
    chosen = found.scaling if scaling is None else SCALINGS[scaling]
    options = replace(
        found.options, activation=activation or found.options.activation, dialect=dialect or found.options.dialect
    )
    write_export(found, out, format=format, scaling=chosen, options=options, image_size_pixels=image_size, force=force)
    built = "" if format in FORMATS else f" ({options.activation}, dialect {options.dialect})"
    note(f"wrote {found.name}{built} to {out}")


def write_export(
    found: ArchitectureArgument,
    path: Path,
    *,
    format: str,
    scaling: Scaling,
    options: NetworkOptions,
    image_size_pixels: int | None,
    force: bool,
) -> None:
    """Write an architecture to a file, or to a folder for "mmdet", completely or not at all. Raises UserError.

    Args:
        found: what to write.
        path: the file or folder.
        format: one of EXPORT_FORMATS.
        scaling, options: of the network; a weights file has its own.
        image_size_pixels: side of the square input of an ONNX model; None for that of the architecture's detector.
        force: replace existing files.
    """
    if format in FORMATS:
        export_genotype(found.genotype, path, format=format, scaling=scaling, force=force)
        return
    if found.weights is not None and scaling != found.scaling:
        raise UserError(f"{found.weights} has weights of scaling {found.scaling.name!r}; leave out --scaling")
    if found.weights is not None and options != found.options:
        raise UserError(
            f"{found.weights} has weights trained with {found.options.activation} in the dialect "
            f"{found.options.dialect}; leave out --activation and --dialect"
        )
    if format == "mmdet":
        head = RetinaHead(**asdict(found.head), source=_source_of_head(found))
        model = found.model if scaling == found.scaling else None
        files = mmdet_files(found.genotype, scaling, found.name, options, head=head, model=model)
        contents = {path / name: text.encode() for name, text in files.items()}
    elif format == "python":
        contents = {path: python_module(found.genotype, scaling, found.name, options).encode()}
    else:
        contents = {path: b""}
    check_destination(path, force=force or format == "mmdet")
    for file in contents:
        if file.exists() and not force:
            raise UserError(f"{file} exists already; choose another place, or add --force")
    if format in ("safetensors", "onnx"):
        contents[path] = _network_file(found, scaling, options, format, image_size_pixels)
    with explained_os_errors(f"cannot write {path}", "choose a writable place"):
        if format == "mmdet":
            path.mkdir(exist_ok=True)
        for file, content in contents.items():
            write_bytes_atomically(file, content)


def _source_of_head(found: ArchitectureArgument) -> str:
    """Return what the head belongs to. No name of a file, which could contain code, is in it."""
    if found.run is not None:
        return "the search's task"
    if found.weights is not None:
        return "the weights file"
    return "SpineNet-49" if found.model is None else found.model.name


def _network_file(
    found: ArchitectureArgument, scaling: Scaling, options: NetworkOptions, format: str, image_size_pixels: int | None
) -> bytes:
    from spinenas.proxy_task.weights.backbone_files import (
        backbone_of,
        check_onnx,
        onnx_bytes,
        safetensors_bytes,
    )  # torch

    if format == "onnx":
        check_onnx()
    backbone = backbone_of(found.architecture, scaling, found.weights, options)
    if format == "safetensors":
        return safetensors_bytes(backbone)
    return onnx_bytes(backbone, image_size_pixels or found.detector["image_size"])
