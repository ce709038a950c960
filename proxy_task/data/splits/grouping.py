"""Groups images that show one picture or scene, which `hold_out` never separates.

Images are in one group if the annotation file says so, if their files have the same bytes, if their names say that a
tool derived them from one picture, or if a configured pattern finds the same text in their names.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.splits.identical_files import image_paths, same_bytes
from spinenas.space.errors import UserError

ROBOFLOW_NAME = re.compile(r"(.+)\.rf\.[0-9A-Za-z]{8,}\.\w+$")
"""Roboflow's name of an exported image. Its augmented versions of a picture differ only in the text after ".rf."."""


def group_images(annotations: Annotations, pattern: str | None, root: Path) -> Annotations:
    """Return the same images, with images of one picture in one group; what was joined is added to the findings.

    The annotations themselves are returned if there is nothing to join, so that their fingerprint stays the same.

    Args:
        pattern: `DataConfig.group_pattern`.
        root: cache folder, for the comparison of files.

    Raises UserError if the pattern matches no file name.
    """
    names = annotations.file_names
    num_images = len(names)
    joins: list[NDArray[np.int64]] = []
    found: list[Finding] = []

    def join(first: NDArray[np.int64], what: str) -> None:
        is_copy = first != np.arange(num_images)
        if is_copy.any():
            joins.append(first)
            row = int(np.argmax(is_copy))
            found.append(
                Finding(
                    f"{what}, never separated by the hold-out",
                    int(np.count_nonzero(is_copy)),
                    num_images,
                    f"{names[row]}, like {names[first[row]]}",
                )
            )

    join(same_bytes(image_paths(annotations), root), "images with the same bytes as an earlier one")
    join(first_rows([source_name(name) for name in names]), "images that Roboflow derived from the picture of another")
    if pattern is not None:
        texts = matched_texts(pattern, names)
        joins.append(first_rows(texts))
        unmatched = [row for row, text in enumerate(texts) if text is None]
        if unmatched:
            found.append(
                Finding(
                    "images whose name task.data.group_pattern does not match, each a group of its own",
                    len(unmatched),
                    num_images,
                    names[unmatched[0]],
                )
            )
    groups = joined_groups(annotations.groups, *joins)
    if groups is annotations.groups and not found:
        return annotations
    return replace(annotations, groups=groups, findings=(*annotations.findings, *found))


def source_name(file_name: str) -> str | None:
    """Return the name that all versions of a picture exported by Roboflow share; None for any other name."""
    match = ROBOFLOW_NAME.match(file_name)
    return None if match is None else match[1]


def matched_texts(pattern: str, names: Sequence[str]) -> list[str | None]:
    """Return what a pattern finds in each name: its first group, else the whole match; None without a match.

    Raises UserError if it finds nothing in any name.
    """
    compiled = re.compile(pattern)
    matches = map(compiled.search, names)
    texts = [match and (match[1] if compiled.groups and match[1] is not None else match[0]) for match in matches]
    if not any(text is not None for text in texts):
        raise UserError(
            f"task.data.group_pattern is {pattern!r}, which matches none of the {len(names)} file names, such as "
            f"{names[0]!r}; correct the pattern or leave it out"
        )
    return texts


def first_rows(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return for each row the first row with the same key; for None the row itself."""
    first: dict[Hashable, int] = {}
    rows = (row if key is None else first.setdefault(key, row) for row, key in enumerate(keys))
    return np.fromiter(rows, dtype=np.int64, count=len(keys))


def joined_groups(groups: Sequence[str], *joins: NDArray[np.int64]) -> Sequence[str]:
    """Join groups, and return the name of each row's group: that of its first row. Return `groups` if nothing joins.

    Args:
        groups: N names.
        joins: arrays (N,) that name for each row another one that belongs to the same group.
    """
    by_name = first_rows(groups)
    root = by_name.tolist()  # of each row; a smaller row, or itself

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for first in joins:
        for row, other in enumerate(first.tolist()):
            low, high = sorted((find(row), find(other)))
            root[high] = low
    found = [find(row) for row in range(len(groups))]
    return groups if found == by_name.tolist() else tuple(groups[row] for row in found)
