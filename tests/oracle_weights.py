"""Weights, inputs and statistics of the golden fixtures, regenerated from their published formulas."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spinenas.space.genotype import BlockKind, BlockSpec, Genotype
from spinenas.space.network import build_backbone
from spinenas.space.network.spinenet import SpineNet
from spinenas.space.scaling import Scaling

_KINDS = {
    "weight": {4: "kernel", 1: "gamma"},
    "bias": {1: "beta"},
    "running_mean": {1: "moving_mean"},
    "running_var": {1: "moving_variance"},
}


def uniform(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Values in -1..1 that a name alone decides."""
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(-1.0, 1.0, size=shape)


def fill_from_formulas(network: nn.Module) -> None:
    """Give every weight of a backbone the value that its canonical name stands for."""
    state = network.state_dict()
    for key, value in state.items():
        stem, _, last = key.rpartition(".")
        if last == "num_batches_tracked":
            continue
        kind = _KINDS[last][value.ndim]
        if kind == "kernel":
            out_channels, in_channels, height, width = value.shape
            array = uniform(f"{stem}.kernel", (height, width, in_channels, out_channels))
            array = (1.1 * np.sqrt(3.0 / (height * width * in_channels)) * array).transpose(3, 2, 0, 1)
        else:
            array = uniform(f"{stem}.{kind}", tuple(value.shape))
            array = 1 + 0.5 * array if kind in ("gamma", "moving_variance") else 0.2 * array
        state[key] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    network.load_state_dict(state)


def image(case: dict[str, Any]) -> Tensor:
    """The fixture's input, NCHW."""
    n, h, w, c = (case["input"][name] for name in "nhwc")
    nhwc = (2.0 * uniform(f"input:{n}x{h}x{w}x{c}", (n, h, w, c))).astype(np.float32)
    return torch.from_numpy(nhwc).permute(0, 3, 1, 2)


def backbone(case: dict[str, Any]) -> SpineNet:
    """The fixture's network with its weights, in evaluation mode."""
    blocks = tuple(
        BlockSpec(level, BlockKind(kind), tuple(sorted(parents)), is_output)
        for level, kind, parents, is_output in case["block_specs"]
    )
    scaling = case["scaling"]
    network = build_backbone(
        Genotype(blocks),
        Scaling(
            "golden",
            scaling["filter_size_scale"],
            scaling["endpoints_num_filters"],
            scaling["resample_alpha"],
            scaling["block_repeats"],
        ),
        activation=case["activation"],
        bn_eps=case["norm_epsilon"],
    )
    fill_from_formulas(network)
    return network.eval()


def statistics(nchw: Tensor) -> dict[str, float]:
    """Mean, deviation, largest value and a checksum that sees shifts and transpositions, of the NHWC tensor."""
    flat = nchw.permute(0, 2, 3, 1).double().numpy().reshape(-1)
    return {
        "mean": float(flat.mean()),
        "std": float(flat.std()),
        "abs_max": float(np.abs(flat).max()),
        "wsum": float((flat * np.cos(np.arange(flat.size) * 0.7)).mean()),
    }
