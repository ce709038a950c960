"""COCO annotation files: found, checked and held as flat arrays; nothing here opens an image.

Shapes: N images, M boxes, K categories. Boxes are (x, y, width, height) in pixels of the original image.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from spinenas.space.errors import UserError

logger = logging.getLogger(__name__)


EDGE_TOLERANCE_PIXELS = 1.0
"""COCO's boxes enclose rounded outlines and may reach over the edge by a fraction of a pixel; those stay."""

PIECE = 4096
"""Items that a fingerprint takes at once: what a process allocates for all of a large set it would keep."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """One annotation file: read-only arrays, images ascending by id, boxes of an image in the file's order.

    Attributes:
        images_folder: what file_names are relative to.
        image_ids: (N,) as in the file.
        file_names: N paths.
        groups: N names; images of one group show the same scene and are never parted by `hold_out`.
        widths, heights: (N,) pixels.
        category_ids: (K,) ascending; the class channel of the i-th category is i + 1, channel 0 is unused.
        category_names: K names.
        box_offsets: (N + 1,); the boxes of image i are box_offsets[i]:box_offsets[i + 1].
        boxes_xywh: (M, 4) float64.
        labels: (M,) class channels, 1..K.
        areas: (M,) the file's area (of the mask, if there is one), else width x height; square pixels.
        iscrowd: (M,) bool; a crowd box is never an object to be found.
        annotation_ids: (M,) as in the file.
        dropped: boxes of the file that are not here, by reason.
        num_clipped: boxes that were cut to their image.
        changes: what was dropped and clipped, in words.
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
    dropped: dict[str, int] = field(default_factory=dict)
    num_clipped: int = 0
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that can change a result; the folder and the order of images in the file cannot."""
        digest = hashlib.sha256()
        # The JSON of [file_names, groups, category_names], and then the arrays.
        for start, names in (("[[", self.file_names), ("], [", self.groups), ("], [", self.category_names)):
            digest.update(start.encode())
            for first in range(0, len(names), PIECE):
                text = json.dumps(names[first : first + PIECE])[1:-1]
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
                for first in range(0, len(array), PIECE):
                    digest.update(np.ascontiguousarray(array[first : first + PIECE], dtype).ravel().data)
        return digest.hexdigest()

    def subset(self, image_indices: NDArray[np.int64]) -> Annotations:
        """Return these images only, in the order given; categories and class channels stay."""
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
        )


def read_annotations(path: Path, images_folder: Path) -> Annotations:
    """Read and check an annotation file.

    Boxes: one with a figure that is not finite, or without positive width and height, is dropped. One that
    reaches over the edge of its image by more than a pixel is clipped to the image, its area reduced in
    proportion, and dropped if a side that had a pixel keeps less than one. Every other box stays as it is,
    however thin, so that AP on valid COCO data is what pycocotools gives for the file. What was changed is
    counted and logged. Whatever else departs from COCO's format is an error; outlines are passed over unread.
    """
    annotations = parse_annotations(path, images_folder)
    tell_changes(annotations, path)
    return annotations


def tell_changes(annotations: Annotations, path: Path) -> None:
    """Log what reading a file changed."""
    for change in annotations.changes:
        logger.warning("%s: %s", path, change)


def parse_annotations(path: Path, images_folder: Path, *, sha256: str | None = None) -> Annotations:
    """Do what `read_annotations` does without a word of it; a file of another SHA-256 than the given one is refused."""
    data = _load_json(path, sha256)
    for name in ("images", "annotations", "categories"):
        if not isinstance(data.get(name), list):
            raise UserError(f"{path} is not a COCO annotation file: it has no list {name!r}")

    category_names = _read_categories(data["categories"], path)
    category_ids = sorted(category_names)
    label_of = {category_id: index + 1 for index, category_id in enumerate(category_ids)}

    images = _read_images(data["images"], path)
    image_ids = np.array([image["id"] for image in images], dtype=np.int64)
    widths = np.array([image["width"] for image in images], dtype=np.int64)
    heights = np.array([image["height"] for image in images], dtype=np.int64)

    row_of = {image_id: row for row, image_id in enumerate(image_ids.tolist())}
    table = _read_boxes(data["annotations"], row_of, label_of, path)
    table, dropped, num_clipped, changes = _repair_boxes(table, widths, heights)
    if not np.any(~table.iscrowd):
        raise UserError(
            f"{path} has no boxes of objects ({sum(dropped.values())} were dropped); at least one is needed"
        )

    order = np.argsort(table.image_rows, kind="stable")
    return Annotations(
        images_folder=images_folder,
        image_ids=image_ids,
        file_names=tuple(image["file_name"] for image in images),
        groups=tuple(str(image.get("group", f"image {image['id']}")) for image in images),
        widths=widths,
        heights=heights,
        category_ids=np.array(category_ids, dtype=np.int64),
        category_names=tuple(category_names[category_id] for category_id in category_ids),
        box_offsets=np.searchsorted(table.image_rows[order], np.arange(len(images) + 1)).astype(np.int64),
        boxes_xywh=table.boxes_xywh[order],
        labels=table.labels[order],
        areas=table.areas[order],
        iscrowd=table.iscrowd[order],
        annotation_ids=table.annotation_ids[order],
        dropped=dropped,
        num_clipped=num_clipped,
        changes=changes,
    )


OUTLINES = re.compile(rb'"(?:segmentation|counts|keypoints)"\s*:\s*\[[][\d\s.,eE+-]*\]')
"""Most of a COCO file, gigabytes as Python lists and of no use here; in a string the quotes would be escaped."""


def _load_json(path: Path, sha256: str | None) -> dict[str, Any]:
    text = _without_outlines(path, sha256)
    try:
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:  # it may be NaN or Infinity, which some tools write and Python reads
            data = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); give a COCO annotation file") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a COCO annotation file: it holds a {type(data).__name__}, not an object")
    return data


def _without_outlines(path: Path, sha256: str | None) -> bytes:
    """Return the text of a file with null for every outline."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if sha256 is not None and hashlib.sha256(text).hexdigest() != sha256:
        raise UserError(f"{path} was changed while it was read; start again when it is complete")
    return OUTLINES.sub(rb'"outline":null', text.removeprefix(b"\xef\xbb\xbf"))  # some tools write a byte order mark


