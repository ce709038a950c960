"""Training images as the detector sees them: flip, scale jitter, crop or pad (SpineNet, section 4.1).

Images come from the cache as uint8 with the content in the top-left corner; they leave as normalised float32, NCHW,
padded with zeros after normalisation, as in tensorflow/tpu `retinanet_parser.py`. What is drawn for an image is a
`Window`. A CPU cuts and scales image by image; an accelerator does a whole batch by two matrix products, which need
no other shapes than the batch's.
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
    """Map uint8 or float (..., 3, H, W) in 0..255 to zero mean and unit deviation by channel."""
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
    """The part of an image that is taken, and how large it gets; lengths in pixels, pairs are (height, width).

    Attributes:
        corner: top and left of the part.
        crop: its size.
        target: its size on the canvas, in the top-left corner.
        flipped: left is right.
    """

    corner: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]
    flipped: bool

    def transform_boxes(self, boxes_yxyx: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the boxes (M, 4) that are still in it, clipped, and their indices into the N given."""
        height, width = self.target
        top, left = self.corner
        ratio = np.array([height / self.crop[0], width / self.crop[1]] * 2)
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
    """Draw a flip, a scale, and a part of the content as large as fits the canvas after scaling.

    Args:
        content: (height, width) of the content.
        size: side of the canvas.
        rng: asked four times, or three without flips.
    """
    flipped = flip and rng.random() < 0.5
    scale = rng.uniform(*scale_jitter)
    height, width = (min(whole, max(1, round(size / scale))) for whole in content)
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(content, (height, width), strict=True))
    target = (min(size, max(1, round(height * scale))), min(size, max(1, round(width * scale))))
    return Crop((top, left), (height, width), target, flipped)


def augment_image(image: Tensor, crop: Crop) -> Tensor:
    """Cut out and scale one image: (S, S, 3) uint8 to (3, S, S) float32."""
    size = image.shape[0]
    (top, left), (height, width) = crop.corner, crop.crop
    part = image[top : top + height, left : left + width].permute(2, 0, 1)
    if crop.flipped:
        part = part.flip(-1)
    part = part.float()
    if crop.target != crop.crop:
        shrinks = crop.target < crop.crop  # both axes do, or none
        part = functional.interpolate(part[None], size=crop.target, mode="bilinear", antialias=shrinks)[0]
    out = torch.zeros(3, size, size)
    out[:, : crop.target[0], : crop.target[1]] = normalize(part)
    return out


def stack_crops(crops: list[Crop]) -> Tensor:
    """Return windows as `augmented_batch` takes them: (B, 2, 4) int64 of corner, crop, target, flipped by axis."""
    rows = [
        [[*axis, flipped] for *axis, flipped in zip(w.corner, w.crop, w.target, (0, int(w.flipped)), strict=True)]
        for w in crops
    ]
    return torch.tensor(rows, dtype=torch.int64)


def augment_batch(images: Tensor, crops: Tensor) -> Tensor:
    """Do what `augmented` does for a batch of any windows with the same program.

    Args:
        images: (B, S, S, 3) uint8.
        windows: of `stacked_windows`, on the same device.

    Returns:
        (B, 3, S, S) float32.
    """
    size = images.shape[1]
    weights = _resize_weights(crops, size)  # (B, 2, S, S)
    planes = images.permute(0, 3, 1, 2).float()
    resized = weights[:, None, 0] @ planes @ weights[:, None, 1].transpose(-1, -2)
    return normalize(resized) * _mask(crops[..., 2], size)


def _resize_weights(crops: Tensor, size: int) -> Tensor:
    """Return (B, 2, S, S): row i has the weights of the S pixels along an axis in pixel i of the canvas.

    They are those of torch's antialiased bilinear interpolation: a triangle about the pixel's place in the image,
    as wide as two pixels of the coarser side. Rows outside the target are 0.
    """
    corner, crop, target, flipped = crops[..., None].float().unbind(2)  # (B, 2, 1)
    cell = torch.arange(size, device=crops.device, dtype=torch.float32)
    ratio = crop / target
    place = torch.where(flipped > 0, target - 1 - cell, cell)
    center = (place + 0.5) * ratio  # (B, 2, S), from the corner
    pixel = cell - corner  # (B, 2, S)
    weight = 1 - (pixel[..., None, :] + 0.5 - center[..., :, None]).abs() / ratio.clamp(min=1)[..., None]
    inside = ((pixel >= 0) & (pixel < crop))[..., None, :] & (cell < target)[..., :, None]
    weight = torch.where(inside, weight.clamp(min=0), 0)
    return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-6)
