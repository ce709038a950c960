"""`spinenas export`, `to-optuna` and `convert`: files for other programs, and from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinenas.results.export.architecture_files import export_genotype, read_architecture
from spinenas.search.cli.options import format_options, print_rows, run_argument, target_argument
from spinenas.space.cost import retinanet_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks, network_key
from spinenas.space.published import PUBLISHED
from spinenas.space.scaling import SCALINGS, Scaling

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
    from spinenas.search.cli.export_target import export_target
    from spinenas.search.cli.target import find_target

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
    from spinenas.search.outputs.optuna_study import write_optuna_study
    from spinenas.search.run.run import Run

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
    from spinenas.search.outputs.weights_conversion import convert_checkpoint

    convert_checkpoint(checkpoint, name, out, activation=activation, bn_eps=bn_eps, force=force)
    click.echo(f"wrote the weights of {name} to {out}", err=True)


def _scaling(key: str) -> Scaling:
    from spinenas.space.errors import nearest
    from spinenas.space.scaling import SCALINGS

    if key not in SCALINGS:
        raise UserError(f"scaling {key!r} is unknown{nearest(key, SCALINGS)}")
    return SCALINGS[key]


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Keep it as our JSON in this file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@format_options
def import_file(file: Path, out: Path | None, force: bool, format: str | None) -> None:
    """Read an architecture from a file and say what it is; `show` prints its blocks.

    FILE is what `export` writes as json or block-specs, or Python source with a list of block specs, such as
    spinenet.py of tensorflow/tpu or tensorflow/models; nothing in it is executed.
    """
    if force and out is None:
        raise click.UsageError("--force is about a file to write; name it with --out")
    genotype, scaling = read_architecture(file)
    rows = [{"what": what, "value": value} for what, value in facts(genotype, scaling).items()]
    if out is not None:
        export_genotype(genotype, out, format="json", scaling=scaling or SCALINGS["49"], force=force)
        click.echo(f"wrote {file} to {out}", err=True)
    print_rows(rows, format, {})


def facts(genotype: Genotype, scaling: Scaling | None) -> dict[str, str]:
    """What `import` says of a genotype, and of its scaling if it has one."""
    cost = retinanet_cost(genotype, scaling or SCALINGS["49"], 640)
    outputs = sorted(block.level for block in genotype.blocks if block.is_output)
    return {
        "published": published_as(genotype, scaling),
        "key": genotype.key,
        "network key": network_key(genotype),
        "blocks": f"{len(genotype.blocks)} on a stem of {len(genotype.stem)}",
        "dead blocks": " ".join(map(str, dead_blocks(genotype))) or "none",
        "output levels": " ".join(map(str, outputs)),
        "scaling": scaling.name if scaling else "not named, 49 is taken",
        "parameters": f"{cost.params:,} (RetinaNet, 91 class channels)",
        "multiply-adds": f"{cost.madds:,} (the same at 640 px)",
        "genotype": genotype.text,
    }


def published_as(genotype: Genotype, scaling: Scaling | None) -> str:
    """Say which published models have this network, and whether at this scaling.

    An output of level 2 in the last row, which tensorflow/models keeps for other detectors than RetinaNet, is looked
    past.
    """
    last, note = genotype.blocks[-1], ""
    if last.is_output and last.level < 3 and any(block.is_output for block in genotype.blocks[:-1]):
        genotype, note = replace(genotype, blocks=genotype.blocks[:-1]), f", beside an output of level {last.level}"
    same = [
        model
        for model in PUBLISHED.values()
        if isinstance(model.architecture, Genotype) and network_key(model.architecture) == network_key(genotype)
    ]
    exactly = [model.name for model in same if model.scaling == scaling]
    if exactly:
        return " and ".join(exactly) + note
    if same:
        return f"the blocks of {', '.join(model.name for model in same)}{note}"
    return "no"