def _entry(entries: list[Any], index: int, what: str, path: Path) -> dict[str, Any]:
    entry = entries[index]
    if not isinstance(entry, dict):
        raise UserError(f"{path}: {what} number {index} is a {type(entry).__name__}; it must be an object")
    return entry


def _whole_number(entry: dict[str, Any], name: str, what: str, path: Path, *, least: int = -(2**63)) -> int:
    value = entry.get(name)
    if type(value) is not int or not least <= value < 2**63:
        problem = "has no" if name not in entry else f"has {value!r:.50} as"
        rule = "a whole number" if least < 0 else f"a whole number of at least {least}"
        raise UserError(f"{path}: {what} {problem} {name!r}; it must be {rule}")
    return value


def _read_categories(entries: list[Any], path: Path) -> dict[int, str]:
    """Return names by id."""
    names: dict[int, str] = {}
    for index in range(len(entries)):
        entry = _entry(entries, index, "category", path)
        category_id = _whole_number(entry, "id", f"category number {index}", path)
        if category_id in names:
            raise UserError(f"{path}: category id {category_id} is used twice; ids must be unique")
        names[category_id] = str(entry.get("name", category_id))
    if not names:
        raise UserError(f"{path} lists no categories; at least one is needed")
    return names


def _read_images(entries: list[Any], path: Path) -> list[dict[str, Any]]:
    """Return the checked entries, ascending by id."""
    images: dict[int, dict[str, Any]] = {}
    for index in range(len(entries)):
        entry = _entry(entries, index, "image", path)
        image_id = _whole_number(entry, "id", f"image number {index}", path)
        if image_id in images:
            raise UserError(f"{path}: image id {image_id} is used twice; ids must be unique")
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            raise UserError(f"{path}: image {image_id} has no 'file_name'; it must name a file in the image folder")
        for side in ("width", "height"):
            _whole_number(entry, side, f"image {image_id} ({file_name})", path, least=1)
        images[image_id] = entry
    if not images:
        raise UserError(f"{path} lists no images; at least one is needed")
    return [images[image_id] for image_id in sorted(images)]


@dataclass(frozen=True, slots=True, eq=False)
class _BoxTable:
    """The boxes of a file in its order; image_rows are indices of images."""

    image_rows: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> _BoxTable:
        return _BoxTable(*(getattr(self, name)[keep] for name in self.__slots__))


