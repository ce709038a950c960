"""Backbones against the golden outputs of both TensorFlow implementations, block by block."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import oracle_weights
import pytest
import torch
from shared_fixtures import REPOSITORY, shared_folder
from torch import Tensor

from spinenas.space.network import num_parameters
from spinenas.space.network.spinenet import SpineNet
from spinenas.space.tensorflow.weights import canonical_slots

GOLDEN: dict[str, Any] = json.loads((REPOSITORY / "tests" / "golden" / "backbones.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-5
"""Of the largest value of a tensor."""

FIXTURES = [
    "tf1_143_relu_1x128x128",
    "tf1_49S_relu_1x128x128",
    "tf1_49_relu_192_1x192x192",
    "tf1_49_relu_1x128x128",
    "tf1_49_swish_2x256x128",
    "tf1_96_swish_1x128x128",
    "tf1_mobile49_swish_1x128x128",
    "tf1_rand0_relu_1x128x128",
    "tf1_rand127_relu_1x128x128",
    "tfv_143_relu_1x128x128",
    "tfv_49S_relu_1x128x128",
    "tfv_49_relu_1x128x128",
    "tfv_49_relu_1x192x192",
    "tfv_49_swish_2x256x128",
    "tfv_96_swish_1x128x128",
    "tfv_mobile49S_swish_1x128x128",
    "tfv_mobile49_relu_2x256x128",
    "tfv_mobile49_swish_1x128x128",
    "tfv_rand0_relu_1x128x128",
    "tfv_rand1788_relu_1x128x128",
    "tfv_randmb0_swish_1x128x128",
]


def run_with_taps(network: SpineNet, images: Tensor) -> dict[str, Tensor]:
    """Run a network and return what stands at every place that the fixtures know, in the order of computation."""
    taps: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        # Cloned: an activation in place would change what was kept.
        return lambda module, inputs, output: taps.update({name: output.clone()})

    for node in network.nodes:
        name = f"node{node.node:02d}"
        for i, connection in enumerate(node.inputs):
            connection.register_forward_hook(keep(f"{name}.in{i}"))
        if node.inputs:
            node.repeats[0].register_forward_pre_hook(
                lambda module, inputs, name=name: taps.update({f"{name}.fused": inputs[0].clone()})
            )
        node.register_forward_hook(keep(f"{name}.out"))
    with torch.no_grad():
        outputs = network(images)
    return taps | {f"end{level}": output for level, output in outputs.items()}


def first_deviation(taps: dict[str, Tensor], golden: dict[str, dict[str, float]]) -> str:
    """Name the first place whose statistics are not the golden ones, or return ""."""
    for name, tensor in taps.items():
        for statistic, value in oracle_weights.statistics(tensor).items():
            if not abs(value - golden[name][statistic]) <= TOLERANCE * golden[name]["abs_max"]:  # NaN is a deviation
                return f"{name} differs in {statistic}: {value} instead of {golden[name][statistic]}"
    return ""


@pytest.mark.parametrize("name", GOLDEN)
def test_every_block_has_the_statistics_of_the_tensorflow_implementation(name: str) -> None:
    case = GOLDEN[name]["settings"]
    taps = run_with_taps(oracle_weights.backbone(case), oracle_weights.image(case))
    assert taps.keys() == GOLDEN[name]["taps"].keys()
    assert not first_deviation(taps, GOLDEN[name]["taps"])


@pytest.mark.parametrize("name", FIXTURES)
def test_endpoints_equal_the_tensorflow_implementation(name: str) -> None:
    folder = shared_folder("oracle")
    case = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    endpoints = np.load(folder / f"{name}.npz", allow_pickle=False)
    network = oracle_weights.backbone(case)
    # tensorflow/tpu keeps the variables of blocks that reach no output, and counts them.
    theirs = {weight["name"]: weight for weight in case["weights"]}
    unused = [weight for name, weight in theirs.items() if name not in canonical_slots(network)]
    assert not canonical_slots(network).keys() - theirs.keys()
    assert not unused or name == "tf1_rand127_relu_1x128x128"
    unused_params = sum(int(np.prod(weight["shape"])) for weight in unused if weight["trainable"])
    assert num_parameters(network) + unused_params == case["trainable_params"]

    taps = run_with_taps(network, oracle_weights.image(case))
    assert not first_deviation(taps, case["taps"])
    for level in network.levels:
        golden = endpoints[f"end{level}"]
        ours = taps[f"end{level}"].permute(0, 2, 3, 1).numpy()[..., :: case.get("channel_stride_in_npz", 1)]
        assert np.abs(ours - golden).max() <= TOLERANCE * np.abs(golden).max(), f"endpoint {level} differs"


def test_every_fixture_of_a_backbone_is_tested() -> None:
    assert [path.stem for path in sorted(shared_folder("oracle").glob("tf*_*.npz"))] == sorted(FIXTURES)


def test_a_deviation_is_found_and_its_first_block_named() -> None:
    name = "tf1_49_relu_1x128x128"
    case = GOLDEN[name]["settings"]
    network = oracle_weights.backbone(case)
    with torch.no_grad():
        network.nodes[7].repeats[0].bn2.bias.mul_(1.05)  # type: ignore[union-attr]
    taps = run_with_taps(network, oracle_weights.image(case))
    assert first_deviation(taps, GOLDEN[name]["taps"]).startswith("node07.out differs")
