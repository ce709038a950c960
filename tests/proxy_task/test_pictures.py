"""Which image entries show one picture: merged entries, groups, and pictures on both sides of a split."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import document, task_data, write_json
from PIL import Image, ImageEnhance, ImageOps
from shared_fixtures import shared_folder

from spinenas.proxy_task.config import DataConfig, TaskConfig
from spinenas.proxy_task.data.near_identical import _nearest
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.task_data import TaskData
from spinenas.space.errors import UserError

NUM_IMAGES = 12


def photograph(seed: int) -> Image.Image:
    """Draw smooth random shapes, which differ from those of another seed as photographs do."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(grey).resize((80, 60), Image.Resampling.BICUBIC)


def write_photographs(folder: Path, found: dict[str, Any]) -> Path:
    """Write a data set whose images all differ."""
    write_json(folder / "annotations/instances_train.json", found)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(found["images"]):
        photograph(number).save(folder / "images" / image["file_name"])
    return folder


def sentences(data: TaskData, *, with_val: bool = False) -> list[str]:
    return [finding.sentence for finding in data.findings(with_val=with_val)]


def sides(data: TaskData) -> list[set[str]]:
    """Return the file names of the images to train on, and of the reward images."""
    return [{data.train.file_names[row] for row in rows} for rows in (data.train_rows, data.reward_rows)]


def renamed(names: dict[int, str]) -> dict[str, Any]:
    """Return annotations of NUM_IMAGES images, some with these names by number."""
    found = document(num_images=NUM_IMAGES)
    for number, name in names.items():
        found["images"][number]["file_name"] = name
    return found


def test_a_set_without_doubles_is_left_alone(tmp_path: Path) -> None:
    data = task_data(write_photographs(tmp_path / "set", document(num_images=NUM_IMAGES)), tmp_path / "cache")
    assert sentences(data) == []
    assert "hold_out" not in data.fingerprint


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [("aquarium", "a2b65c8ce28cf8b5"), ("digits_multiscale", "6a3cbfaeef106dfa")],
)
def test_real_sets_keep_the_hold_out_of_earlier_versions(name: str, fingerprint: str, tmp_path: Path) -> None:
    data = TaskData(DataConfig(folder=str(shared_folder("data") / name), cache_folder=str(tmp_path)), 128)
    held_out = ",".join(map(str, data.train.image_ids[data.reward_rows]))
    assert digest(json.dumps(data.fingerprint, sort_keys=True) + held_out) == fingerprint


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_entries_of_one_file_become_one_image_with_all_its_boxes(tmp_path: Path) -> None:
    found = document([(10, 12, 30, 20)], num_images=NUM_IMAGES)
    again = [{**image, "id": 100 + image["id"]} for image in found["images"][:4]]
    boxes = [{**found["annotations"][0], "id": 200 + i, "image_id": 101 + i, "bbox": [40, 5, 25, 45]} for i in range(4)]
    write_photographs(tmp_path / "set", found)
    write_json(
        tmp_path / "set/annotations/instances_train.json",
        {**found, "images": found["images"] + again, "annotations": found["annotations"] + boxes},
    )
    data = task_data(tmp_path / "set", tmp_path / "cache")
    assert len(data.train.image_ids) == NUM_IMAGES
    assert np.diff(data.train.box_offsets).tolist() == [2] * 4 + [1] * (NUM_IMAGES - 4)
    (sentence,) = sentences(data)
    assert "merged into one image: 4 of 16 (first: image 101, 0.png)" in sentence


def test_boxes_that_another_entry_of_the_file_repeats_are_dropped_and_similar_ones_are_named(tmp_path: Path) -> None:
    found = document([(10, 12, 30, 20)], num_images=NUM_IMAGES)
    write_photographs(tmp_path / "set", found)
    again = [{**image, "id": 100 + image["id"]} for image in found["images"][:3]]
    boxes = [{**found["annotations"][i], "id": 200 + i, "image_id": 101 + i} for i in range(3)]
    boxes[2]["bbox"] = [10, 12, 30, 20.5]
    write_json(
        tmp_path / "set/annotations/instances_train.json",
        {**found, "images": found["images"] + again, "annotations": found["annotations"] + boxes},
    )
    data = task_data(tmp_path / "set", tmp_path / "cache")
    assert len(data.train.labels) == NUM_IMAGES + 1
    assert [sentence.split(":")[0] for sentence in sentences(data)[1:]] == [
        "boxes dropped, exact repetitions of a box in another entry of their file",
        "boxes that nearly repeat a box in another entry of their file",
    ]


