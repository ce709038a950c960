"""Counts what is in a data set, and gathers what was found in it, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.task import ProxyTask
from spinenas.space.errors import UserError


@dataclass(frozen=True, slots=True)
class DataCheck:
    """What is in a data set.

    Attributes:
        rows: counts first, then findings; each with the fields of `Finding` and whether it is a finding.
        problems: sentences about what a search, or a figure on val, would be refused for.
    """

    rows: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]


def check_data(task: ProxyTask) -> DataCheck:
    """Read train, and val if there is one, and decode all images at the size of the task. Trains nothing.

    Raises UserError if train cannot be used at all.
    """
    rows = list(_counts("train", task.data.train))
    rows.append(_count("train: images to train on", len(task.data.train_rows), len(task.data.train.image_ids)))
    rows.append(_count("train: reward images, held out", len(task.data.reward_rows), len(task.data.train.image_ids)))
    problems = []
    try:
        task.check_batch()
    except UserError as error:
        problems.append(str(error))
    has_val = task.data.has_val
    if has_val:
        try:
            rows += _counts("val", task.data.val)
        except UserError as error:
            problems.append(f"val cannot be used: {error}")
            has_val = False
    findings = task.data.findings(with_val=has_val)
    return DataCheck((*rows, *(_row(finding, is_finding=True) for finding in findings)), tuple(problems))


def _counts(split: str, annotations: Annotations) -> Iterator[dict[str, Any]]:
    """Yield a row for images, boxes, sizes and each category of a split."""
    num_images, num_boxes = len(annotations.image_ids), len(annotations.labels)
    has_object = np.bincount(annotations.image_of_box[~annotations.iscrowd], minlength=num_images) > 0
    yield _count(f"{split}: images", num_images)
    yield _count(f"{split}: images without objects", int(np.count_nonzero(~has_object)), num_images)
    num_groups = len(set(annotations.groups))
    if num_groups < num_images:
        yield _count(f"{split}: groups of images that are never separated", num_groups)
    yield _count(f"{split}: boxes", num_boxes)
    if annotations.iscrowd.any():
        yield _count(f"{split}: boxes of crowds", int(annotations.iscrowd.sum()), num_boxes)
    objects = annotations.labels[~annotations.iscrowd]
    for channel, name in enumerate(annotations.category_names, start=1):
        yield _count(f"{split}: objects of {name!r}", int(np.count_nonzero(objects == channel)), len(objects))


def _count(what: str, count: int, total: int = 0) -> dict[str, Any]:
    return _row(Finding(what, count, total), is_finding=False)


def _row(finding: Finding, *, is_finding: bool) -> dict[str, Any]:
    return {
        "what": finding.what,
        "count": finding.count,
        "of": finding.total or None,
        "first": finding.first or None,
        "advice": finding.advice or None,
        "finding": is_finding,
    }
