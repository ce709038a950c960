"""Converts released tensorflow/tpu checkpoints to weights files."""

from __future__ import annotations

from pathlib import Path

from spinenas.proxy_task.weights.weights_file import published_detector, save_detector
from spinenas.results.storage.atomic_write import check_destination
from spinenas.space.errors import UserError
from spinenas.space.published import published
from spinenas.space.tensorflow.checkpoint import read_checkpoint
from spinenas.space.tensorflow.weights import is_weight, load_variables


def convert_checkpoint(
    checkpoint: Path, name: str, out: Path, *, activation: str, bn_eps: float | None = None, force: bool = False
) -> None:
    """Read a checkpoint and write FILE.safetensors atomically. Raises UserError.

    Args:
        checkpoint: prefix, index file or folder of the checkpoint.
        name: published model that was trained.
        out: path of the weights file.
        activation: "relu" or "swish"; a checkpoint does not record it.
        bn_eps: epsilon of the batch norms; None for the default of tensorflow/tpu, 1e-4.
        force: replace an existing file.
    """
    model = published(name)
    if out.suffix != ".safetensors":
        raise UserError(f"--out is {out}; name a file that ends in .safetensors")
    check_destination(out, force=force)
    spec = published_detector(model, dialect="tensorflow/tpu", activation=activation, bn_eps=bn_eps)
    variables = read_checkpoint(checkpoint, wanted=is_weight)
    network = spec.build()
    try:
        load_variables(network, variables, names="tensorflow/tpu")
    except UserError as error:
        raise UserError(f"{checkpoint} is not a checkpoint of {name}: {error}") from error
    save_detector(out, network, spec)
