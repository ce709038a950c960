"""Evaluates a detector from a weights file on the val images of a COCO-format data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spinenas.proxy_task.config import DataConfig, EvalConfig
from spinenas.proxy_task.data.annotation_files.annotation_cache import open_annotations
from spinenas.proxy_task.data.annotation_files.layout import find_split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import cache_root
from spinenas.proxy_task.data.findings import log_findings
from spinenas.proxy_task.data.images.image_cache import open_cache
from spinenas.proxy_task.data.images.image_file import decoding_of
from spinenas.proxy_task.data.images.labelled_images import attach_boxes
from spinenas.proxy_task.data.splits.merging import merge_entries
from spinenas.proxy_task.data.synthetic import resolve_built_in
from spinenas.proxy_task.detector.retinanet import RetinaNet
from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.evaluation.detect import detect
from spinenas.proxy_task.evaluation.detections import rescale_to_originals
from spinenas.proxy_task.evaluation.pycocotools_metrics import check_with_pycocotools
from spinenas.proxy_task.training.device import choose_device
from spinenas.proxy_task.training.train import Diverged
from spinenas.proxy_task.weights.weights_file import DetectorSpec
from spinenas.space.errors import UserError


def evaluate_weights(
    network: RetinaNet, spec: DetectorSpec, data: DataConfig, config: EvalConfig
) -> dict[str, float | None]:
    """Return COCO's 12 metrics, and AP by terciles of the object sizes of val.

    Args:
        network, spec: as `load_detector` returns them; they determine image size and decoding. Runs in float32.
        data: the data set with the val split.
        config: thresholds.

    Raises:
        UserError: where the data has a category that the weights do not know, or cannot be read; where a weight is
            not finite; where a figure differs from that of pycocotools.
    """
    paths = find_split(resolve_built_in(data, spec.image_size_pixels), "val")
    root = cache_root(data.cache_folder)
    annotations = merge_entries(open_annotations(paths.annotations, paths.images, root, exif=data.exif))
    _check_categories(annotations, spec, str(paths.annotations))
    cache = open_cache(annotations, spec.image_size_pixels, root, decoding=decoding_of(data))
    images = attach_boxes(annotations, cache)
    log_findings(images.annotations.findings[len(annotations.findings) :], paths.annotations)
    device = choose_device()
    try:
        found = detect(
            network.to(device),
            images,
            np.arange(len(annotations.image_ids)),
            device=device,
            config=replace(config, plus_one_decoding=spec.plus_one_decoding),
            dtype="float32",
        )
    except Diverged as error:
        raise UserError(f"with these weights {error}; use others") from error
    detections = rescale_to_originals(found, images, np.array(spec.category_ids))
    metrics = CocoEvaluator(annotations, max_detections=config.max_detections).evaluate(detections)
    check_with_pycocotools(metrics, annotations, detections, max_detections=config.max_detections)
    return metrics


def _check_categories(annotations: Annotations, spec: DetectorSpec, file: str) -> None:
    """Raise UserError if a category id of the data is not the same category in the weights."""
    known = dict(zip(spec.category_ids, spec.category_names, strict=True))
    for category_id, name in zip(annotations.category_ids.tolist(), annotations.category_names, strict=True):
        if category_id not in known:
            raise UserError(
                f"{file} has category id {category_id}, for which these weights have no channel; "
                f"they have {len(known)} categories: use data with the same ids"
            )
        theirs = known[category_id]
        if theirs and name and theirs.casefold() != name.casefold():
            raise UserError(
                f"category id {category_id} is {name!r} in {file} and {theirs!r} in these weights; "
                "use data with the same categories"
            )
