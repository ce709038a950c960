"""RetinaNet's anchors (tensorflow/tpu `anchor.py`): the same boxes at every location of every level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def anchor_boxes(
    image_size: tuple[int, int],
    levels: Sequence[int],
    *,
    anchor_scale: float,
    num_scales: int,
    aspect_ratios: Sequence[float],
) -> Tensor:
    """Return all anchors as (A, 4) float32 boxes yxyx in pixels.

    The order is that of the head's predictions: levels as given, then rows, columns, scales, aspect ratios.

    Args:
        image_size: (height, width).
        levels: level L has a map of ceil(size / 2**L) cells, and the stride size / ceil(size / 2**L).
        anchor_scale: side of the smallest anchor in units of 2**L; scale k multiplies it by 2**(k / num_scales).
        aspect_ratios: width / height.
    """
    boxes = []
    for level in levels:
        centers = []
        for size in image_size:
            cells = -(-size // 2**level)
            centers.append((torch.arange(cells, dtype=torch.float64) + 0.5) * (size / cells))
        shapes = []
        for scale in range(num_scales):
            side = anchor_scale * 2.0**level * 2.0 ** (scale / num_scales)
            for ratio in aspect_ratios:
                shapes.append((side / ratio**0.5, side * ratio**0.5))
        half = torch.tensor(shapes, dtype=torch.float64) / 2
        rows, columns = torch.meshgrid(centers[0], centers[1], indexing="ij")
        center = torch.stack([rows, columns], dim=-1).reshape(-1, 1, 2)
        boxes.append(torch.cat([center - half, center + half], dim=-1).reshape(-1, 4))
    return torch.cat(boxes).float()
