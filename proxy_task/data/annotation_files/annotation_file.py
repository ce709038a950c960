"""Reads COCO annotation files: checks every entry, and returns `Annotations`.

An image is opened only where the file does not say its size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotation_files.annotation_json import entries_of, load_json, whole_number
from spinenas.proxy_task.data.annotation_files.box_entries import apply_outlines, read_boxes
from spinenas.proxy_task.data.annotation_files.box_repair import BoxTable, repair_boxes
from spinenas.proxy_task.data.annotation_files.file_names import find_files
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding, log_findings
from spinenas.proxy_task.data.images.image_file import ExifRule
from spinenas.proxy_task.data.images.image_sizes import Sizes, header_sizes
from spinenas.space.errors import UserError


def read_annotations(path: Path, images_folder: Path, *, exif: ExifRule = "auto") -> Annotations:
    """Read and check an annotation file, and log its findings.

    Sizes that the file lacks are read from the images, by the rule `exif`. Any other departure from COCO's format is a
    UserError. Outlines are skipped unread unless they are needed.
    """
    annotations = complete(parse_annotations(path, images_folder), path, header_sizes, exif)
    log_findings(annotations.findings, path)
    return annotations


def parse_annotations(path: Path, images_folder: Path, *, sha256: str | None = None) -> Annotations:
    """Read and check an annotation file without opening an image.

    Where a width or height is missing, both are 0 and no box is repaired; `complete` does that.

    Args:
        path: the file; it may be compressed by gzip.
        images_folder: folder of its images.
        sha256: refuse a file with another hash.
    """
    data = load_json(path, sha256)
    for name in ("images", "annotations", "categories"):
        if not isinstance(data.get(name), list):
            remedy = "export the set as COCO detection"
            if name == "categories" and isinstance(data.get("annotations"), list):
                remedy = """add it, with an entry such as {"id": 1, "name": "bolt"} for each category_id"""
            raise UserError(f"{path} is not a COCO annotation file: it has no list {name!r}; {remedy}")

    category_names = _read_categories(data["categories"], path)
    category_ids = sorted(category_names)
    label_of = {category_id: index + 1 for index, category_id in enumerate(category_ids)}

    images = _read_images(data["images"], path)
    image_ids = np.array([image["id"] for image in images], dtype=np.int64)
    widths = np.array([image["width"] for image in images], dtype=np.int64)
    heights = np.array([image["height"] for image in images], dtype=np.int64)

    row_of = {image_id: row for row, image_id in enumerate(image_ids.tolist())}
    table, with_outline = read_boxes(data["annotations"], row_of, label_of, path)
    findings: tuple[Finding, ...] = ()
    if with_outline:
        # The file is read again, because keeping all outlines of a plain COCO file would take gigabytes.
        data = load_json(path, sha256, with_outlines=True)
        table, findings = apply_outlines(table, with_outline, data["annotations"], widths, heights, path)
    annotations = Annotations(
        images_folder=images_folder,
        image_ids=image_ids,
        file_names=tuple(image["file_name"] for image in images),
        groups=tuple(image["group"] for image in images),
        widths=widths,
        heights=heights,
        category_ids=np.array(category_ids, dtype=np.int64),
        category_names=tuple(category_names[category_id] for category_id in category_ids),
        findings=findings,
        **_by_image(table, len(images)),
    )
    return annotations if (widths == 0).any() else _repaired(annotations, table, path)


def complete(
    annotations: Annotations,
    path: Path,
    read_sizes: Callable[[Annotations, NDArray[np.int64], ExifRule], Sizes],
    exif: ExifRule,
) -> Annotations:
    """Return what `parse_annotations` returned with the image files found and every size known.

    Args:
        annotations: read from the file at `path`.
        path: for messages.
        read_sizes: returns the sizes of images; see `header_sizes`.
        exif: what the size of an image with an EXIF orientation is.
    """
    annotations = find_files(annotations)
    missing = np.flatnonzero(annotations.widths == 0)
    if not len(missing):
        return annotations
    widths, heights = annotations.widths.copy(), annotations.heights.copy()
    try:
        widths[missing], heights[missing] = read_sizes(annotations, missing, exif).T
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    finding = Finding(
        "images without width and height, read from the image files",
        len(missing),
        len(widths),
        annotations.file_names[int(missing[0])],
    )
    annotations = replace(annotations, widths=widths, heights=heights, findings=(finding, *annotations.findings))
    names = ("boxes_xywh", "labels", "areas", "iscrowd", "annotation_ids")
    table = BoxTable(image_rows=annotations.image_of_box, **{name: getattr(annotations, name) for name in names})
    return _repaired(annotations, table, path)


def _by_image(table: BoxTable, num_images: int) -> dict[str, Any]:
    """Return the arrays of the boxes, sorted by image."""
    order = np.argsort(table.image_rows, kind="stable")
    names = ("boxes_xywh", "labels", "areas", "iscrowd", "annotation_ids")
    offsets = np.searchsorted(table.image_rows[order], np.arange(num_images + 1)).astype(np.int64)
    return {"box_offsets": offsets} | {name: getattr(table, name)[order] for name in names}


def _repaired(annotations: Annotations, table: BoxTable, path: Path) -> Annotations:
    """Return the annotations with the boxes of the table, repaired. Raises UserError if no object is left."""
    num_boxes = len(table.labels)
    table, findings = repair_boxes(table, annotations.widths, annotations.heights, path)
    if not np.any(~table.iscrowd):
        if len(table.iscrowd):
            raise UserError(
                f"{path} has no boxes of objects: all {len(table.iscrowd)} are crowds, which are not learnt; "
                "write iscrowd 0 for the box of a single object"
            )
        why = f"{num_boxes} were dropped" if num_boxes else "its list of annotations is empty"
        raise UserError(f"{path} has no boxes of objects ({why}); at least one is needed")
    findings = (*annotations.findings, *findings)
    return replace(annotations, findings=findings, **_by_image(table, len(annotations.image_ids)))


def _read_categories(entries: list[Any], path: Path) -> dict[int, str]:
    """Return names by id."""
    names = {entry_id: str(entry.get("name", entry_id)) for entry_id, entry in entries_of(entries, "category", path)}
    if not names:
        raise UserError(f"{path} lists no categories; at least one is needed")
    return names


def _read_images(entries: list[Any], path: Path) -> list[dict[str, Any]]:
    """Return id, file_name, width, height and group of each image, ascending by id."""
    images: dict[int, dict[str, Any]] = {}
    for image_id, entry in entries_of(entries, "image", path):
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name:
            raise UserError(f"{path}: image {image_id} has no 'file_name'; it must name a file in the image folder")
        _check_name(file_name, image_id, path)
        width = height = 0
        if entry.get("width") is not None and entry.get("height") is not None:
            what = f"image {image_id} ({file_name})"
            width, height = (whole_number(entry, side, what, path, least=1) for side in ("width", "height"))
        group = entry.get("group")
        group = f"image {image_id}" if group is None else str(group)
        images[image_id] = {"id": image_id, "file_name": file_name, "width": width, "height": height, "group": group}
    if not images:
        raise UserError(f"{path} lists no images; at least one is needed")
    return [images[image_id] for image_id in sorted(images)]


def _check_name(file_name: str, image_id: int, path: Path) -> None:
    """Raise UserError if no file can have this name."""
    try:
        is_possible = "\0" not in file_name and bool(file_name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise UserError(
            f"{path}: image {image_id} has {file_name!r:.80} as 'file_name', with a character that no file name can "
            "have; write the name of its file"
        )
