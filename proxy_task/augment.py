"""Training images as the detector sees them: flip, scale jitter, crop or pad (SpineNet, section 4.1).

Images come from the cache as uint8 with the content in the top-left corner; they leave as normalised float32, NCHW,
padded with zeros after normalisation, as in tensorflow/tpu `retinanet_parser.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Map uint8 or float (..., 3, H, W) in 0..255 to zero mean and unit deviation by channel."""
    mean = torch.tensor(MEAN_RGB, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD_RGB, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def letterboxed(image: Tensor, content: tuple[int, int]) -> Tensor:
    """Normalise one cached image without any augmentation.

    Args:
        image: (S, S, 3) uint8, content in the top-left corner.
        content: (height, width) of the content.

    Returns:
        (3, S, S) float32, zero outside the content.
    """
    height, width = content
    out = torch.zeros(3, *image.shape[:2])
    out[:, :height, :width] = normalize(image[:height, :width].permute(2, 0, 1))
    return out


def augmented(
    image: Tensor,
    content: tuple[int, int],
    boxes_yxyx: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    flip: bool,
    scale_jitter: tuple[float, float],
) -> tuple[Tensor, NDArray[np.float64], NDArray[np.int64]]:
    """Flip, scale, and crop or pad one image back to its canvas.

    Args:
        image: (S, S, 3) uint8, content in the top-left corner.
        content: (height, width) of the content.
        boxes_yxyx: (N, 4), in pixels of the canvas.

    Returns:
        The image (3, S, S) float32; the boxes that are still in it, (M, 4), clipped; their indices into N.
    """
    size = image.shape[0]
    height, width = content
    flipped = flip and rng.random() < 0.5
    scale = rng.uniform(*scale_jitter)
    # A window of the content, as large as fits the canvas after scaling, at a random place.
    crop = (min(height, max(1, round(size / scale))), min(width, max(1, round(size / scale))))
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(content, crop, strict=True))
    target = (min(size, max(1, round(crop[0] * scale))), min(size, max(1, round(crop[1] * scale))))

    window = image[top : top + crop[0], left : left + crop[1]].permute(2, 0, 1)
    if flipped:
        window = window.flip(-1)
    window = window.float()
    if target != crop:
        window = functional.interpolate(window[None], size=target, mode="bilinear", antialias=scale < 1)[0]
    out = torch.zeros(3, size, size)
    out[:, : target[0], : target[1]] = normalize(window)

    ratio = np.array([target[0] / crop[0], target[1] / crop[1]] * 2)
    boxes = (boxes_yxyx - np.array([top, left, top, left])) * ratio
    if flipped:
        boxes = np.stack([boxes[:, 0], target[1] - boxes[:, 3], boxes[:, 2], target[1] - boxes[:, 1]], axis=1)
    boxes = np.clip(boxes, 0, np.array([target[0], target[1]] * 2))
    inside = np.nonzero((boxes[:, 2] - boxes[:, 0] > 1) & (boxes[:, 3] - boxes[:, 1] > 1))[0]
    return out, boxes[inside], inside
