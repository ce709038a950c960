"""Selects images of an annotation file: those held out as reward images, and those to train on."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.space.errors import UserError


def check_same_categories(train: Annotations, val: Annotations) -> None:
    """Raise UserError unless both files list the same categories under the same ids."""
    train_names = dict(zip(train.category_ids.tolist(), train.category_names, strict=True))
    val_names = dict(zip(val.category_ids.tolist(), val.category_names, strict=True))
    ours, theirs = set(train_names.values()), set(val_names.values())
    if train_names.keys() != val_names.keys() and ours != theirs:
        alone = [
            f"{sorted(names)[0]!r} is in the {part} annotations alone"
            for part, names in (("train", ours - theirs), ("val", theirs - ours))
            if names
        ]
        raise UserError(f"category {' and '.join(alone)}; both files must list the same categories")
    for category_id in sorted(train_names.keys() | val_names.keys()):
        name, other = train_names.get(category_id), val_names.get(category_id)
        if name != other:
            raise UserError(
                f"category {category_id} is {name!r} in the train annotations and {other!r} in the val "
                "annotations; both files must list the same categories"
            )


def hold_out(annotations: Annotations, count: int, fingerprint: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the images into (train, reward) indices, both ascending.

    The selection depends on the fingerprint and the count alone. Groups stay together: a group that no longer fits
    is skipped. At most `count` images are held out, and exactly `count` if every image is a group of its own.
    """
    # Sorted by hash, because numpy's random streams may change between versions.
    hashes = (hashlib.sha256(f"{fingerprint}/{group}".encode()).digest() for group in annotations.groups)
    words = np.fromiter(hashes, dtype="V32", count=len(annotations.groups)).view(">u8").reshape(-1, 4)
    ranked = np.lexsort(words.T[::-1])  # images of a group are adjacent
    is_first = np.append(True, (words[ranked[1:]] != words[ranked[:-1]]).any(axis=1))
    starts = np.flatnonzero(is_first)
    sizes = np.diff(starts, append=len(ranked))
    if count >= len(annotations.image_ids):
        raise UserError(
            f"task.data.held_out_images is {count}, and there are {len(annotations.image_ids)} training images; "
            "choose a smaller number"
        )
    reward: list[int] = []
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if len(reward) + size <= count:
            reward.extend(ranked[start : start + size].tolist())
    if count and not reward:
        raise UserError(
            f"{count} images are to be held out, and the smallest of the {len(sizes)} groups of images has "
            f"{sizes.min()}; set task.data.held_out_images to at least so many, or make the groups smaller"
        )
    is_reward = np.zeros(len(annotations.image_ids), dtype=bool)
    is_reward[reward] = True
    has_object = np.zeros(len(annotations.image_ids), dtype=bool)
    has_object[annotations.image_of_box[~annotations.iscrowd]] = True
    for part, name in ((~is_reward, "training"), (is_reward, "held-out reward")):
        if not np.any(has_object & part):
            raise UserError(
                f"holding out {count} of {len(is_reward)} images makes {np.count_nonzero(part)} {name} "
                f"images with no object in them, as {np.count_nonzero(~has_object)} of the {len(is_reward)} images "
                "have no object; label more images, or choose another task.data.held_out_images"
            )
    return np.flatnonzero(~is_reward), np.flatnonzero(is_reward)


def training_subset(annotations: Annotations, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `count` of these rows, ascending, or all of them if there are fewer.

    The selection depends on the fingerprint and the count alone. A larger one contains the smaller ones.
    """
    if count >= len(rows):
        return rows
    fingerprint = annotations.fingerprint
    ranked = sorted(
        rows.tolist(),
        key=lambda row: hashlib.sha256(f"{fingerprint}/train/{annotations.image_ids[row]}".encode()).digest(),
    )
    chosen = np.array(sorted(ranked[:count]), dtype=np.int64)
    if not np.isin(chosen, annotations.image_of_box[~annotations.iscrowd]).any():
        raise UserError(
            f"none of the {count} images trained on, of {len(rows)}, has an object in it; "
            "choose a larger task.train.image_fraction"
        )
    return chosen
