"""`spinenas convert`: turns a released TensorFlow checkpoint into a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spinenas.search.cli.options import PATH, force_option, note, path_option


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option(
    "--model", required=True, metavar="NAME", help="Published model of the checkpoint, as `spinenas show` lists it."
)
@path_option("--out", "Weights file to write, FILE.safetensors.", required=True)
@click.option(
    "--activation",
    required=True,
    type=click.Choice(["relu", "swish"]),
    help="Activation of the training: relu in protocols A and B, swish in protocol C.",
)
@click.option(
    "--bn-eps",
    type=click.FloatRange(min=0, min_open=True),
    help="Epsilon of the batch norms: 1e-4 by default, 1e-3 in the first releases.",
)
@force_option
def convert(checkpoint: Path, model: str, out: Path, **options: Any) -> None:
    """Convert a released TensorFlow checkpoint to a weights file.

    CHECKPOINT is that of a RetinaNet of tensorflow/tpu: its prefix (.../model.ckpt), its .index file or its folder.
    TensorFlow is not needed. A checkpoint does not record its activation, so --activation is required.
    """
    from spinenas.search.outputs.weights_conversion import convert_checkpoint

    convert_checkpoint(checkpoint, model, out, **options)
    note(f"wrote the weights of {model} to {out}")