def _read_boxes(entries: list[Any], row_of: dict[int, int], label_of: dict[int, int], path: Path) -> _BoxTable:
    image_rows, labels = np.empty((2, len(entries)), dtype=np.int64)
    boxes_xywh = np.empty((len(entries), 4))
    areas = np.empty(len(entries))
    iscrowd = np.empty(len(entries), dtype=bool)
    annotation_ids = np.empty(len(entries), dtype=np.int64)
    seen: set[int] = set()
    for index in range(len(entries)):
        entry = _entry(entries, index, "annotation", path)
        annotation_id = _whole_number(entry, "id", f"annotation number {index}", path)
        what = f"annotation {annotation_id}"
        if annotation_id in seen:
            raise UserError(f"{path}: annotation id {annotation_id} is used twice; ids must be unique")
        seen.add(annotation_id)
        image_id = _whole_number(entry, "image_id", what, path)
        if image_id not in row_of:
            raise UserError(f"{path}: {what} is of image {image_id}, which is not in the list of images")
        category_id = _whole_number(entry, "category_id", what, path)
        if category_id not in label_of:
            raise UserError(f"{path}: {what} has category {category_id}, which is not in the list of categories")
        bbox = entry.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
            raise UserError(f"{path}: {what} has the bbox {bbox!r:.80}; it must be [x, y, width, height] in pixels")
        area = bbox[2] * bbox[3] if entry.get("area") is None else entry["area"]
        if not _is_number(area):
            raise UserError(f"{path}: {what} has the area {area!r:.50}; it must be a number of square pixels")
        if entry.get("iscrowd", 0) not in (0, 1):
            raise UserError(f"{path}: {what} has {entry['iscrowd']!r:.50} as 'iscrowd'; it must be 0 or 1")
        annotation_ids[index] = annotation_id
        image_rows[index] = row_of[image_id]
        labels[index] = label_of[category_id]
        boxes_xywh[index] = bbox
        areas[index] = area
        iscrowd[index] = bool(entry.get("iscrowd", 0))
    return _BoxTable(image_rows, boxes_xywh, labels, areas, iscrowd, annotation_ids)


def _is_number(value: Any) -> bool:
    """Say whether a JSON value is a number that fits a float; NaN and Infinity, which Python reads, are."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


def _repair_boxes(
    table: _BoxTable, widths: NDArray[np.int64], heights: NDArray[np.int64]
) -> tuple[_BoxTable, dict[str, int], int, tuple[str, ...]]:
    """Drop and clip by the rule of `read_annotations`; return what is left, and what was done, in words as well."""
    sizes = np.stack([widths, heights], axis=1)[table.image_rows].astype(np.float64)  # (M, 2)
    corners, sides = table.boxes_xywh[:, :2], table.boxes_xywh[:, 2:]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        far_corners = corners + sides
        is_finite = np.isfinite(far_corners).all(axis=1) & np.isfinite(table.areas)
        is_flat = is_finite & (sides <= 0).any(axis=1)
        reach = np.maximum(-corners, far_corners - sizes).max(axis=1)
        sticks_out = is_finite & ~is_flat & (reach > EDGE_TOLERANCE_PIXELS)
        inner_corners = np.clip(corners, 0, sizes)
        inner_sides = np.clip(far_corners, 0, sizes) - inner_corners
        too_little = (inner_sides <= 0) | ((inner_sides < 1) & (sides >= 1))
        share_left = inner_sides.prod(axis=1) / sides.prod(axis=1)
    is_outside = sticks_out & too_little.any(axis=1)
    is_clipped = sticks_out & ~is_outside

    boxes_xywh, areas = table.boxes_xywh.copy(), table.areas.copy()
    boxes_xywh[is_clipped] = np.concatenate([inner_corners, inner_sides], axis=1)[is_clipped]
    areas[is_clipped] *= share_left[is_clipped]

    reasons = {
        "not finite": ~is_finite,
        "zero or negative size": is_flat,
        "outside the image": is_outside,
    }
    masks = {f"dropped: {reason}": mask for reason, mask in reasons.items()} | {"clipped": is_clipped}
    changes = tuple(
        f"boxes {change}: {np.count_nonzero(mask)} (first: annotation {table.annotation_ids[np.argmax(mask)]})"
        for change, mask in masks.items()
        if mask.any()
    )
    repaired = _BoxTable(table.image_rows, boxes_xywh, table.labels, areas, table.iscrowd, table.annotation_ids).where(
        is_finite & ~is_flat & ~is_outside
    )
    dropped = {reason: int(np.count_nonzero(mask)) for reason, mask in reasons.items() if mask.any()}
    return repaired, dropped, int(np.count_nonzero(is_clipped)), changes
