"""Reads COCO annotation files: checks every entry, and returns `Annotations`. No image is opened."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.box_repair import BoxTable, repair_boxes
from spinenas.proxy_task.data.findings import log_findings
from spinenas.space.errors import UserError


def read_annotations(path: Path, images_folder: Path) -> Annotations:
    """Read and check an annotation file, and log which boxes were repaired (see `box_repair`).

    Any other departure from COCO's format is a UserError. Outlines are skipped unread.
    """
    annotations = parse_annotations(path, images_folder)
    log_findings(annotations.findings, path)
    return annotations


def parse_annotations(path: Path, images_folder: Path, *, sha256: str | None = None) -> Annotations:
    """Do what `read_annotations` does without logging; refuse a file whose SHA-256 is not the one given."""
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
    table, findings = repair_boxes(table, widths, heights)
    if not np.any(~table.iscrowd):
        dropped = len(data["annotations"]) - len(table.labels)
        raise UserError(f"{path} has no boxes of objects ({dropped} were dropped); at least one is needed")

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
        findings=findings,
    )


OUTLINE_PATTERN = re.compile(rb'"(?:segmentation|counts|keypoints)"\s*:\s*\[[][\d\s.,eE+-]*\]')
"""Matches outlines, most of a COCO file: gigabytes as Python lists, and unused here.

It matches nothing inside a JSON string, where quotes are escaped."""


def _load_json(path: Path, sha256: str | None) -> dict[str, Any]:
    text = _without_outlines(path, sha256)
    try:
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:  # NaN or Infinity, perhaps: some tools write them, and Python reads them
            data = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); give a COCO annotation file") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a COCO annotation file: it holds a {type(data).__name__}, not an object")
    return data


def _without_outlines(path: Path, sha256: str | None) -> bytes:
    """Return the text of a file with null in place of every outline."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if sha256 is not None and hashlib.sha256(text).hexdigest() != sha256:
        raise UserError(f"{path} was changed while it was read; start again when the file is complete")
    return OUTLINE_PATTERN.sub(
        rb'"outline":null', text.removeprefix(b"\xef\xbb\xbf")
    )  # some tools write a byte order mark


def _entries(entries: list[Any], what: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the id and the fields of each entry of a list; ids are unique."""
    seen: set[int] = set()
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {what} number {index} is a {type(entry).__name__}; it must be an object")
        entry_id = _whole_number(entry, "id", f"{what} number {index}", path)
        if entry_id in seen:
            raise UserError(f"{path}: {what} id {entry_id} is used twice; ids must be unique")
        seen.add(entry_id)
        yield entry_id, entry


def _whole_number(entry: dict[str, Any], name: str, what: str, path: Path, *, least: int = -(2**63)) -> int:
    value = entry.get(name)
    if type(value) is not int or not least <= value < 2**63:
        problem = "has no" if name not in entry else f"has {value!r:.50} as"
        rule = "a whole number" if least < 0 else f"a whole number of at least {least}"
        raise UserError(f"{path}: {what} {problem} {name!r}; it must be {rule}")
    return value


def _read_categories(entries: list[Any], path: Path) -> dict[int, str]:
    """Return names by id."""
    names = {entry_id: str(entry.get("name", entry_id)) for entry_id, entry in _entries(entries, "category", path)}
    if not names:
        raise UserError(f"{path} lists no categories; at least one is needed")
    return names


def _read_images(entries: list[Any], path: Path) -> list[dict[str, Any]]:
    """Return the checked entries, ascending by id."""
    images: dict[int, dict[str, Any]] = {}
    for image_id, entry in _entries(entries, "image", path):
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            raise UserError(f"{path}: image {image_id} has no 'file_name'; it must name a file in the image folder")
        for side in ("width", "height"):
            _whole_number(entry, side, f"image {image_id} ({file_name})", path, least=1)
        images[image_id] = entry
    if not images:
        raise UserError(f"{path} lists no images; at least one is needed")
    return [images[image_id] for image_id in sorted(images)]


def _read_boxes(entries: list[Any], row_of: dict[int, int], label_of: dict[int, int], path: Path) -> BoxTable:
    image_rows, labels = np.empty((2, len(entries)), dtype=np.int64)
    boxes_xywh = np.empty((len(entries), 4))
    areas = np.empty(len(entries))
    iscrowd = np.empty(len(entries), dtype=bool)
    annotation_ids = np.empty(len(entries), dtype=np.int64)
    for index, (annotation_id, entry) in enumerate(_entries(entries, "annotation", path)):
        what = f"annotation {annotation_id}"
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
    return BoxTable(image_rows, boxes_xywh, labels, areas, iscrowd, annotation_ids)


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that fits a float. NaN and Infinity, which Python reads, are numbers."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
