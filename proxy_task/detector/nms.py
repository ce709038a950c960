"""Exact greedy non-maximum suppression, batched and with fixed shapes, so that one program serves every input."""

from __future__ import annotations

import torch
from torch import Tensor

from spinenas.proxy_task.detector.boxes import iou_yxyx


def greedy_nms(
    boxes_yxyx: Tensor, scores: Tensor, classes: Tensor, *, iou_threshold: float, max_detections: int
) -> Tensor:
    """Repeatedly keep the best box, and drop the boxes of its class that overlap it by more than the threshold.

    Each step keeps one box, so the result is the first max_detections of the per-class greedy algorithm. Among equal
    scores, the lower index comes first.

    Args:
        boxes_yxyx: (B, N, 4).
        scores: (B, N); a box with a score of 0 or less is never kept.
        classes: (B, N) integers.

    Returns:
        Indices (B, max_detections) into N in descending order of score, then -1.
    """
    remaining = scores.clamp(min=0).clone()
    kept = torch.full((len(scores), max_detections), -1, dtype=torch.long, device=scores.device)
    for step in range(max_detections):
        score, index = remaining.max(dim=1)  # (B,); on a contiguous dimension max returns the first of equals
        found = score > 0
        kept[:, step] = torch.where(found, index, kept[:, step])
        box = boxes_yxyx.gather(1, index[:, None, None].expand(-1, 1, 4))
        overlap = iou_yxyx(box, boxes_yxyx)[:, 0]  # (B, N)
        same_class = classes == classes.gather(1, index[:, None])
        remaining.masked_fill_((overlap > iou_threshold) & same_class & found[:, None], 0)
        remaining.scatter_(1, index[:, None], 0)
    return kept
