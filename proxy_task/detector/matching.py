"""Which anchor learns which box (SpineNet, section 4.1; tensorflow/tpu `target_assigner.py`, `argmax_matcher.py`).

IoU of at least 0.5 is positive, everything else negative: there is no ignored band. Every box also forces the anchor
that overlaps it most; a forced match overrides a better one, and of several boxes that force one anchor the first wins.

Shapes do not depend on what is in the images: a batch is padded with boxes of no size, which match nothing.
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
        boxes_yxyx: (..., N, 4), N at least 1; one of no size is no box.

    Returns:
        (..., A).
    """
    iou = iou_yxyx(boxes_yxyx, anchors_yxyx)  # (..., N, A)
    best_iou, best_box = iou.max(dim=-2)
    matched = torch.where(best_iou >= POSITIVE_IOU, best_box, -1)
    forced_iou, forced_anchor = iou.max(dim=-1)
    # The lowest box index among those that force an anchor; boxes that touch no anchor force none.
    none = boxes_yxyx.shape[-2]
    box = torch.arange(none, device=anchors_yxyx.device)
    forced = torch.full_like(matched, none).scatter_reduce(
        -1, forced_anchor, torch.where(forced_iou > 0, box, none), "amin"
    )
    return torch.where(forced < none, forced, matched)


def anchor_targets(anchors_yxyx: Tensor, boxes_yxyx: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each anchor shall predict.

    Args:
        anchors_yxyx: (A, 4).
        boxes_yxyx: (..., N, 4), as `match` has them.
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
