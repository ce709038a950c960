"""Assigns ground-truth boxes to anchors (SpineNet, section 4.1; tensorflow/tpu `target_assigner.py`).

An anchor with an IoU of at least 0.5 is positive, any other is negative: there is no ignored band. Each box is also
assigned to the anchor that overlaps it most (a forced match, as in tensorflow/tpu `argmax_matcher.py`). A forced match
overrides a better one. If several boxes force the same anchor, the first one wins.

Shapes do not depend on the content of the images: a batch is padded with zero-area boxes, which never match.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spinenas.proxy_task.detector.boxes import encode, iou_yxyx

POSITIVE_IOU = 0.5


def match_anchors(anchors_yxyx: Tensor, boxes_yxyx: Tensor) -> Tensor:
    """Return for each of A anchors the index of its box among N, or -1 for background.

    Args:
        anchors_yxyx: (A, 4).
        boxes_yxyx: (..., N, 4), N at least 1; zero-area boxes are padding and never match.

    Returns:
        (..., A).
    """
    iou = iou_yxyx(boxes_yxyx, anchors_yxyx)  # (..., N, A)
    best_iou, best_box = iou.max(dim=-2)
    matched = torch.where(best_iou >= POSITIVE_IOU, best_box, -1)
    forced_iou, forced_anchor = iou.max(dim=-1)
    # Of the boxes that force an anchor, the lowest index. A box that overlaps no anchor forces none.
    none = boxes_yxyx.shape[-2]
    box = torch.arange(none, device=anchors_yxyx.device)
    forced = torch.full_like(matched, none).scatter_reduce(
        -1, forced_anchor, torch.where(forced_iou > 0, box, none), "amin"
    )
    return torch.where(forced < none, forced, matched)


def anchor_targets(anchors_yxyx: Tensor, boxes_yxyx: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class and box targets of each anchor.

    Args:
        anchors_yxyx: (A, 4).
        boxes_yxyx: (..., N, 4), as in `match_anchors`.
        labels: (..., N), 1 to K.

    Returns:
        Class channels (..., A), 0 for background; box targets (..., A, 4), 0 for background.
    """
    matched = match_anchors(anchors_yxyx, boxes_yxyx)
    positive, box = matched >= 0, matched.clamp(min=0)
    classes = torch.where(positive, labels.gather(-1, box), 0)
    box = box[..., None].expand(*box.shape, 4)
    box_targets = torch.where(positive[..., None], encode(boxes_yxyx.gather(-2, box), anchors_yxyx), 0)
    return classes, box_targets
