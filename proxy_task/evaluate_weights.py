"""A detector from a weights file, measured on the val images of a COCO-format data set; nothing is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spinenas.proxy_task.cache_folder import cache_root
from spinenas.proxy_task.coco import find_split, read_annotations
from spinenas.proxy_task.config import DataConfig, EvalConfig
from spinenas.proxy_task.detect import detect, on_originals
from spinenas.proxy_task.device import choose_device
from spinenas.proxy_task.evaluate import CocoEvaluator
from spinenas.proxy_task.image_cache import open_cache
from spinenas.proxy_task.labelled_images import labelled
from spinenas.proxy_task.retinanet import RetinaNet
from spinenas.proxy_task.weights_file import DetectorSpec
from spinenas.space.errors import UserError


def evaluate_weights(
    network: RetinaNet,
    spec: DetectorSpec,
    data: DataConfig,
    config: EvalConfig,
    *,
    image_size_pixels: int | None = None,
    device: str = "auto",
) -> dict[str, float | None]:
    """Return COCO's 12 metrics and the AP by size terciles of the data set itself.

    Args:
        network, spec: as `load_detector` returns them.
        data: whose val split.
        config: thresholds; the decoding of boxes is the spec's.
        image_size_pixels: side of the square input; None for the spec's.
        device: "auto", "cpu" or "cuda".

    Raises:
        UserError: where the data has a category that the weights do not know, or cannot be read.
    """
    paths = find_split(data, "val")
    annotations = read_annotations(paths.annotations, paths.images)
    unknown = sorted(set(annotations.category_ids.tolist()) - set(spec.category_ids))
    if unknown:
        raise UserError(
            f"{paths.annotations} has category id {unknown[0]}, which these weights have no channel for; "
            f"they know {len(spec.category_ids)} categories: use data with the same ids"
        )
    cache = open_cache(annotations, image_size_pixels or spec.image_size_pixels, cache_root(data.cache_folder))
    where = choose_device(device)
    found = detect(
        network.to(where),
        labelled(annotations, cache),
        np.arange(len(annotations.image_ids)),
        device=where,
        config=replace(config, plus_one_decoding=spec.plus_one_decoding),
        dtype="float32",
    )
    return CocoEvaluator(annotations).evaluate(on_originals(found, annotations, cache, np.array(spec.category_ids)))