def test_entries_of_one_file_that_differ_in_size_are_refused(tmp_path: Path) -> None:
    found = document(num_images=NUM_IMAGES)
    found["images"].append({**found["images"][0], "id": 99, "width": 81})
    write_photographs(tmp_path / "set", found)
    with pytest.raises(UserError, match=r"two entries name the file 0.png .* image 99 says 81 x 60 px"):
        _ = task_data(tmp_path / "set", tmp_path / "cache").train


def test_files_with_the_same_bytes_are_one_group_and_files_of_the_same_size_are_not(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "set", document(num_images=NUM_IMAGES))
    for copy in (4, 7, 9):
        shutil.copy(folder / "images/2.png", folder / f"images/{copy}.png")
    for number in (0, 1):  # the same size, and other bytes
        Image.fromarray(np.full((60, 80, 3), 10 + number, np.uint8)).save(folder / f"images/{number}.bmp")
        (folder / f"images/{number}.bmp").replace(folder / f"images/{number}.png")
    assert (folder / "images/0.png").stat().st_size == (folder / "images/1.png").stat().st_size
    data = task_data(folder, tmp_path / "cache", held_out_images=5)
    (sentence,) = [sentence for sentence in sentences(data) if "never separated" in sentence]
    assert "images with the same bytes as an earlier one" in sentence
    assert "3 of 12 (first: 4.png, like 2.png)" in sentence
    assert data.fingerprint["hold_out"] == "by picture"
    assert len(set(data.train.groups)) == NUM_IMAGES - 3


def test_versions_of_a_picture_that_roboflow_derived_are_one_group(tmp_path: Path) -> None:
    names = {number: f"IMG_{number // 3}_jpg.rf.{number:032x}.png" for number in range(6)}
    data = task_data(write_photographs(tmp_path / "set", renamed(names)), tmp_path / "cache", held_out_images=4)
    assert len(set(data.train.groups)) == 2 + 6
    for side in sides(data):
        for picture in ("IMG_0", "IMG_1"):
            assert sum(name.startswith(picture) for name in side) in (0, 3)


@pytest.mark.parametrize("pattern", [r"^(clip\d)_", r"clip\d"])
def test_a_pattern_groups_the_frames_of_a_video(pattern: str, tmp_path: Path) -> None:
    names = {number: f"clip{number // 4}_{number:03}.png" for number in range(8)}
    folder = write_photographs(tmp_path / "set", renamed(names))
    data = task_data(folder, tmp_path / "cache", held_out_images=4, group_pattern=pattern)
    assert len(set(data.train.groups)) == 2 + 4
    assert any("does not match, each a group of its own: 4 of 12" in sentence for sentence in sentences(data))
    for side in sides(data):
        assert {sum(name.startswith(f"clip{clip}") for name in side) for clip in (0, 1)} <= {0, 4}


def test_a_wrong_pattern_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "set", document(num_images=NUM_IMAGES))
    with pytest.raises(UserError, match=r"task.data.group_pattern is '\(', which is no regular expression"):
        task_data(folder, tmp_path / "cache", group_pattern="(")
    with pytest.raises(UserError, match=r"matches none of the 12 file names, such as '0.png'"):
        _ = task_data(folder, tmp_path / "cache", group_pattern="clip").train


