"""Weights, inputs and statistics of the golden fixtures, regenerated from their published formulas."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spinenas.space.genotype import BlockKind, BlockSpec, Genotype, StemBlock
from spinenas.space.network import build_backbone
from spinenas.space.network.spinenet import SpineNet
from spinenas.space.scaling import Scaling
from spinenas.space.tensorflow.weights import canonical_slots, load_variables

MOBILE_STEM = (StemBlock(1, BlockKind.MBCONV), StemBlock(2, BlockKind.MBCONV))


def uniform(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return values in -1..1 that depend on the name alone."""
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(-1.0, 1.0, size=shape)


def variable(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the value of a canonical name, in TensorFlow's layout."""
    u = uniform(name, shape)
    kind = name.rpartition(".")[2]
    if kind in ("kernel", "pointwise_kernel"):
        return 1.1 * np.sqrt(3.0 / (shape[0] * shape[1] * shape[2])) * u
    if kind == "depthwise_kernel":
        return 1.1 * np.sqrt(3.0 / (shape[0] * shape[1])) * u
    if kind == "bias":
        return 0.1 * u
    return 1 + 0.5 * u if kind in ("gamma", "moving_variance") else 0.2 * u


def fill_from_formulas(network: nn.Module) -> None:
    """Set every weight of a backbone or detector to the value of its canonical name, in float32."""
    values = {name: variable(name, slot.shape) for name, slot in canonical_slots(network).items()}
    load_variables(network, {name: value.astype(np.float32) for name, value in values.items()})


def image(case: dict[str, Any]) -> Tensor:
    """Return the fixture's input, NCHW."""
    n, h, w, c = (case["input"][name] for name in "nhwc")
    return image_of(n, h, w, c)


def image_of(n: int, h: int, w: int, c: int = 3) -> Tensor:
    """Return the input of this shape, NCHW."""
    nhwc = (2.0 * uniform(f"input:{n}x{h}x{w}x{c}", (n, h, w, c))).astype(np.float32)
    return torch.from_numpy(nhwc).permute(0, 3, 1, 2)


def dialect(case: dict[str, Any]) -> str:
    """Return the code base that made a fixture."""
    return "tensorflow/tpu" if case["model"].startswith("tf1") else "tensorflow/models"


def genotype(case: dict[str, Any]) -> Genotype:
    """Return the fixture's genotype. The fixtures build no output below level 3."""
    blocks = tuple(
        BlockSpec(level, BlockKind(kind), tuple(sorted(parents)), is_output)
        for level, kind, parents, is_output in case["block_specs"]
        if not (is_output and level < 3)
    )
    mobile = case["model"] in ("tf1_mbconv", "mobile")
    return Genotype(blocks, MOBILE_STEM) if mobile else Genotype(blocks)


def backbone(case: dict[str, Any]) -> SpineNet:
    """Return the fixture's network with its weights, in evaluation mode."""
    settings = case.get("scaling") or case["kwargs"]
    eps = case["norm_epsilon"] if "norm_epsilon" in case else case["kwargs"]["norm_epsilon"]
    network = build_backbone(
        genotype(case),
        Scaling(
            "golden",
            settings["filter_size_scale"],
            settings["endpoints_num_filters"],
            settings.get("resample_alpha", 1.0),
            settings["block_repeats"],
        ),
        dialect=dialect(case),
        activation=case["activation"] if "activation" in case else case["kwargs"]["activation"],
    )
    assert network.stem.bn.eps == eps
    fill_from_formulas(network)
    return network.eval()


def statistics(nchw: Tensor) -> dict[str, float]:
    """Return mean, deviation, largest value and a checksum that detects shifts and transpositions, in NHWC order."""
    flat = nchw.permute(0, 2, 3, 1).double().numpy().reshape(-1)
    return {
        "mean": float(flat.mean()),
        "std": float(flat.std()),
        "abs_max": float(np.abs(flat).max()),
        "wsum": float((flat * np.cos(np.arange(flat.size) * 0.7)).mean()),
    }
