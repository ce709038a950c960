"""Gives val the category ids of train, where both files have the same names under different ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.splits.subsets import check_same_categories


def match_categories(train: Annotations, val: Annotations) -> Annotations:
    """Return val with the category ids and class channels of train; val itself if they are the same.

    Raises UserError unless both files list the same names, or the same names under the same ids.
    """
    ours = dict(zip(train.category_ids.tolist(), train.category_names, strict=True))
    theirs = dict(zip(val.category_ids.tolist(), val.category_names, strict=True))
    if ours == theirs:
        return val
    has_same_names = sorted(ours.values()) == sorted(theirs.values()) and len(set(ours.values())) == len(ours)
    if not has_same_names:
        check_same_categories(train, val)
    row_of = {name: row for row, name in enumerate(train.category_names)}
    channel_of = np.array([0, *(row_of[name] + 1 for name in val.category_names)])
    moved = [name for category_id, name in theirs.items() if ours.get(category_id) != name]
    finding = Finding(
        "categories with another id than in train, matched by name", len(moved), len(ours), repr(moved[0])
    )
    return replace(
        val,
        category_ids=train.category_ids,
        category_names=train.category_names,
        labels=channel_of[val.labels],
        findings=(*val.findings, finding),
    )
