"""`spinenas export`: writes an architecture to a file for other programs."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import click

from spinenas.proxy_task.config import is_image_size
from spinenas.results.export.architecture_files import FORMATS, export_description
from spinenas.results.export.description import ExportDescription, NetworkOptions, Weights
from spinenas.results.export.mmdetection import mmdet_files
from spinenas.results.export.python_source import python_module
from spinenas.results.storage.atomic_write import check_destination, write_bytes_atomically
from spinenas.search.cli.architecture_argument import ArchitectureArgument, find_architecture
from spinenas.search.cli.options import architecture_argument, force_option, note, path_option
from spinenas.space.dialect import DIALECTS
from spinenas.space.errors import UserError, explained_os_errors, nearest
from spinenas.space.scaling import SCALINGS

WITH_WEIGHTS = ("safetensors", "onnx")
EXPORT_FORMATS = (*FORMATS, "python", "mmdet", *WITH_WEIGHTS)
SUFFIXES = {
    **dict.fromkeys(FORMATS, ".json"),
    "python": ".py",
    "mmdet": "",
    "safetensors": ".safetensors",
    "onnx": ".onnx",
}
"""How the files of each format end. Other suffixes than these are left to the user."""


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
@click.option(
    "--random-weights",
    is_flag=True,
    help="Write random weights, for the formats safetensors and onnx of an architecture that has none.",
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
    random_weights: bool,
    force: bool,
) -> None:
    """Write an architecture to a file for other programs.

    \b
    json, block-specs  the architecture
    python             one file that defines the backbone and needs PyTorch alone
    mmdet              a folder with a backbone and a training recipe for MMDetection 3
    safetensors, onnx  the backbone with the weights of a weights file, or with random ones

    The default scaling of a searched architecture is 49, full width. A published model has its own scaling, and so has
    a file that names one.

    Every file also holds its metadata: network key, genotype, scaling, activation, dialect, run and trial, whether the
    weights are trained, and the version of spinenas. `show`, `import` and `replay` read every format.
    """
    if format not in EXPORT_FORMATS:
        raise UserError(f"export format {format!r} is unknown{nearest(format, EXPORT_FORMATS)}")
    if scaling is not None and scaling not in SCALINGS:
        raise UserError(f"scaling {scaling!r} is unknown{nearest(scaling, SCALINGS)}")
    if image_size is not None and format != "onnx":
        raise UserError(f"--image-size belongs to the format onnx; a {format} file takes images of any size")
    if image_size is not None and not is_image_size(image_size):
        raise UserError(f"--image-size is {image_size}; it must be a multiple of 32, and at least 96")
    if random_weights and format not in WITH_WEIGHTS:
        raise UserError(f"--random-weights belongs to {' and '.join(WITH_WEIGHTS)}; a {format} file has no weights")
    check_suffix(out, format)
    found = find_architecture(architecture)
    description = found.described(
        found.scaling if scaling is None else SCALINGS[scaling],
        _chosen_options(found, activation, dialect, builds=format not in FORMATS),
        _chosen_weights(found, architecture, random_weights) if format in WITH_WEIGHTS else "none",
    )
    write_export(found, description, out, format=format, image_size_pixels=image_size, force=force)
    facts = []
    if description.options is not None:
        facts += [description.options.activation, f"dialect {description.options.dialect}"]
    if description.weights != "none":
        facts.append("random weights, not trained" if description.weights == "random" else "trained weights")
    built = f" ({', '.join(facts)})" if facts else ""
    note(f"wrote {found.name}{built} to {out}")


def check_suffix(out: Path, format: str) -> None:
    """Raise UserError if the name of a file is one of another format, which would mislead its readers."""
    wanted, given = SUFFIXES[format], out.suffix.lower()
    if given and given != wanted and given in SUFFIXES.values():
        kind = f"file of the format {format}; end it in {wanted}" if wanted else "folder; leave out its suffix"
        raise UserError(f"{out} is not the name of a {kind}, or choose another --format")


def _chosen_options(
    found: ArchitectureArgument, activation: str | None, dialect: str | None, *, builds: bool
) -> NetworkOptions | None:
    """Return the options of the network; None if they are unknown, and the format builds no network."""
    if found.options is None and activation is None and dialect is None and not builds:
        return None
    options = found.options or NetworkOptions()
    return replace(options, activation=activation or options.activation, dialect=dialect or options.dialect)


def _chosen_weights(found: ArchitectureArgument, words: tuple[str, ...], random_weights: bool) -> Weights:
    """Return what the weights of the export are. Raises UserError for random weights that nobody asked for."""
    has_weights = found.weights is not None or found.backbone_weights is not None
    weights: Weights = found.description.weights if has_weights and found.description is not None else "random"
    if weights == "trained":
        if random_weights:
            raise UserError(f"{found.name} has trained weights; leave out --random-weights")
        return weights
    if not random_weights:
        problem = "has random weights" if has_weights else "has no weights that can be exported"
        train = f"spinenas replay {shlex.join(words)} --width full --out FOLDER"
        raise UserError(
            f"{found.name} {problem}; train it by `{train}` and export FOLDER/trials/000000/weights.safetensors, or "
            "add --random-weights"
        )
    return weights


def write_export(
    found: ArchitectureArgument,
    description: ExportDescription,
    path: Path,
    *,
    format: str,
    image_size_pixels: int | None,
    force: bool,
) -> None:
    """Write an architecture to a file, or to a folder for "mmdet", completely or not at all. Raises UserError.

    Args:
        found: what to write.
        description: the network; scaling and options of a file with weights are its own.
        path: the file or folder.
        format: one of EXPORT_FORMATS.
        image_size_pixels: side of the square input of an ONNX model; None for that of the architecture's detector.
        force: replace existing files.
    """
    if format in FORMATS:
        export_description(description, path, format=format, force=force)
        return
    file = found.weights or found.backbone_weights
    if file is not None and description.scaling != found.scaling:
        raise UserError(f"{file} has weights of scaling {found.scaling.name!r}; leave out --scaling")
    if file is not None and found.options is not None and description.options != found.options:
        raise UserError(
            f"{file} has weights trained with {found.options.activation} in the dialect "
            f"{found.options.dialect}; leave out --activation and --dialect"
        )
    if format == "mmdet":
        files = mmdet_files(
            description,
            head=found.head,
            head_source=_source_of_head(found),
            model=found.model if description.scaling == found.scaling else None,
            image_size_pixels=640 if found.model is None else found.model.image_size_pixels,
        )
        contents = {path / name: text.encode() for name, text in files.items()}
    elif format == "python":
        contents = {path: python_module(description).encode()}
    else:
        contents = {path: b""}
    check_destination(path, force=force or format == "mmdet")
    for target in contents:
        if target.exists() and not force:
            raise UserError(f"{target} exists already; choose another place, or add --force")
    if format in WITH_WEIGHTS:
        contents[path] = _network_file(found, description, format, image_size_pixels)
    with explained_os_errors(f"cannot write {path}", "choose a writable place"):
        if format == "mmdet":
            path.mkdir(exist_ok=True)
        for target, content in contents.items():
            write_bytes_atomically(target, content)


def _source_of_head(found: ArchitectureArgument) -> str:
    """Return what the head belongs to. No name of a file, which could contain code, is in it."""
    if found.run is not None:
        return "the search's task"
    if found.weights is not None:
        return "the weights file"
    return "SpineNet-49" if found.model is None else found.model.name


def _network_file(
    found: ArchitectureArgument, description: ExportDescription, format: str, image_size_pixels: int | None
) -> bytes:
    from spinenas.proxy_task.weights import backbone_files  # torch

    if format == "onnx":
        backbone_files.check_onnx()
    file = found.weights or found.backbone_weights
    backbone = backbone_files.initial_backbone(description) if file is None else backbone_files.load_backbone(file)
    if format == "safetensors":
        return backbone_files.safetensors_bytes(backbone, description)
    return backbone_files.onnx_bytes(backbone, image_size_pixels or found.detector["image_size"], description)
