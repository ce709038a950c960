"""RetinaNet's losses, computed in float32 or wider (SpineNet, section 4.1; tensorflow/tpu `losses.py`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def at_least_float32(x: Tensor) -> Tensor:
    """Return the same numbers, converted to float32 if their format is narrower."""
    return x if x.dtype == torch.float64 else x.float()


def focal_loss(logits: Tensor, classes: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Return the sum of the sigmoid focal loss over anchors and class channels.

    Args:
        logits: (..., C); channel 0 is never positive.
        classes: (...), the positive channel of each anchor, 0 for background.
    """
    positive = functional.one_hot(classes, logits.shape[-1]).to(logits.dtype)
    positive[..., 0] = 0
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, positive, reduction="none")
    # One minus the probability of the right answer: sigmoid(-z) for positives, sigmoid(z) for negatives.
    wrong = torch.sigmoid(logits * (1 - 2 * positive))
    weight = alpha * positive + (1 - alpha) * (1 - positive)
    return (weight * wrong**gamma * cross_entropy).sum()


def box_loss(
    deltas: Tensor, box_targets: Tensor, positive: Tensor, *, delta: float, mask_zero_targets: bool = False
) -> Tensor:
    """Return the Huber loss of positive anchors, averaged over the four coordinates and summed over anchors.

    Args:
        deltas, box_targets: (..., 4).
        positive: (...) bool.
        mask_zero_targets: ignore coordinates whose target is exactly 0.
    """
    learned = positive[..., None]
    if mask_zero_targets:
        learned = learned & (box_targets != 0)
    # Masked rather than selected, so that shapes do not depend on the number of positives.
    predicted, wanted = (torch.where(learned, x, 0) for x in (deltas, box_targets))
    return functional.huber_loss(predicted, wanted, reduction="sum", delta=delta) / 4


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
    mask_zero_targets: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (total, class loss, box loss) of a batch; both parts are divided by the number of positives plus one."""
    positive = classes > 0
    normalizer = positive.sum() + 1
    class_part = focal_loss(at_least_float32(logits), classes, alpha=alpha, gamma=gamma) / normalizer
    box_part = box_loss(
        at_least_float32(deltas), box_targets, positive, delta=delta, mask_zero_targets=mask_zero_targets
    )
    box_part = box_part / normalizer
    return class_part + box_weight * box_part, class_part, box_part
