"""Augmentation of training images: flip, scale jitter, crop or pad (SpineNet, section 4.1).

Input is uint8 from the cache, with the content in the top-left corner. Output is normalised float32, NCHW, padded with
zeros after normalisation, as in tensorflow/tpu `retinanet_parser.py`. A random `Crop` describes the augmentation of one
image. A CPU crops and scales image by image. An accelerator transforms a whole batch by two matrix products, whose
shapes are the same for every batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Map uint8 or float (..., 3, H, W) in 0..255 to zero mean and unit deviation per channel."""
    mean = torch.tensor(MEAN_RGB, device=images.device).view(3, 1, 1)
    std = torch.tensor(STD_RGB, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def normalize_letterboxed(images: Tensor, contents: Tensor) -> Tensor:
    """Normalise cached images without any augmentation.

    Args:
        images: (B, S, S, 3) uint8, content in the top-left corner.
        contents: (B, 2) height and width of the content.

    Returns:
        (B, 3, S, S) float32, zero outside the content.
    """
    return normalize(images.permute(0, 3, 1, 2)) * _mask(contents, images.shape[1])


def _mask(contents: Tensor, size: int) -> Tensor:
    """Return (B, 1, S, S) bool, true inside contents (B, 2) of (height, width)."""
    inside = torch.arange(size, device=contents.device) < contents[..., None]  # (B, 2, S)
    return inside[:, None, 0, :, None] & inside[:, None, 1, None, :]


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of an image, and its size after scaling. Lengths are in pixels, pairs are (height, width).

    Attributes:
        corner: top and left of the rectangle.
        size: size of the rectangle.
        target_size: its size on the canvas, where it is placed in the top-left corner.
        flipped: whether it is mirrored horizontally.
    """

    corner: tuple[int, int]
    size: tuple[int, int]
    target_size: tuple[int, int]
    flipped: bool

    def transform_boxes(self, boxes_yxyx: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the boxes (M, 4) that remain in the crop, in canvas pixels, and their indices into the N given."""
        height, width = self.target_size
        top, left = self.corner
        ratio = np.array([height / self.size[0], width / self.size[1]] * 2)
        boxes = (boxes_yxyx - np.array([top, left, top, left])) * ratio
        if self.flipped:
            boxes = np.stack([boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], axis=1)
        boxes = np.clip(boxes, 0, np.array([height, width] * 2))
        inside = np.nonzero((boxes[:, 2] - boxes[:, 0] > 1) & (boxes[:, 3] - boxes[:, 1] > 1))[0]
        return boxes[inside], inside


def draw_crop(
    content: tuple[int, int],
    size: int,
    rng: np.random.Generator,
    *,
    flip: bool,
    scale_jitter: tuple[float, float],
) -> Crop:
    """Draw a flip, a scale, and the largest crop of the content that fits the canvas after scaling.

    Args:
        content: (height, width) of the content.
        size: side of the canvas.
        rng: used for four draws, or three without flips.
    """
    flipped = flip and rng.random() < 0.5
    scale = rng.uniform(*scale_jitter)
    height, width = (min(whole, max(1, round(size / scale))) for whole in content)
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(content, (height, width), strict=True))
    target = (min(size, max(1, round(height * scale))), min(size, max(1, round(width * scale))))
    return Crop((top, left), (height, width), target, flipped)


def augment_image(image: Tensor, crop: Crop) -> Tensor:
    """Crop and scale one image: (S, S, 3) uint8 to (3, S, S) float32."""
    size = image.shape[0]
    (top, left), (height, width) = crop.corner, crop.size
    part = image[top : top + height, left : left + width].permute(2, 0, 1)
    if crop.flipped:
        part = part.flip(-1)
    part = part.float()
    if crop.target_size != crop.size:
        shrinks = crop.target_size < crop.size  # both axes shrink, or neither
        part = functional.interpolate(part[None], size=crop.target_size, mode="bilinear", antialias=shrinks)[0]
    out = torch.zeros(3, size, size)
    out[:, : crop.target_size[0], : crop.target_size[1]] = normalize(part)
    return out


def stack_crops(crops: list[Crop]) -> Tensor:
    """Return crops as `augment_batch` takes them: (B, 2, 4) int64 of corner, size, target size, flipped, by axis."""
    rows = [
        [
            [*axis, flipped]
            for *axis, flipped in zip(crop.corner, crop.size, crop.target_size, (0, int(crop.flipped)), strict=True)
        ]
        for crop in crops
    ]
    return torch.tensor(rows, dtype=torch.int64)


def augment_batch(images: Tensor, crops: Tensor) -> Tensor:
    """Do what `augment_image` does for a batch, by a program that is the same for all crops.

    Args:
        images: (B, S, S, 3) uint8.
        crops: from `stack_crops`, on the same device.

    Returns:
        (B, 3, S, S) float32.
    """
    size = images.shape[1]
    weights = _resize_weights(crops, size)  # (B, 2, S, S)
    planes = images.permute(0, 3, 1, 2).float()
    resized = weights[:, None, 0] @ planes @ weights[:, None, 1].transpose(-1, -2)
    return normalize(resized) * _mask(crops[..., 2], size)


def _resize_weights(crops: Tensor, size: int) -> Tensor:
    """Return (B, 2, S, S): for each axis, row i holds the weights of the S image pixels in canvas pixel i.

    The weights are those of torch's antialiased bilinear interpolation. They form a triangle around the position of
    the canvas pixel in the image, as wide as two pixels of the coarser side. Rows outside the target are 0.
    """
    corner, crop_size, target, flipped = crops[..., None].float().unbind(2)  # (B, 2, 1)
    cell = torch.arange(size, device=crops.device, dtype=torch.float32)
    ratio = crop_size / target
    position = torch.where(flipped > 0, target - 1 - cell, cell)
    center = (position + 0.5) * ratio  # (B, 2, S), from the corner
    pixel = cell - corner  # (B, 2, S)
    weight = 1 - (pixel[..., None, :] + 0.5 - center[..., :, None]).abs() / ratio.clamp(min=1)[..., None]
    inside = ((pixel >= 0) & (pixel < crop_size))[..., None, :] & (cell < target)[..., :, None]
    weight = torch.where(inside, weight.clamp(min=0), 0)
    return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-6)
