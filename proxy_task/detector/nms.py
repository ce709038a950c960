"""Exact greedy non-maximum suppression with fixed shapes: batched, and the same program for every input."""

from __future__ import annotations

import torch
from torch import Tensor

from spinenas.proxy_task.detector.boxes import iou_yxyx


def greedy_nms(
    boxes_yxyx: Tensor, scores: Tensor, classes: Tensor, *, iou_threshold: float, max_detections: int
) -> Tensor:
    """Keep the best box, drop those of its class that overlap it by more than the threshold, and so on.

    One box is taken per step, so the result is the first max_detections of the per-class greedy algorithm. Of equal
    scores the lower index is taken first.

    Args:
        boxes_yxyx: (B, N, 4).
        scores: (B, N), above 0; a score of 0 or less is no candidate.
        classes: (B, N) integers.

    Returns:
        Indices (B, max_detections) into N by falling score, -1 where there are no more.
    """
    remaining = scores.clamp(min=0).clone()
    kept = torch.full((len(scores), max_detections), -1, dtype=torch.long, device=scores.device)
    for step in range(max_detections):
        score, index = remaining.max(dim=1)  # (B,); max gives the first of equals on a contiguous dimension
        found = score > 0
        kept[:, step] = torch.where(found, index, kept[:, step])
        box = boxes_yxyx.gather(1, index[:, None, None].expand(-1, 1, 4))
        overlap = iou_yxyx(box, boxes_yxyx)[:, 0]  # (B, N)
        same_class = classes == classes.gather(1, index[:, None])
        remaining.masked_fill_((overlap > iou_threshold) & same_class & found[:, None], 0)
        remaining.scatter_(1, index[:, None], 0)
    return kept
