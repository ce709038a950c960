"""Counts what is in a data set, and gathers what was found in it, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from spinenas.proxy_task.data.annotation_files.layout import Split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.task_data import VAL_UNUSABLE, val_unusable
from spinenas.space.errors import UserError


@dataclass(frozen=True, slots=True)
class Count:
    """How many of one kind a split has.

    Attributes:
        what: the kind, such as "images", or the name of a category.
        split: train or val.
        count: how many.
        total: of how many; 0 if there is no such number.
        is_category: whether objects of a category are counted.
    """

    what: str
    split: Split
    count: int
    total: int = 0
    is_category: bool = False

    def row(self) -> dict[str, Any]:
        """Return the count as a row of the same fields as a finding."""
        what = f"objects of {self.what!r}" if self.is_category else self.what
        return _row(Finding(f"{self.split}: {what}", self.count, self.total), is_finding=False)


@dataclass(frozen=True, slots=True)
class DataCheck:
    """What is in a data set.

    Attributes:
        counts: of both splits.
        findings: what its owner should know.
        problems: sentences about what a search, or a figure on val, would be refused for.
        has_val: whether there is a val that can be used.
    """

    counts: tuple[Count, ...]
    findings: tuple[Finding, ...]
    problems: tuple[str, ...]
    has_val: bool

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """Counts, then findings; each with the fields of `Finding` and whether it is a finding."""
        findings = (_row(finding, is_finding=True) for finding in self.findings)
        return (*(count.row() for count in self.counts), *findings)

    def table(self, *, of_categories: bool) -> list[dict[str, Any]]:
        """Return counts with a column for each split: of the categories, or of everything else."""
        title = "objects of" if of_categories else "what"
        rows: dict[str, dict[str, Any]] = {}
        for count in self.counts:
            if count.is_category == of_categories:
                row = rows.setdefault(count.what, {title: count.what, "train": None, "val": None})
                row[count.split] = (row[count.split] or 0) + count.count  # two categories may share a name
        return list(rows.values())


def check_data(task: ProxyTask) -> DataCheck:
    """Read train, and val if there is one, and decode all images at the size of the task. Trains nothing.

    Raises UserError if train cannot be used at all.
    """
    counts = list(_counts("train", task.data.train))
    num_images = len(task.data.train.image_ids)
    counts.append(Count("images to train on", "train", len(task.data.train_rows), num_images))
    counts.append(Count("reward images, held out", "train", len(task.data.reward_rows), num_images))
    problems = []
    try:
        task.check_batch()
    except UserError as error:
        problems.append(str(error))
    has_val = task.data.has_val
    if has_val:
        try:
            counts += _counts("val", task.data.val)
        except UserError as error:
            problems.append(val_unusable(error).sentence)
            has_val = False
    # A val that cannot be used is among the problems.
    findings = [finding for finding in task.data.findings(with_val=has_val) if finding.what != VAL_UNUSABLE]
    return DataCheck(tuple(counts), tuple(findings), tuple(problems), has_val)


def _counts(split: Split, annotations: Annotations) -> Iterator[Count]:
    """Yield a count of images, boxes, sizes and each category of a split."""
    num_images, num_boxes = len(annotations.image_ids), len(annotations.labels)
    has_object = np.bincount(annotations.image_of_box[~annotations.iscrowd], minlength=num_images) > 0
    yield Count("images", split, num_images)
    yield Count("images without objects", split, int(np.count_nonzero(~has_object)), num_images)
    num_groups = len(set(annotations.groups))
    if num_groups < num_images:
        yield Count("groups of images that are never separated", split, num_groups)
    yield Count("boxes", split, num_boxes)
    if annotations.iscrowd.any():
        yield Count("boxes of crowds", split, int(annotations.iscrowd.sum()), num_boxes)
    objects = annotations.labels[~annotations.iscrowd]
    for channel, name in enumerate(annotations.category_names, start=1):
        yield Count(name, split, int(np.count_nonzero(objects == channel)), len(objects), is_category=True)


def _row(finding: Finding, *, is_finding: bool) -> dict[str, Any]:
    return {
        "what": finding.what,
        "count": finding.count,
        "of": finding.total or None,
        "first": finding.first or None,
        "advice": finding.advice or None,
        "finding": is_finding,
    }
