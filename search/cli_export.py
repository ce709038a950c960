"""`spinenas export`, `to-optuna` and `convert`: files for other programs, and from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinenas.search.cli_parts import run_argument, target_argument
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    from spinenas.space.scaling import Scaling


@click.command()
@target_argument
@click.option(
    "--format",
    required=True,
    metavar="FORMAT",
    help="json, block-specs, python, mmdet, safetensors or onnx.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write; a folder for mmdet.")
@click.option("--scaling", metavar="KEY", help="Width and depth to name in the file, such as 49 or 96.")
@click.option("--image-size", type=click.IntRange(min=32), metavar="PIXELS", help="Side of an ONNX model's input.")
@click.option("--force", is_flag=True, help="Replace what exists.")
def export(
    target: tuple[str, ...], format: str, out: Path, scaling: str | None, image_size: int | None, force: bool
) -> None:
    """Write an architecture to a file for other programs.

    json and block-specs are the architecture; python is one file that defines the backbone and needs PyTorch alone;
    mmdet is a folder with a backbone and a config for MMDetection 3; safetensors and onnx are the backbone with
    weights: those of a weights file, else fresh ones.

    A searched architecture is meant to be built at full width, so that its scaling is 49 unless --scaling says
    otherwise; a published model has its own, and so has a file that names one.
    """
    from spinenas.search.export_target import export_target
    from spinenas.search.target import find_target

    found = find_target(target)
    chosen = found.scaling if scaling is None else _scaling(scaling)
    export_target(found, out, format=format, scaling=chosen, image_size_pixels=image_size, force=force)
    click.echo(f"wrote {found.name} to {out}", err=True)


@click.command("to-optuna")
@run_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="SQLite file to write, such as run.db.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def to_optuna(run: Path, out: Path, force: bool) -> None:
    """Write a run as an Optuna study, for optuna-dashboard and Optuna's plots."""
    from spinenas.search.optuna_study import write_optuna_study
    from spinenas.search.run import Run

    write_optuna_study(Run.open(run), out, force=force)
    click.echo(f"wrote {run} to {out}; look at it by: optuna-dashboard sqlite:///{out}", err=True)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, metavar="NAME", help="The published model it is of.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write, FILE.safetensors.")
@click.option(
    "--activation",
    required=True,
    type=click.Choice(["relu", "swish"]),
    help="It was trained with: relu in protocols A and B, swish in protocol C; no checkpoint says so itself.",
)
@click.option("--bn-eps", type=float, help="Epsilon of its batch norms, if not 1e-4; the first releases had 1e-3.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def convert(checkpoint: Path, name: str, out: Path, activation: str, bn_eps: float | None, force: bool) -> None:
    """Turn a released tensorflow/tpu RetinaNet CHECKPOINT into a weights file of ours.

    CHECKPOINT is its prefix (.../model.ckpt), its .index file, or the folder it is in; TensorFlow is not needed.
    """
    from spinenas.search.convert import convert_checkpoint

    convert_checkpoint(checkpoint, name, out, activation=activation, bn_eps=bn_eps, force=force)
    click.echo(f"wrote the weights of {name} to {out}", err=True)


def _scaling(key: str) -> Scaling:
    from spinenas.space.errors import nearest
    from spinenas.space.scaling import SCALINGS

    if key not in SCALINGS:
        raise UserError(f"scaling {key!r} is unknown{nearest(key, SCALINGS)}")
    return SCALINGS[key]
