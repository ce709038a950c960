"""Boxes of cached images: in pixels of the cache, from arrays that all processes of a machine share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.images.image_cache import ImageCache, letterbox_geometry
from spinenas.proxy_task.data.images.labelled_images import attach_boxes

ANNOTATIONS = Annotations(
    images_folder=Path(),
    image_ids=np.arange(3),
    file_names=("a", "b", "c"),
    groups=("a", "b", "c"),
    widths=np.array([64, 30, 16]),
    heights=np.array([48, 60, 8]),
    category_ids=np.array([1, 2, 3]),
    category_names=("one", "two", "three"),
    box_offsets=np.array([0, 3, 3, 5]),
    boxes_xywh=np.array([[1, 2, 30, 40], [5.5, 6, 7, 8], [0, 0, 9, 9], [3, 4, 5, 6], [7, 8, 1, 2.0]]),
    labels=np.array([3, 1, 2, 2, 1]),
    areas=np.ones(5),
    iscrowd=np.array([False, True, False, False, True]),
    annotation_ids=np.arange(5),
)
CACHE = ImageCache(
    np.zeros((3, 32, 32, 3), dtype=np.uint8), *letterbox_geometry(ANNOTATIONS.widths, ANNOTATIONS.heights, 32)
)


def test_objects_are_the_boxes_in_pixels_of_the_cache_without_crowds() -> None:
    data = attach_boxes(ANNOTATIONS, CACHE)
    boxes_yxyx, labels = data.objects(0)
    assert boxes_yxyx.tolist() == [[1, 0.5, 21, 15.5], [0, 0, 4.5, 4.5]]
    assert labels.tolist() == [3, 2]
    assert data.objects(2)[0].tolist() == [[8, 6, 20, 16]]
    assert [len(data.objects(row)[0]) for row in range(3)] == [2, 0, 1]
    assert data.max_boxes == 2
    assert [data.content(row) for row in range(3)] == [(24, 32), (32, 16), (16, 32)]


def test_nothing_is_copied_that_grows_with_the_number_of_boxes() -> None:
    data = attach_boxes(ANNOTATIONS, CACHE)
    assert data.annotations is ANNOTATIONS
