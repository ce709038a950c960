"""Print how much detail enlarged cached images lose, compared with images decoded at the larger size.

    python benchmarks/jitter_loss.py --data FOLDER

Training enlarges a cached image by up to the upper end of `task.train.scale_jitter`. The long side of the cached image
is the task's image size. An enlarged corner is compared with the same corner of the image decoded at the larger size.
Detail is the energy of differences between neighbouring pixels.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotation_files.layout import find_split
from spinenas.proxy_task.data.images.image_cache import open_cache
from spinenas.proxy_task.training.augment import Crop, augment_image

SCALES = (1.125, 1.25, 1.5, 2.0)


def detail(image: torch.Tensor) -> float:
    return float(image.diff(dim=1).square().mean() + image.diff(dim=2).square().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="a COCO folder")
    parser.add_argument("--size", type=int, default=256, help="the task's image size")
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    paths = find_split(DataConfig(folder=arguments.data), "train")
    annotations = read_annotations(paths.annotations, paths.images)
    annotations = annotations.subset(np.arange(min(arguments.images, len(annotations.image_ids))))
    size = arguments.size
    long_sides = np.maximum(annotations.widths, annotations.heights)
    print(f"{len(long_sides)} images of {np.median(long_sides):.0f} px (median), cached at {size} px\n")
    print("| enlarged by | PSNR, median | detail kept, median |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        cache = open_cache(annotations, size, Path(folder))
        for scale in SCALES:
            large = open_cache(annotations, round(size * scale), Path(folder))
            ratios, kept = [], []
            for row in range(len(long_sides)):
                height, width = cache.content_sizes_wh[row, ::-1].tolist()
                crop = (min(height, int(size / scale)), min(width, int(size / scale)))
                target = (round(crop[0] * scale), round(crop[1] * scale))
                ours = augment_image(torch.from_numpy(cache.images[row].copy()), Crop((0, 0), crop, target, False))
                theirs = augment_image(torch.from_numpy(large.images[row].copy()), Crop((0, 0), target, target, False))
                ours, theirs = (image[:, : target[0], : target[1]] for image in (ours, theirs))
                error = float((ours - theirs).square().mean())
                span = 1 / 0.226  # of normalised pixels, averaged over the channels
                ratios.append(10 * np.log10(span**2 / error))
                kept.append(detail(ours) / detail(theirs))
            print(f"| {scale} | {np.median(ratios):.1f} dB | {np.median(kept):.0%} |")


if __name__ == "__main__":
    main()
