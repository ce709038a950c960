"""The annotations of a set of images, as flat arrays; this module reads no file.

Shapes: N images, M boxes, K categories. Boxes are (x, y, width, height) in pixels of the original image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.findings import Finding

CHUNK = 4096
"""Items that a fingerprint hashes at once. Hashing a large set in one piece would leave the process larger for good."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """Read-only arrays: images ascending by id, boxes of an image in the order of the file.

    Attributes:
        images_folder: folder that file_names are relative to.
        image_ids: (N,) as in the file.
        file_names: N paths of files, relative to images_folder.
        groups: N names; images of one group show the same scene, and `hold_out` never separates them.
        widths, heights: (N,) pixels; 0 until the size is read from the image file, if the annotations lack it.
        category_ids: (K,) ascending; the class channel of the i-th category is i + 1, channel 0 is unused.
        category_names: K names.
        box_offsets: (N + 1,); the boxes of image i are box_offsets[i]:box_offsets[i + 1].
        boxes_xywh: (M, 4) float64.
        labels: (M,) class channels, 1..K.
        areas: (M,) square pixels: the area in the file (of the mask, if there is one), else width x height.
        iscrowd: (M,) bool; a crowd box is never an object to detect.
        annotation_ids: (M,) as in the file.
        findings: what was dropped, clipped or read in another way than written.
        names_in_file: the file names as the annotation file writes them; None if the files have these names.
    """

    images_folder: Path
    image_ids: NDArray[np.int64]
    file_names: Sequence[str]
    groups: Sequence[str]
    widths: NDArray[np.int64]
    heights: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    category_names: tuple[str, ...]
    box_offsets: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]
    findings: tuple[Finding, ...] = ()
    names_in_file: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def image_of_box(self) -> NDArray[np.int64]:
        """(M,), the index of the image of every box."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.box_offsets))

    @property
    def written_names(self) -> Sequence[str]:
        """N file names as in the annotation file. They name an image wherever the data lie."""
        return self.file_names if self.names_in_file is None else self.names_in_file

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that can change a result: neither the folder nor the order of images in the file."""
        digest = hashlib.sha256()
        # First the JSON text of [file_names, groups, category_names], then the arrays.
        for start, names in (("[[", self.written_names), ("], [", self.groups), ("], [", self.category_names)):
            digest.update(start.encode())
            for first in range(0, len(names), CHUNK):
                text = json.dumps(names[first : first + CHUNK])[1:-1]
                digest.update(((", " if first else "") + text).encode())
        digest.update(b"]]")
        integers = (
            self.image_ids,
            self.widths,
            self.heights,
            self.category_ids,
            self.box_offsets,
            self.labels,
            self.iscrowd,
        )
        for dtype, arrays in (("<i8", integers), ("<f8", (self.boxes_xywh, self.areas))):
            for array in arrays:
                for first in range(0, len(array), CHUNK):
                    digest.update(np.ascontiguousarray(array[first : first + CHUNK], dtype).ravel().data)
        return digest.hexdigest()

    def subset(self, image_indices: NDArray[np.int64]) -> Annotations:
        """Return these images only, in the order given, with the same categories and class channels."""
        starts, ends = self.box_offsets[image_indices], self.box_offsets[image_indices + 1]
        spans = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
        boxes = np.concatenate([np.empty(0, dtype=np.int64), *spans])
        return Annotations(
            images_folder=self.images_folder,
            image_ids=self.image_ids[image_indices],
            file_names=tuple(self.file_names[i] for i in image_indices),
            groups=tuple(self.groups[i] for i in image_indices),
            widths=self.widths[image_indices],
            heights=self.heights[image_indices],
            category_ids=self.category_ids,
            category_names=self.category_names,
            box_offsets=np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64),
            boxes_xywh=self.boxes_xywh[boxes],
            labels=self.labels[boxes],
            areas=self.areas[boxes],
            iscrowd=self.iscrowd[boxes],
            annotation_ids=self.annotation_ids[boxes],
            names_in_file=None if self.names_in_file is None else tuple(self.names_in_file[i] for i in image_indices),
        )