def test_groups_of_the_annotation_file_are_never_separated_and_null_is_none(tmp_path: Path) -> None:
    found = document(num_images=NUM_IMAGES)
    for number, image in enumerate(found["images"]):
        image["group"] = f"scene {number // 3}" if number < 9 else None
    data = task_data(write_photographs(tmp_path / "set", found), tmp_path / "cache", held_out_images=4)
    assert len(set(data.train.groups)) == 3 + 3
    for side in sides(data):
        assert {sum(f"{number}.png" in side for number in range(3 * g, 3 * g + 3)) for g in range(3)} <= {0, 3}


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed.jpg": lambda image: image,
    "brighter.png": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "mirrored.png": ImageOps.mirror,
    "resized.png": lambda image: image.resize((40, 30)).resize((80, 60)),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_changed_copy_on_the_other_side_of_the_hold_out_is_named(name: str, tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "set", document(num_images=NUM_IMAGES))
    plain = task_data(folder, tmp_path / "cache", held_out_images=3)
    reward, trained = (plain.train.file_names[rows[0]] for rows in (plain.reward_rows, plain.train_rows))
    path = folder / "images" / trained
    with Image.open(folder / "images" / reward) as image:
        COPIES[name](image).save(path, format="JPEG" if name.endswith(".jpg") else "PNG")
    data = task_data(folder, tmp_path / "other cache", held_out_images=3)
    (sentence,) = sentences(data)
    assert f"reward images that look like an image trained on: 1 of 3 (first: {reward}, like {trained})" in sentence


def test_val_images_that_train_has_are_named_by_the_first_reason(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "set", document(num_images=NUM_IMAGES))
    val = document(num_images=4)
    for number, name in enumerate(("0.png", "same_bytes.png", "brighter.png", "new.png")):
        val["images"][number]["file_name"] = name
    write_json(folder / "annotations/instances_val.json", val)
    shutil.copy(folder / "images/1.png", folder / "images/same_bytes.png")
    COPIES["brighter.png"](photograph(2)).save(folder / "images/brighter.png")
    photograph(77).save(folder / "images/new.png")
    without, with_val = (sentences(task_data(folder, tmp_path / "cache"), with_val=each) for each in (False, True))
    assert [sentence.split(":")[0] for sentence in without] == [
        "val images whose file train lists too",
        "val images with the same bytes as a train image",
    ]
    assert with_val[:2] == without
    assert with_val[2].startswith("val images that look like a train image: 1 of 4 (first: brighter.png, like 2.png)")


def test_a_search_goes_on_without_val_and_names_a_val_that_cannot_be_used(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "set", document(num_images=NUM_IMAGES))
    assert sentences(task_data(folder, tmp_path / "cache")) == []
    (folder / "annotations/instances_val.json").write_text("{")
    (sentence,) = sentences(task_data(folder, tmp_path / "cache"))
    assert sentence.startswith("val cannot be used: 1; ")


def test_the_nearest_hash_is_found_among_many() -> None:
    rng = np.random.default_rng(0)
    others = rng.integers(0, 2**63, 5000, dtype=np.uint64)
    hashes = np.stack([others[[7, 4242]] ^ np.uint64(0b101), rng.integers(0, 2**63, 2, dtype=np.uint64)], axis=1)
    nearest, distances = _nearest(hashes, others)
    assert (nearest.tolist(), distances.tolist()) == ([7, 4242], [2, 2])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one_image_entry_per_box", "merged into one image: 10 of 20"),
        ("images_annotated_twice", "exact repetitions of a box in another entry of their file: 20 of 40"),
        ("val_is_train", "val images whose file train lists too: 10 of 10"),
    ],
)
def test_a_case_of_pictures_on_both_sides_is_said(name: str, words: str, tmp_path: Path) -> None:
    data = task_data(shared_folder("cases") / name, tmp_path)
    assert any(words in sentence for sentence in sentences(data))
    assert not set.intersection(*sides(data))


def test_fewer_images_than_a_batch_are_refused(tmp_path: Path) -> None:
    data = DataConfig(folder=str(shared_folder("cases") / "set_of_2"), cache_folder=str(tmp_path))
    with pytest.raises(UserError, match="1 of 2 images are left to train on, fewer than a batch of 64"):
        ProxyTask(TaskConfig(data=data, image_size_pixels=96), device="cpu").prepare()
