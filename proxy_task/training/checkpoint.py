"""Checkpoints: the state of a training after an epoch, as one file from which a later attempt resumes.

A checkpoint is a safetensors file. "network/..." and "optimizer/..." hold the tensors of a `TrainState`. The metadata
hold a JSON text with the schema, the identity of the training and its progress, and a checksum of that text and all
tensors. Nothing in such a file is executed. A checkpoint that cannot be used is ignored with a warning, and the
training starts from the beginning.
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
"""All that the figures of a training depend on, as JSON. A checkpoint with another identity is never used."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Figures of a training so far, over all its attempts.

    Attributes:
        curve: one entry per epoch, as in `Evaluation`.
        train_seconds, eval_seconds: time spent on the epochs of the curve.
    """

    curve: tuple[dict[str, float], ...] = ()
    train_seconds: float = 0.0
    eval_seconds: float = 0.0


def save(path: Path, state: TrainState, progress: Progress, identity: Identity) -> None:
    """Replace the checkpoint atomically. Raises OSError."""
    named = {f"network/{name}": tensor for name, tensor in state.network.items()}
    named |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
    document = {"schema": SCHEMA, "identity": identity, "epoch": state.epoch}
    text = json.dumps(document | asdict(progress))
    metadata = {_KEY: text, _CHECKSUM_KEY: _checksum(text, tensors)}
    # save_file would leave a temporary file of unknown name behind if the process were killed.
    write_bytes_atomically(path, safetensors_bytes(tensors, metadata))


def load(path: Path, identity: Identity) -> tuple[TrainState, Progress] | None:
    """Read a checkpoint of the same identity. Returns None without a file, and with a warning if it cannot be used."""
    try:
        return _read(path, json.loads(json.dumps(identity)))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, _Unusable) as reason:
        logger.warning("the checkpoint %s is ignored, the training starts from the beginning: %s", path, reason)
        return None


class _Unusable(Exception):
    """Says in its message why a checkpoint cannot be used."""


def _read(path: Path, identity: Identity) -> tuple[TrainState, Progress]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        text = metadata.get(_KEY, "null")
        document = _parsed(text)
        theirs = document["identity"]
        if theirs != identity:
            differing = sorted(name for name in {*theirs, *identity} if theirs.get(name) != identity.get(name))
            raise _Unusable(f"it belongs to a training with another {', '.join(differing)}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get(_CHECKSUM_KEY) != _checksum(text, tensors):
        raise _Unusable("it is damaged, its checksum is wrong")
    network, optimizer = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in ("network/", "optimizer/")
    )
    state = TrainState(document["epoch"], network, optimizer)
    return state, Progress(tuple(document["curve"]), document["train_seconds"], document["eval_seconds"])


def _parsed(text: str) -> dict[str, Any]:
    """Return the JSON document of a checkpoint, after checking its schema and that it has an identity."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema not in READABLE_SCHEMAS:
        raise _Unusable(f"its schema is {schema!r}, not {SCHEMA!r}")
    if not isinstance(document.get("identity"), dict):
        raise _Unusable("it has no identity")
    return dict(document)


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of the text and of every tensor with its name. Safetensors itself does not detect damage."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
