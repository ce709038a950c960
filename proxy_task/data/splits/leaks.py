"""Finds pictures that are on both sides of a split: in train and in the reward images, or in train and in val."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.splits.grouping import matched_texts, source_name
from spinenas.proxy_task.data.splits.identical_files import image_paths, same_bytes
from spinenas.proxy_task.data.splits.near_identical import HashedImages, near_identical
from spinenas.space.errors import UserError

REWARD_ADVICE = (
    "the reward AP of such an image says little about new images; give both one group, by task.data.group_pattern or "
    "by `group` in the annotation file"
)
VAL_ADVICE = "figures on val say little about new images; give val other pictures"


def reward_leaks(train: HashedImages, reward_rows: NDArray[np.int64], train_rows: NDArray[np.int64]) -> list[Finding]:
    """Return what is known of reward images that look like an image that trials train on."""
    pairs = near_identical(train, reward_rows, train, train_rows)
    names = train.images.annotations.file_names
    what = "reward images that look like an image trained on"
    return _finding(what, pairs, names, names, len(reward_rows), REWARD_ADVICE)


def val_leaks(
    train: Annotations,
    val: Annotations,
    pattern: str | None,
    root: Path,
    hashed: tuple[HashedImages, HashedImages] | None,
) -> list[Finding]:
    """Return what is known of pictures in val that are in train too. Each is counted once, by the first reason.

    Args:
        pattern: `DataConfig.group_pattern`.
        root: cache folder.
        hashed: train and val, to compare what their images look like; None to compare names and bytes alone.
    """
    train_paths, val_paths = image_paths(train), image_paths(val)
    first = same_bytes([*train_paths, *val_paths], root)
    of_train, of_val = first[: len(train_paths)].tolist(), first[len(train_paths) :].tolist()
    reasons: dict[str, tuple[Sequence[Hashable], Sequence[Hashable]]] = {
        "val images whose file train lists too": (train_paths, val_paths),
        "val images with the same bytes as a train image": (of_train, of_val),
        "val images that Roboflow derived from the picture of a train image": (
            [source_name(name) for name in train.file_names],
            [source_name(name) for name in val.file_names],
        ),
    }
    if pattern is not None:
        texts = matched_texts(pattern, train.file_names), _texts_or_none(pattern, val.file_names)
        reasons["val images in a group of task.data.group_pattern that train has too"] = texts
    found: list[Finding] = []
    left = set(range(len(val_paths)))
    for what, (train_keys, val_keys) in reasons.items():
        row_of = {key: row for row, key in reversed(list(enumerate(train_keys))) if key is not None}
        pairs = [(row, row_of[val_keys[row]]) for row in sorted(left) if val_keys[row] in row_of]
        found += _finding(what, pairs, val.file_names, train.file_names, len(val_paths), VAL_ADVICE)
        left -= {row for row, _ in pairs}
    if hashed is not None and left:
        pairs = near_identical(hashed[1], np.array(sorted(left)), hashed[0], np.arange(len(train_paths)))
        what = "val images that look like a train image"
        found += _finding(what, pairs, val.file_names, train.file_names, len(val_paths), VAL_ADVICE)
    return found


def _texts_or_none(pattern: str, names: Sequence[str]) -> Sequence[str | None]:
    try:
        return matched_texts(pattern, names)
    except UserError:  # val may be named otherwise
        return [None] * len(names)


def _finding(
    what: str,
    pairs: Sequence[tuple[int, int]],
    names: Sequence[str],
    other_names: Sequence[str],
    total: int,
    advice: str,
) -> list[Finding]:
    """Return a finding about pairs of rows; none without a pair."""
    if not pairs:
        return []
    row, other = pairs[0]
    name, like = names[row], other_names[other]
    return [Finding(what, len(pairs), total, name if name == like else f"{name}, like {like}", advice)]
