"""Facts about image files, a byte for each, kept with the decoded images; and findings about images and objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.images.image_file import FIRST_SWAPPED, Decoding, ImageFacts

NUM_BYTES = 1
"""Bytes for each image."""

_ORIENTATION, _IS_TURNED, _HAS_SHORT_LEVELS = 0b1111, 1 << 4, 1 << 5

SMALL_PIXELS = 2.0
"""Boxes with a side below this are too small to be learnt."""


def as_byte(facts: ImageFacts) -> bytes:
    """Return the facts about an image file as a byte."""
    return bytes([facts.orientation | facts.is_turned * _IS_TURNED | facts.has_short_levels * _HAS_SHORT_LEVELS])


def facts_findings(annotations: Annotations, facts: NDArray[np.uint8], decoding: Decoding) -> tuple[Finding, ...]:
    """Return what the facts (N,) about image files mean to the owner of the annotations."""
    orientation, is_turned = facts & _ORIENTATION, (facts & _IS_TURNED) > 0
    stays = (orientation > 1) & ~is_turned
    # A size in the annotations that is not the displayed one says that the stored image is meant.
    is_told = (orientation >= FIRST_SWAPPED) & (annotations.widths != annotations.heights)
    reason = "as task.data.exif says" if decoding.exif == "displayed" else "as the sizes in the annotations say"
    unsure = "if the boxes were drawn on upright photos, set task.data.exif=displayed; otherwise set it to stored"
    told = (
        "the sizes in the annotations are those of the stored images; if the boxes were drawn on upright photos, turn "
        "the files upright and export again"
    )
    masks = [
        (f"images turned upright by their EXIF orientation, {reason}", is_turned, ""),
        ("images with an EXIF orientation, which is not applied", stays & ~is_told, unsure),
        ("images with an EXIF orientation of swapped sides, which is not applied", stays & is_told, told),
        (
            "16-bit images without a level of 12 bits or more, which are almost black",
            (facts & _HAS_SHORT_LEVELS) > 0,
            "set task.data.bit_depth to the bits that the camera has, such as 12",
        ),
    ]
    if decoding.exif == "stored":
        del masks[1:3]
    return tuple(
        Finding(what, int(np.count_nonzero(mask)), len(mask), annotations.file_names[int(np.argmax(mask))], advice)
        for what, mask, advice in masks
        if mask.any()
    )


def small_box_findings(annotations: Annotations, scales: NDArray[np.float64], size: int) -> tuple[Finding, ...]:
    """Return a finding about objects that are too small at the size of the task, if there are any."""
    scale_of_box = np.repeat(scales, np.diff(annotations.box_offsets))
    is_small = annotations.boxes_xywh[:, 2:].min(axis=1) * scale_of_box < SMALL_PIXELS
    is_small &= ~annotations.iscrowd
    count = int(np.count_nonzero(is_small))
    if not count:
        return ()
    return (
        Finding(
            f"objects narrower than {SMALL_PIXELS:g} px at {size} px",
            count,
            int(np.count_nonzero(~annotations.iscrowd)),
            f"annotation {annotations.annotation_ids[np.argmax(is_small)]}",
            "a larger task.image_size_pixels, or tiles of the images, would show them",
        ),
    )


def crowded_findings(annotations: Annotations, max_detections: int) -> tuple[Finding, ...]:
    """Return a finding about images with more objects than AP counts detections, if there are any."""
    images = annotations.image_of_box[~annotations.iscrowd]
    num_objects = np.bincount(images, minlength=len(annotations.image_ids))
    is_crowded = num_objects > max_detections
    count = int(np.count_nonzero(is_crowded))
    if not count:
        return ()
    first = int(np.argmax(is_crowded))
    return (
        Finding(
            f"images with more than {max_detections} objects",
            count,
            len(num_objects),
            f"{annotations.file_names[first]} with {num_objects[first]}",
            f"AP counts at most {max_detections} detections of an image, so raise task.eval.max_detections; the "
            f"fullest image has {num_objects.max()}",
        ),
    )
