"""Pictures on both sides of a split are found and named, and data without them keeps its identity."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_sets import document, task_data, write_json
from PIL import Image, ImageEnhance, ImageOps
from shared_fixtures import shared_folder

from spinenas.proxy_task.config import DataConfig, TaskConfig
from spinenas.proxy_task.data.splits.near_identical import _nearest
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.task_data import TaskData


def picture(seed: int) -> Image.Image:
    """Return a picture of 80 x 60 px with large shapes."""
    coarse = np.random.default_rng(seed).integers(0, 200, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)


def write_split(folder: Path, name: str, pictures: dict[str, Image.Image]) -> None:
    found = document(num_images=len(pictures))
    for entry, (file_name, image) in zip(found["images"], pictures.items(), strict=True):
        entry.update(file_name=file_name, width=image.width, height=image.height)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        image.save(folder / "images" / file_name, **({"quality": 60} if file_name.endswith("jpg") else {}))
    write_json(folder / f"annotations/instances_{name}.json", found)


def pictures(first: int, count: int) -> dict[str, Image.Image]:
    return {f"{seed}.png": picture(seed) for seed in range(first, first + count)}


def leaks(data: TaskData, *, with_val: bool) -> list[tuple[str, int, int, str]]:
    found = data.findings(with_val=with_val)
    return [(each.what, each.count, each.total, each.first) for each in found if each.advice]


COPIES = {
    "resized": lambda image: image.resize((160, 120), Image.Resampling.BICUBIC),
    "smaller": lambda image: image.resize((70, 52), Image.Resampling.BICUBIC),
    "compressed again": lambda image: image,
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "mirrored": ImageOps.mirror,
}


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("with_val", [True, False])
def test_val_images_that_look_like_a_train_image_are_named(change: str, with_val: bool, tmp_path: Path) -> None:
    write_split(tmp_path, "train", pictures(0, 12))
    write_split(tmp_path, "val", {**pictures(20, 3), "copy.jpg": COPIES[change](picture(7))})
    found = leaks(task_data(tmp_path, tmp_path / "cache"), with_val=with_val)
    expected = [("val images that look like a train image", 1, 4, "copy.jpg, like 7.png")]
    assert found == (expected if with_val else []), "a search decodes no val image"


def test_other_pictures_are_no_copies(tmp_path: Path) -> None:
    plain = {f"plain {grey}.png": Image.new("RGB", (80, 60), (grey,) * 3) for grey in (10, 100, 200)}
    write_split(tmp_path, "train", pictures(0, 60) | plain)
    write_split(tmp_path, "val", pictures(100, 60) | {f"val {name}": image for name, image in plain.items()})
    for name in plain:  # of one grey, but not of the same bytes
        Image.new("RGB", (80, 60), (60, 61, 62)).save(tmp_path / "images" / f"val {name}")
    assert leaks(task_data(tmp_path, tmp_path / "cache"), with_val=True) == []


def test_reward_images_that_look_like_an_image_trained_on_are_named(tmp_path: Path) -> None:
    write_split(tmp_path, "train", pictures(0, 10) | {f"copy {i}.jpg": picture(i) for i in range(10)})
    data = task_data(tmp_path, tmp_path / "cache", held_out_images=5)
    reward, names = data.reward_rows.tolist(), list(data.train.file_names)
    leaked = [row for row in reward if (row + 10) % 20 not in reward]
    assert leaked
    assert leaks(data, with_val=False) == [
        (
            "reward images that look like an image trained on",
            len(leaked),
            5,
            f"{names[leaked[0]]}, like {names[(leaked[0] + 10) % 20]}",
        )
    ]
    grouped = task_data(tmp_path, tmp_path / "cache", held_out_images=6, group_pattern=r"(\d+)\.")
    assert leaks(grouped, with_val=False) == []


def test_each_val_image_is_named_once_by_the_first_reason(tmp_path: Path) -> None:
    train = pictures(0, 10) | {"cat_jpg.rf.00000000.jpg": picture(30), "video_1_0.png": picture(31)}
    write_split(tmp_path, "train", train)
    val = {"copy.png": picture(40), "cat_jpg.rf.11111111.jpg": picture(41), "video_1_1.png": picture(42)}
    write_split(tmp_path, "val", {"3.png": picture(3), **val, "like.jpg": picture(5)})
    shutil.copy(tmp_path / "images/4.png", tmp_path / "images/copy.png")
    found = leaks(task_data(tmp_path, tmp_path / "cache", group_pattern=r"video_\d|^\d+"), with_val=True)
    assert [(what, count, first) for what, count, _, first in found] == [
        ("val images whose file train lists too", 1, "3.png"),
        ("val images with the same bytes as a train image", 1, "copy.png, like 4.png"),
        (
            "val images that Roboflow derived from the picture of a train image",
            1,
            "cat_jpg.rf.11111111.jpg, like cat_jpg.rf.00000000.jpg",
        ),
        (
            "val images in a group of task.data.group_pattern that train has too",
            1,
            "video_1_1.png, like video_1_0.png",
        ),
        ("val images that look like a train image", 1, "like.jpg, like 5.png"),
    ]


def test_a_search_needs_no_val_and_says_what_is_wrong_with_one(tmp_path: Path) -> None:
    write_split(tmp_path, "train", pictures(0, 10))
    assert task_data(tmp_path, tmp_path / "cache").findings(with_val=False) == ()
    (tmp_path / "annotations/instances_val.json").write_text("{")
    (found,) = task_data(tmp_path, tmp_path / "cache").findings(with_val=False)
    assert found.what == "val cannot be used"
    assert "instances_val.json" in found.advice


KNOWN = {
    "aquarium": ("4933c6e7345afb58", "5495f54016fafb6d", "b2104edf223d2455"),
    "coco_permissive": ("1293b59a41208410", "85c84df09aabe9bd", "113fa07e403c92ff"),
    "dali_cc0_tiny256": ("5bbd4d5d43dafd93", "7eb5f990484e3691", "c77e1764ea43209b"),
    "digits_multiscale": ("5d5eccc436a96e17", "812d1a5d5269f926", "b4888a3d9eb13bfd"),
}
"""Hash of the fingerprint, task key and hash of the reward rows before pictures were grouped (commit 63fcc3b).

The key is that of the same configuration read from a run, which has 500.0 warmup steps instead of 500.
"""


@pytest.mark.parametrize("name", KNOWN)
def test_data_without_copies_keeps_fingerprint_key_and_hold_out(name: str, tmp_path: Path) -> None:
    folder = shared_folder("data") / name
    task = ProxyTask(TaskConfig(data=DataConfig(folder=str(folder), cache_folder=str(tmp_path))))
    rows = task.data.reward_rows.tolist()
    found = [hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest() for each in (task.fingerprint, rows)]
    assert (found[0][:16], task.key, found[1][:16]) == KNOWN[name]
    assert "hold_out" not in task.fingerprint


def test_the_nearest_hash_is_the_one_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spinenas.proxy_task.data.splits.near_identical.PAIRS_AT_ONCE", 100)
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, size=(25, 2), dtype=np.uint64)
    others = rng.integers(0, 2**63, size=30, dtype=np.uint64)
    nearest, distances = _nearest(hashes, others)
    bits = np.array([[min((int(h) ^ int(o)).bit_count() for h in pair) for o in others] for pair in hashes])
    assert distances.tolist() == bits.min(axis=1).tolist()
    assert bits[np.arange(25), nearest].tolist() == bits.min(axis=1).tolist()
