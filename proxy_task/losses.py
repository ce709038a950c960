"""RetinaNet's losses, always in float32 (SpineNet, section 4.1; tensorflow/tpu `losses.py`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def focal_loss(logits: Tensor, classes: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Sum of the sigmoid focal loss over anchors and class channels.

    Args:
        logits: (..., C); channel 0 is never positive.
        classes: (...), the positive channel of each anchor, 0 for background.
    """
    positive = functional.one_hot(classes, logits.shape[-1]).to(logits.dtype)
    positive[..., 0] = 0
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, positive, reduction="none")
    # 1 - p of the right answer is sigmoid(-z) for positives and sigmoid(z) for negatives.
    wrong = torch.sigmoid(logits * (1 - 2 * positive))
    weight = alpha * positive + (1 - alpha) * (1 - positive)
    return (weight * wrong**gamma * cross_entropy).sum()


def box_loss(deltas: Tensor, box_targets: Tensor, positive: Tensor, *, delta: float) -> Tensor:
    """Huber loss of positive anchors, averaged over the four coordinates and summed over anchors.

    Args:
        deltas, box_targets: (..., 4).
        positive: (...) bool.
    """
    loss = functional.huber_loss(deltas[positive], box_targets[positive], reduction="sum", delta=delta)
    return loss / 4


def detection_loss(
    logits: Tensor,
    deltas: Tensor,
    classes: Tensor,
    box_targets: Tensor,
    *,
    alpha: float,
    gamma: float,
    delta: float,
    box_weight: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (total, class loss, box loss) of a batch; both parts are divided by the positives plus one."""
    positive = classes > 0
    normalizer = positive.sum() + 1
    class_part = focal_loss(logits.float(), classes, alpha=alpha, gamma=gamma) / normalizer
    box_part = box_loss(deltas.float(), box_targets, positive, delta=delta) / normalizer
    return class_part + box_weight * box_part, class_part, box_part
