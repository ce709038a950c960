"""`spinenas convert`: turns a released TensorFlow checkpoint into a weights file."""

from __future__ import annotations

from pathlib import Path

import click

from spinenas.search.cli.options import force_option


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "name",
    required=True,
    metavar="NAME",
    help="Published model of the checkpoint, as `spinenas show` lists it.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights file to write, FILE.safetensors.",
)
@click.option(
    "--activation",
    required=True,
    type=click.Choice(["relu", "swish"]),
    help="Activation of the training: relu in protocols A and B, swish in protocol C.",
)
@click.option("--bn-eps", type=float, help="Epsilon of the batch norms: 1e-4 by default, 1e-3 in the first releases.")
@force_option
def convert(checkpoint: Path, name: str, out: Path, activation: str, bn_eps: float | None, force: bool) -> None:
    """Convert a released TensorFlow checkpoint to a weights file.

    CHECKPOINT is that of a RetinaNet of tensorflow/tpu: its prefix (.../model.ckpt), its .index file or its folder.
    TensorFlow is not needed. A checkpoint does not record its activation, so --activation is required.
    """
    from spinenas.search.outputs.weights_conversion import convert_checkpoint

    convert_checkpoint(checkpoint, name, out, activation=activation, bn_eps=bn_eps, force=force)
    click.echo(f"wrote the weights of {name} to {out}", err=True)
