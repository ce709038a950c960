"""Merges image entries that name one file, so that each file is one image with all its boxes.

Some tools write an entry for each box, or list a file again when it is annotated again. Each entry would count as an
image of its own, and the file could be trained on and held out at once.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.splits.grouping import first_rows, joined_groups
from spinenas.space.errors import UserError

SAME_BOX_IOU = 0.9
"""Two boxes of one category with a larger overlap are probably one object, annotated twice."""

MERGED = "image entries of a file that another entry names, merged into one image"


def merge_entries(annotations: Annotations) -> Annotations:
    """Return the same images with one entry for each file; the annotations themselves if each file has one.

    The entry with the lowest id stays. A box that another entry of the file repeats exactly is dropped. What was merged
    and dropped is added to the findings. Raises UserError if two entries of a file differ in size.
    """
    names = [posixpath.normpath(name) for name in annotations.file_names]
    kept_row = first_rows(names)  # of each entry
    is_kept = kept_row == np.arange(len(names))
    if is_kept.all():
        return annotations
    _check_sizes(annotations, kept_row)

    entry = annotations.image_of_box
    order = np.argsort(kept_row[entry], kind="stable")
    entry, rows = entry[order], kept_row[entry][order]
    is_double = _repeats_another_entry(annotations, order, entry, rows)
    boxes, rows = order[~is_double], rows[~is_double]
    merged = replace(
        annotations,
        image_ids=annotations.image_ids[is_kept],
        file_names=_kept(annotations.file_names, is_kept),
        names_in_file=None if annotations.names_in_file is None else _kept(annotations.names_in_file, is_kept),
        groups=_kept(joined_groups(annotations.groups, kept_row), is_kept),
        widths=annotations.widths[is_kept],
        heights=annotations.heights[is_kept],
        box_offsets=np.append(np.searchsorted(rows, np.flatnonzero(is_kept)), len(rows)).astype(np.int64),
        boxes_xywh=annotations.boxes_xywh[boxes],
        labels=annotations.labels[boxes],
        areas=annotations.areas[boxes],
        iscrowd=annotations.iscrowd[boxes],
        annotation_ids=annotations.annotation_ids[boxes],
    )
    first = int(np.argmin(is_kept))
    found = [
        Finding(
            MERGED,
            int(np.count_nonzero(~is_kept)),
            len(names),
            f"image {annotations.image_ids[first]}, {annotations.file_names[first]}",
        )
    ]
    if is_double.any():
        double = annotations.annotation_ids[order[np.argmax(is_double)]]
        found.append(
            Finding(
                "boxes dropped, exact repetitions of a box in another entry of their file",
                int(np.count_nonzero(is_double)),
                len(order),
                f"annotation {double}",
            )
        )
    similar = _similar_boxes(merged, entry[~is_double])
    if similar.any():
        found.append(
            Finding(
                "boxes that nearly repeat a box in another entry of their file",
                int(np.count_nonzero(similar)),
                len(similar),
                f"annotation {merged.annotation_ids[np.argmax(similar)]}",
                "each counts as an object, so delete one of the two annotations",
            )
        )
    return replace(merged, findings=(*annotations.findings, *found))


def _kept(names: Sequence[str], is_kept: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(names[row] for row in np.flatnonzero(is_kept).tolist())


def _check_sizes(annotations: Annotations, kept_row: NDArray[np.int64]) -> None:
    """Raise UserError if two entries of a file have different widths or heights."""
    sizes = np.stack([annotations.widths, annotations.heights], axis=1)
    differs = (sizes != sizes[kept_row]).any(axis=1)
    if differs.any():
        row = int(np.argmax(differs))
        first = int(kept_row[row])
        said = [f"image {annotations.image_ids[i]} says {sizes[i, 0]} x {sizes[i, 1]} px" for i in (first, row)]
        raise UserError(
            f"two entries name the file {annotations.file_names[row]} and differ in its size: {' and '.join(said)}; "
            "correct the wrong one"
        )


def _repeats_another_entry(
    annotations: Annotations, order: NDArray[np.int64], entry: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether each box, in this order, equals an earlier one in another entry of its file.

    Args:
        order: boxes by the row of their merged image.
        entry, rows: image entry and merged row of each box, in this order.
    """
    fields = [rows, annotations.labels[order], annotations.iscrowd[order], *annotations.boxes_xywh[order].T]
    keys = np.stack([np.asarray(field, dtype=np.float64) for field in fields], axis=1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    is_repeated: NDArray[np.bool_] = entry != entry[first[inverse.reshape(-1)]]
    return is_repeated


def _similar_boxes(merged: Annotations, entry: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each box overlaps a box of its category, in an earlier entry of its file, almost fully."""
    found = np.zeros(len(entry), dtype=bool)
    starts = merged.box_offsets[:-1]
    several = [row for row, end in enumerate(merged.box_offsets[1:]) if len(set(entry[starts[row] : end].tolist())) > 1]
    for row in several:
        span = slice(merged.box_offsets[row], merged.box_offsets[row + 1])
        corner, side = merged.boxes_xywh[span, :2], merged.boxes_xywh[span, 2:]
        far = corner + side
        overlap = np.clip(np.minimum(far[:, None], far) - np.maximum(corner[:, None], corner), 0, None).prod(axis=2)
        size = side.prod(axis=1)
        iou = overlap / np.maximum(size[:, None] + size - overlap, np.finfo(float).tiny)
        is_same = (merged.labels[span][:, None] == merged.labels[span]) & ~merged.iscrowd[span]
        found[span] = (is_same & (iou > SAME_BOX_IOU) & (entry[span][:, None] > entry[span])).any(axis=1)
    return found
