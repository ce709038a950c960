"""Which anchor learns which box (SpineNet, section 4.1; tensorflow/tpu `target_assigner.py`, `argmax_matcher.py`).

IoU of at least 0.5 is positive, everything else negative: there is no ignored band. Every box also forces the anchor
that overlaps it most; a forced match overrides a better one, and of several boxes that force one anchor the first wins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spinenas.proxy_task.boxes import encode, iou_yxyx

POSITIVE_IOU = 0.5


def match(anchors_yxyx: Tensor, boxes_yxyx: Tensor) -> Tensor:
    """Return for each of A anchors the index of its box among N, or -1 for background; shape (A,)."""
    if len(boxes_yxyx) == 0:
        return torch.full((len(anchors_yxyx),), -1, dtype=torch.long, device=anchors_yxyx.device)
    iou = iou_yxyx(anchors_yxyx, boxes_yxyx)  # (A, N)
    best_iou, best_box = iou.max(dim=1)
    matched = torch.where(best_iou >= POSITIVE_IOU, best_box, torch.full_like(best_box, -1))
    forced_iou, forced_anchor = iou.max(dim=0)
    # The lowest box index among those that force an anchor; boxes that touch no anchor force none.
    none = len(boxes_yxyx)
    box = torch.arange(none, device=anchors_yxyx.device)
    forced = torch.full_like(matched, none).scatter_reduce(
        0, forced_anchor, torch.where(forced_iou > 0, box, none), "amin"
    )
    return torch.where(forced < none, forced, matched)


def targets(anchors_yxyx: Tensor, boxes_yxyx: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each anchor shall predict.

    Args:
        anchors_yxyx: (A, 4).
        boxes_yxyx: (N, 4), of one image.
        labels: (N,), 1 to K.

    Returns:
        Class channels (A,), 0 for background; box targets (A, 4), 0 for background.
    """
    matched = match(anchors_yxyx, boxes_yxyx)
    positive = matched >= 0
    classes = torch.zeros_like(matched)
    box_targets = torch.zeros_like(anchors_yxyx)
    if positive.any():
        box = matched[positive]
        classes[positive] = labels[box]
        box_targets[positive] = encode(boxes_yxyx[box], anchors_yxyx[positive])
    return classes, box_targets
