"""Box arithmetic. The format is in every name: yxyx is (y0, x0, y1, x1) in pixels, xywh is COCO's (x, y, w, h).

Letters in shapes: N boxes, M other boxes, ... any leading dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest log ratio of decoded to anchor height and width (tensorflow/tpu `box_utils.py`, BBOX_XFORM_CLIP)."""

_EPSILON = 1e-8


def area_yxyx(boxes_yxyx: Tensor) -> Tensor:
    """Return the area of each box, (..., 4) -> (...)."""
    return (boxes_yxyx[..., 2] - boxes_yxyx[..., 0]) * (boxes_yxyx[..., 3] - boxes_yxyx[..., 1])


def iou_yxyx(boxes_yxyx: Tensor, others_yxyx: Tensor) -> Tensor:
    """Return the IoU of every pair, (..., N, 4) and (..., M, 4) -> (..., N, M); 0 if both are empty."""
    # Contiguous coordinates, and results in place: on a CPU allocating memory takes longer than the arithmetic.
    first = boxes_yxyx.movedim(-1, 0).contiguous().unsqueeze(-1)  # (4, ..., N, 1)
    second = others_yxyx.movedim(-1, 0).contiguous().unsqueeze(-2)  # (4, ..., 1, M)
    height = torch.minimum(first[2], second[2]).sub_(torch.maximum(first[0], second[0])).clamp_(min=0)
    width = torch.minimum(first[3], second[3]).sub_(torch.maximum(first[1], second[1])).clamp_(min=0)
    intersection = height.mul_(width)
    union = (area_yxyx(boxes_yxyx).unsqueeze(-1) + area_yxyx(others_yxyx).unsqueeze(-2)).sub_(intersection)
    return intersection.div_(union.clamp_(min=1e-12))  # if the union is empty, so is the intersection


def encode(boxes_yxyx: Tensor, anchors_yxyx: Tensor) -> Tensor:
    """Return targets (ty, tx, th, tw) of boxes relative to anchors, both (..., 4), without variances."""
    anchor_size = anchors_yxyx[..., 2:] - anchors_yxyx[..., :2]
    anchor_center = anchors_yxyx[..., :2] + anchor_size / 2
    size = boxes_yxyx[..., 2:] - boxes_yxyx[..., :2]
    center = boxes_yxyx[..., :2] + size / 2
    return torch.cat(
        [
            (center - anchor_center) / (anchor_size + _EPSILON),
            torch.log((size + _EPSILON) / (anchor_size + _EPSILON)),
        ],
        dim=-1,
    )


def decode(deltas: Tensor, anchors_yxyx: Tensor, *, plus_one: bool = False) -> Tensor:
    """Return the boxes (y0, x0, y1, x1) whose deltas these are: the inverse of `encode`, limited by MAX_LOG_SCALE.

    Args:
        plus_one: count pixels instead of distances, so that a box from 0 to 9 has a size of 10. tensorflow/tpu's
            `box_utils.py` decodes in this way, although its targets are encoded without it.
    """
    extra = 1.0 if plus_one else 0.0
    anchor_size = anchors_yxyx[..., 2:] - anchors_yxyx[..., :2] + extra
    center = deltas[..., :2] * anchor_size + anchors_yxyx[..., :2] + anchor_size / 2
    size = torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) * anchor_size
    return torch.cat([center - size / 2, center + size / 2 - extra], dim=-1)


def yxyx_from_xywh(boxes_xywh: Tensor) -> Tensor:
    """Convert COCO boxes (..., 4) to corners."""
    x, y, width, height = boxes_xywh.unbind(-1)
    return torch.stack([y, x, y + height, x + width], dim=-1)


def xywh_from_yxyx(boxes_yxyx: Tensor) -> Tensor:
    """Convert corners (..., 4) to COCO boxes."""
    y0, x0, y1, x1 = boxes_yxyx.unbind(-1)
    return torch.stack([x0, y0, x1 - x0, y1 - y0], dim=-1)
