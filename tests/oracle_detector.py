"""Inputs of the detector's TensorFlow fixtures, and one training step on them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle_weights
import torch
from numpy.typing import NDArray
from shared_fixtures import shared_folder
from torch import Tensor

from spinenas.proxy_task.config import LossConfig, TrainConfig
from spinenas.proxy_task.detector.anchors import anchor_boxes
from spinenas.proxy_task.detector.losses import detection_loss
from spinenas.proxy_task.detector.matching import anchor_targets
from spinenas.proxy_task.detector.retinanet import RetinaNet, build_retinanet
from spinenas.proxy_task.training.train import make_optimizer
from spinenas.space.dialect import DIALECTS
from spinenas.space.head import HeadConfig
from spinenas.space.published import SPINENET_49
from spinenas.space.scaling import SCALINGS
from spinenas.space.tensorflow.weights import canonical_slots

MODELS, TPU = DIALECTS["tensorflow/models"], DIALECTS["tensorflow/tpu"]
LEVELS = (3, 4, 5, 6, 7)


def fixture(name: str) -> Any:
    return json.loads((shared_folder("oracle") / f"{name}.json").read_text(encoding="utf-8"))


def arrays(name: str) -> Any:
    return np.load(shared_folder("oracle") / f"{name}.npz", allow_pickle=False)


def anchors_of(size: int, ratios: tuple[float, ...] = MODELS.aspect_ratios, anchor_scale: float = 3.0) -> Tensor:
    return anchor_boxes((size, size), LEVELS, anchor_scale=anchor_scale, num_scales=3, aspect_ratios=ratios)


def from_formula(prefix: str, size: int, channels: int, factor: float, shift: float) -> Tensor:
    """Predictions of all levels, made from a formula: (2, A, channels / 9)."""
    parts = []
    for level in LEVELS:
        cells = -(-size // 2**level)
        nhwc = factor * oracle_weights.uniform(f"{prefix}:L{level}", (2, cells, cells, channels)) + shift
        parts.append(nhwc.astype(np.float32).reshape(2, -1, channels // 9))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def batch_targets(case: dict[str, Any], anchors: Tensor) -> tuple[Tensor, Tensor]:
    each = [
        anchor_targets(
            anchors,
            torch.tensor(image["gt_boxes_yxyx"], dtype=torch.float32),
            torch.tensor(image["gt_classes"]),
        )
        for image in case["images"]
    ]
    return torch.stack([classes for classes, _ in each]), torch.stack([boxes for _, boxes in each])


def train_network(case: dict[str, Any]) -> RetinaNet:
    network = build_retinanet(
        SPINENET_49,
        SCALINGS["49S-code"],
        HeadConfig(channels=128),
        class_channels=91,
        dialect="tensorflow/models",
        activation=case["activation"],
    )
    oracle_weights.fill_from_formulas(network)
    with torch.no_grad():
        for tower in network.head.values():
            tower.predict.weight.mul_(0.01)
        network.head["cls"].predict.bias.fill_(-math.log(99))
    return network.train()


@dataclass
class Step:
    """Losses, gradients and state of one training step in float64; arrays are flat and in TensorFlow's layout."""

    losses: dict[str, float]
    gradients: dict[str, NDArray[np.float64]]
    state: dict[str, NDArray[np.float64]]


def training_step(case: dict[str, Any]) -> Step:
    network = train_network(case).double()
    classes, box_targets = batch_targets(case, anchors_of(256))
    logits, deltas = network(oracle_weights.image_of(*case["input"]).double())
    loss = LossConfig()
    total, class_part, box_part = detection_loss(
        logits,
        deltas,
        classes,
        box_targets.double(),
        alpha=loss.focal_alpha,
        gamma=loss.focal_gamma,
        delta=loss.huber_delta,
        box_weight=loss.box_weight,
    )
    # What the optimiser decays is what the originals' L2 loss is of.
    decayed = make_optimizer(network, TrainConfig()).param_groups[0]["params"]
    l2 = case["l2_weight_decay"] / 2 * torch.stack([(p**2).sum() for p in decayed]).sum()
    (total + l2).backward()  # type: ignore[no-untyped-call]
    slots = canonical_slots(network)
    parameters = dict(network.named_parameters())
    gradients = {}
    for name, slot in slots.items():
        if slot.key in parameters:
            gradient = parameters[slot.key].grad
            assert gradient is not None, name
            gradients[name] = gradient.numpy().transpose(np.argsort(slot.axes)).reshape(-1)
    state = network.state_dict()
    return Step(
        {
            "cls_loss": float(class_part.detach()),
            "box_loss": float(box_part.detach()),
            "model_loss": float(total.detach()),
            "l2_loss": float(l2.detach()),
        },
        gradients,
        {name: state[slot.key].numpy() for name, slot in slots.items()},
    )
