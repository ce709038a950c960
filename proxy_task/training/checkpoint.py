"""A trial after one of its epochs, as one file from which its next attempt goes on; nothing of how trials are run.

A safetensors file: "network/..." and "optimizer/..." hold the tensors of a `TrainState`, the metadata a JSON text with
the schema, the identity of the trial and what it has to show so far, and a checksum of that text and all tensors.
Nothing in such a file is executed. A checkpoint is a help, not a need: one that cannot be used is ignored with a
warning, and the training starts from the beginning.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from spinenas.proxy_task.training.train import TrainState
from spinenas.results.storage.atomic_write import write_bytes_atomically

logger = logging.getLogger(__name__)

SCHEMA = "spinenas-checkpoint/2"
READABLE_SCHEMAS = (SCHEMA, "spinenas-checkpoint/1")  # schema 1 has one more field, "is_over"
_KEY, _CHECKSUM_KEY = "spinenas", "crc32"

Identity = Mapping[str, Any]
"""All that the figures of a trial depend on, as JSON; a checkpoint of another identity is of another trial."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a trial has to show so far, all its attempts together.

    Attributes:
        curve: one entry per epoch, as in `Evaluation`.
        train_seconds, eval_seconds: time in the epochs of the curve.
    """

    curve: tuple[dict[str, float], ...] = ()
    train_seconds: float = 0.0
    eval_seconds: float = 0.0


def save(path: Path, state: TrainState, progress: Progress, identity: Identity) -> None:
    """Write a checkpoint in place of an older one, whole or not at all. Raises OSError."""
    named = {f"network/{name}": tensor for name, tensor in state.network.items()}
    named |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
    document = {"schema": SCHEMA, "identity": identity, "epoch": state.epoch}
    text = json.dumps(document | asdict(progress))
    metadata = {_KEY: text, _CHECKSUM_KEY: _checksum(text, tensors)}
    # Not by save_file, which makes a temporary file of its own, whose name we could not find after a kill.
    write_bytes_atomically(path, safetensors_bytes(tensors, metadata))


def load(path: Path, identity: Identity) -> tuple[TrainState, Progress] | None:
    """Read what `save` wrote for the same identity; None, with a warning, where the file there is anything else."""
    try:
        return _read(path, json.loads(json.dumps(identity)))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, _Unusable) as reason:
        logger.warning("the checkpoint %s is ignored, the training starts from the beginning: %s", path, reason)
        return None


class _Unusable(Exception):
    """What is wrong with a checkpoint, in words."""


def _read(path: Path, identity: Identity) -> tuple[TrainState, Progress]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        text = metadata.get(_KEY, "null")
        document = _parsed(text)
        theirs = document["identity"]
        if theirs != identity:
            differing = sorted(name for name in {*theirs, *identity} if theirs.get(name) != identity.get(name))
            raise _Unusable(f"it is of a trial with another {', '.join(differing)}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get(_CHECKSUM_KEY) != _checksum(text, tensors):
        raise _Unusable("it is damaged, its checksum is another")
    network, optimizer = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in ("network/", "optimizer/")
    )
    state = TrainState(document["epoch"], network, optimizer)
    return state, Progress(tuple(document["curve"]), document["train_seconds"], document["eval_seconds"])


def _parsed(text: str) -> dict[str, Any]:
    """Read the text of a checkpoint's metadata, as far as that of another schema can be told from ours."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema not in READABLE_SCHEMAS:
        raise _Unusable(f"its schema is {schema!r}, and {SCHEMA!r} is wanted")
    if not isinstance(document.get("identity"), dict):
        raise _Unusable("it does not say what trial it is of")
    return dict(document)


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 over the text and every tensor with its name: against damage, which safetensors does not notice."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
