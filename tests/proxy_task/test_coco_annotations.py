"""Annotation files: errors, repairs, and the resulting arrays."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_fixtures import shared_folder

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotation_files.layout import SplitPaths, find_split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.splits.subsets import check_same_categories, hold_out
from spinenas.space.errors import UserError

DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "width": 100, "height": 50},
        {"id": 3, "file_name": "a.jpg", "width": 60, "height": 80},
        {"id": 9, "file_name": "empty.jpg", "width": 10, "height": 10},
    ],
    "annotations": [
        {"id": 50, "image_id": 7, "category_id": 90, "bbox": [1, 2, 30, 40], "area": 700.5, "iscrowd": 0},
        {"id": 40, "image_id": 3, "category_id": 2, "bbox": [5.5, 6, 7, 8], "area": 56, "iscrowd": 1},
        {"id": 60, "image_id": 7, "category_id": 2, "bbox": [10, 10, 0.25, 5], "area": 1.25, "iscrowd": 0},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 2, "name": "bicycle"}],
}


def write(folder: Path, document: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def read(folder: Path, document: Any) -> Annotations:
    return read_annotations(write(folder, document), folder)


def with_boxes(*boxes: list[float]) -> dict[str, Any]:
    """Return a document with a valid box, then these boxes, on an image of 100 x 50 px."""
    rows = [[10, 10, 20, 20], *boxes]
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}],
        "annotations": [
            {"id": 10 + i, "image_id": 1, "category_id": 1, "bbox": box, "area": 80.0, "iscrowd": 0}
            for i, box in enumerate(rows)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


def with_images(count: int, group_size: int | None = None) -> dict[str, Any]:
    """Return a document with one box on each image, in groups of consecutive images."""
    images: list[dict[str, Any]] = [{"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 9} for i in range(count)]
    if group_size is not None:
        for image in images:
            image["group"] = f"scene {image['id'] // group_size}"
    return {
        "images": images,
        "annotations": [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [1, 1, 5, 5]} for i in range(count)],
        "categories": [{"id": 1, "name": "thing"}],
    }


def test_arrays_hold_images_ascending_by_id_and_their_boxes_in_the_order_of_the_file(tmp_path: Path) -> None:
    annotations = read(tmp_path, DOCUMENT)
    assert annotations.image_ids.tolist() == [3, 7, 9]
    assert annotations.file_names == ("a.jpg", "b.jpg", "empty.jpg")
    assert annotations.widths.tolist() == [60, 100, 10]
    assert annotations.heights.tolist() == [80, 50, 10]
    assert annotations.box_offsets.tolist() == [0, 1, 3, 3]
    assert annotations.annotation_ids.tolist() == [40, 50, 60]
    assert annotations.boxes_xywh.tolist() == [[5.5, 6, 7, 8], [1, 2, 30, 40], [10, 10, 0.25, 5]]
    assert annotations.areas.tolist() == [56, 700.5, 1.25]
    assert annotations.iscrowd.tolist() == [True, False, False]
    assert annotations.findings == ()


def test_class_channels_follow_the_category_ids_ascending_from_one(tmp_path: Path) -> None:
    annotations = read(tmp_path, DOCUMENT)
    assert annotations.category_ids.tolist() == [2, 90]
    assert annotations.category_names == ("bicycle", "toothbrush")
    assert annotations.labels.tolist() == [1, 2, 1]


def test_area_and_crowd_flag_may_be_missing(tmp_path: Path) -> None:
    annotations = read(tmp_path, with_images(1))
    assert annotations.areas.tolist() == [25]
    assert annotations.iscrowd.tolist() == [False]


def test_arrays_cannot_be_written_to(tmp_path: Path) -> None:
    annotations = read(tmp_path, DOCUMENT)
    with pytest.raises(ValueError, match="read-only"):
        annotations.boxes_xywh[0, 0] = 1


def test_a_subset_keeps_the_boxes_of_its_images_in_the_order_asked_for(tmp_path: Path) -> None:
    subset = read(tmp_path, DOCUMENT).subset(np.array([2, 1]))
    assert subset.image_ids.tolist() == [9, 7]
    assert subset.box_offsets.tolist() == [0, 0, 2]
    assert subset.annotation_ids.tolist() == [50, 60]
    assert subset.labels.tolist() == [2, 1]
    assert subset.category_ids.tolist() == [2, 90]


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([float("nan"), 1, 2, 3], "not finite"),
        ([1, 2, float("inf"), 3], "not finite"),
        ([1, 2, 0, 3], "zero size"),
        ([1, 2, -3, 0], "zero size"),
        ([200, 2, 30, 30], "outside the image"),
        ([-40, 2, 40.5, 30], "outside the image"),  # half a pixel of it is inside
    ],
)
def test_an_unusable_box_is_dropped_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, box: list[float], reason: str
) -> None:
    with caplog.at_level(logging.WARNING):
        annotations = read(tmp_path, with_boxes(box))
    assert annotations.annotation_ids.tolist() == [10]
    assert [(finding.what, finding.count) for finding in annotations.findings] == [(f"boxes dropped, {reason}", 1)]
    assert reason in caplog.text
    assert "annotation 11" in caplog.text


def test_a_box_over_the_edge_is_clipped_and_its_area_shrinks_with_it(tmp_path: Path) -> None:
    annotations = read(tmp_path, with_boxes([-10, 30, 40, 40], [90, -5, 20, 20]))
    assert annotations.boxes_xywh[1:].tolist() == [[0, 30, 30, 20], [90, 0, 10, 15]]
    assert annotations.areas[1:].tolist() == pytest.approx([80 * 600 / 1600, 80 * 150 / 400])
    assert annotations.findings == (Finding("boxes clipped to their image", 2, 3, "annotation 11"),)


@pytest.mark.parametrize("box", [[-0.5, 3, 5, 5], [90, 3, 11, 5], [98, 47, 3.0, 3.99], [5, 5, 0.01, 0.5]])
def test_a_thin_box_or_one_within_a_pixel_of_the_edge_stays_unchanged(tmp_path: Path, box: list[float]) -> None:
    annotations = read(tmp_path, with_boxes(box))
    assert annotations.boxes_xywh[1].tolist() == box
    assert annotations.findings == ()


def change(path: list[Any], value: Any) -> dict[str, Any]:
    """Return the document with one place changed; a value of ... deletes it."""
    document = copy.deepcopy(DOCUMENT)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{not json", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ([1, 2], "holds a list, not an object"),
        (change(["images"], ...), "no list 'images'"),
        (change(["annotations"], {}), "no list 'annotations'"),
        (change(["categories"], ...), "no list 'categories'"),
        (change(["images"], []), "no images"),
        (change(["categories"], []), "no categories"),
        (change(["annotations"], []), "no boxes of objects"),
        (change(["images", 1], "a.jpg"), "image number 1 is a str"),
        (change(["images", 1, "id"], ...), "image number 1 has no 'id'"),
        (change(["images", 1, "id"], "3"), "image number 1 has '3' as 'id'"),
        (change(["images", 1, "id"], 2**70), "as 'id'"),
        (change(["images", 1, "file_name"], ...), "image 3 has no 'file_name'"),
        (change(["images", 1, "width"], ...), r"image 3 \(a.jpg\) has no 'width' .* is missing"),
        (change(["images", 1, "height"], 0), r"image 3 \(a.jpg\) has 0 as 'height'"),
        (change(["images", 1, "id"], 7), "image id 7 is used twice"),
        (change(["categories", 1, "id"], 90), "category id 90 is used twice"),
        (change(["categories", 1, "id"], True), "has True as 'id'"),
        (change(["annotations", 1, "id"], 50), "annotation id 50 is used twice"),
        (change(["annotations", 1, "image_id"], 4), "annotation 40 is of image 4"),
        (change(["annotations", 1, "category_id"], 1), "annotation 40 has category 1"),
        (change(["annotations", 1, "bbox"], ...), "annotation 40 has the bbox None"),
        (change(["annotations", 1, "bbox"], [1, 2, 3]), r"annotation 40 has the bbox \[1, 2, 3\]"),
        (change(["annotations", 1, "bbox"], [1, 2, 3, "4"]), "annotation 40 has the bbox"),
        (change(["annotations", 1, "bbox"], [1, 2, 3, 10**400]), "annotation 40 has the bbox"),
        (change(["annotations", 1, "area"], "big"), "annotation 40 has the area 'big'"),
        (change(["annotations", 1, "iscrowd"], 2), "annotation 40 has 2 as 'iscrowd'"),
    ],
)
def test_departures_from_cocos_format_are_refused_in_one_sentence_naming_file_and_place(
    tmp_path: Path, document: Any, words: str
) -> None:
    path = write(tmp_path, document)
    with pytest.raises(UserError, match=words) as caught:
        read_annotations(path, tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_file_is_not_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not valid JSON"):
        read_annotations(path, tmp_path)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(DOCUMENT), encoding="utf-8-sig")
    assert read_annotations(path, tmp_path).fingerprint == read(tmp_path, DOCUMENT).fingerprint


OUTLINE_PATTERN: list[Any] = [
    [[1, 2.5, 3e-1, -4, 5, 6]],
    [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]],
    [],
    {"counts": [1, 2, 30], "size": [50, 100]},
    {"size": [50, 100], "counts": 'ab[1, 2]}{\\"\\'},
    [{"counts": [3, 4], "size": [50, 100]}, None],
    None,
]


@pytest.mark.parametrize("outline", OUTLINE_PATTERN)
@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("indent", [None, 1])
def test_outlines_of_every_form_change_nothing(
    tmp_path: Path, outline: Any, is_first: bool, indent: int | None
) -> None:
    document = copy.deepcopy(DOCUMENT)
    masks = {"segmentation": outline, "keypoints": [1, 2, 2], "num_keypoints": 1}
    for index in (0, 2):
        entry = document["annotations"][index]
        document["annotations"][index] = {**masks, **entry} if is_first else {**entry, **masks}
    path = write(tmp_path, json.dumps(document, indent=indent))
    assert read_annotations(path, tmp_path).fingerprint == read(tmp_path, DOCUMENT).fingerprint


def test_an_outline_within_a_string_is_kept(tmp_path: Path) -> None:
    name = 'a"segmentation": [1, 2].jpg'
    assert read(tmp_path, change(["images", 0, "file_name"], name)).file_names[1] == name


def test_a_file_with_nan_is_read_like_one_without(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["info"] = {"score": float("nan")}
    document["annotations"][0]["segmentation"] = [[1.0, float("nan"), 2.0]]
    assert read(tmp_path, document).fingerprint == read(tmp_path, DOCUMENT).fingerprint


def test_a_file_whose_boxes_were_all_dropped_is_refused(tmp_path: Path) -> None:
    document = with_boxes()
    document["annotations"][0]["bbox"] = [1, 1, 0, 0]
    with pytest.raises(UserError, match=r"no boxes of objects \(1 were dropped\)"):
        read(tmp_path, document)


def test_the_fingerprint_ignores_masks_and_the_order_of_images(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["images"].reverse()
    document["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    assert read(tmp_path, document).fingerprint == read(tmp_path, DOCUMENT).fingerprint


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["images", 0, "file_name"], "c.jpg"),
        (["images", 0, "width"], 101),
        (["images", 0, "group"], "scene"),
        (["annotations", 0, "bbox", 3], 40.001),
        (["annotations", 0, "category_id"], 2),
        (["annotations", 0, "area"], 701),
        (["annotations", 0, "iscrowd"], 1),
        (["annotations", 0, "image_id"], 3),
        (["categories", 0, "id"], 91),
    ],
)
def test_the_fingerprint_changes_with_everything_that_can_change_results(
    tmp_path: Path, path: list[Any], value: Any
) -> None:
    document = change(path, value)
    if path[0] == "categories":
        document["annotations"][0]["category_id"] = value
    assert read(tmp_path, document).fingerprint != read(tmp_path, DOCUMENT).fingerprint


def test_a_category_id_must_mean_the_same_in_train_and_val(tmp_path: Path) -> None:
    train = read(tmp_path, DOCUMENT)
    check_same_categories(train, train)
    with pytest.raises(UserError, match=r"category 90 is 'toothbrush' in the train .* 'comb' in the val"):
        check_same_categories(train, read(tmp_path, change(["categories", 0, "name"], "comb")))


def test_as_many_images_are_held_out_as_asked_for_and_none_of_them_is_in_train(tmp_path: Path) -> None:
    annotations = read(tmp_path, with_images(50))
    train, reward = hold_out(annotations, 10, annotations.fingerprint)
    assert len(reward) == 10
    assert sorted([*train, *reward]) == list(range(50))


def test_held_out_images_depend_on_the_fingerprint_and_never_change(tmp_path: Path) -> None:
    annotations = read(tmp_path, with_images(50))
    assert hold_out(annotations, 5, "some data")[1].tolist() == [3, 10, 29, 43, 46]
    assert hold_out(annotations, 5, "other data")[1].tolist() != [3, 10, 29, 43, 46]


def test_images_of_a_group_are_never_separated(tmp_path: Path) -> None:
    annotations = read(tmp_path, with_images(40, group_size=4))
    _, reward = hold_out(annotations, 10, "f")
    groups = [annotations.groups[i] for i in reward]
    assert len(reward) == 8
    assert all(groups.count(group) == 4 for group in groups)


@pytest.mark.parametrize(
    ("count", "words"), [(12, "is 12, and there are 12 training images"), (99, "is 99, and"), (0, "0 held-out")]
)
def test_a_count_that_leaves_nothing_on_one_side_is_refused(tmp_path: Path, count: int, words: str) -> None:
    annotations = read(tmp_path, with_images(12))
    with pytest.raises(UserError, match=words):
        hold_out(annotations, count, "f")


def make_layout(folder: Path, annotations: list[str], images: list[str]) -> DataConfig:
    for name in annotations:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    for name in images:
        (folder / name).mkdir(parents=True)
    return DataConfig(folder=str(folder))


@pytest.mark.parametrize(
    ("suffix", "images"),
    [
        ("", ("images", "images")),
        ("", ("images/train", "images/val")),
        ("2017", ("train2017", "val2017")),
        ("2017", ("images/train2017", "images/val2017")),
    ],
)
def test_both_layouts_are_found(tmp_path: Path, suffix: str, images: tuple[str, str]) -> None:
    files = [f"annotations/instances_{split}{suffix}.json" for split in ("train", "val")]
    config = make_layout(tmp_path, files, sorted(set(images)))
    for split, file, folder in zip(("train", "val"), files, images, strict=True):
        assert find_split(config, split) == SplitPaths(tmp_path / file, tmp_path / folder)  # type: ignore[arg-type]


def test_four_explicit_paths_are_used_unchanged(tmp_path: Path) -> None:
    make_layout(tmp_path, ["t.json", "v.json"], ["a", "b"])
    places = {
        "train_annotations": "t.json",
        "train_images": "a",
        "val_annotations": "v.json",
        "val_images": "b",
    }
    config = DataConfig(**{name: str(tmp_path / place) for name, place in places.items()})  # type: ignore[arg-type]
    assert find_split(config, "train") == SplitPaths(tmp_path / "t.json", tmp_path / "a")
    assert find_split(config, "val") == SplitPaths(tmp_path / "v.json", tmp_path / "b")
    (tmp_path / "b").rmdir()
    with pytest.raises(UserError, match=r"task.data.val_images is .* does not exist"):
        find_split(config, "val")


@pytest.mark.parametrize(
    ("annotations", "images", "words"),
    [
        ([], [], "holds no COCO data set: it has neither annotations/instances_train.json nor"),
        (["annotations/instances_train.json"], [], "no images: a folder images/train or images or train is"),
        (["annotations/instances_train2017.json"], ["images"], "train2017 or images/train2017 is needed"),
    ],
)
def test_an_incomplete_folder_is_refused_naming_the_expected_files(
    tmp_path: Path, annotations: list[str], images: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        find_split(make_layout(tmp_path, annotations, images), "train")


def test_a_folder_without_val_is_accepted_until_val_is_needed(tmp_path: Path) -> None:
    config = make_layout(tmp_path, ["annotations/instances_train.json"], ["images"])
    assert find_split(config, "train").images == tmp_path / "images"
    with pytest.raises(UserError, match=r"neither annotations/instances_val.json nor"):
        find_split(config, "val")


def test_a_missing_data_set_option_is_asked_for() -> None:
    with pytest.raises(UserError, match="no data set is named; give --data FOLDER"):
        find_split(DataConfig(folder=""), "train")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere, which does not exist"):
        find_split(DataConfig(folder=str(tmp_path / "nowhere")), "train")


@pytest.mark.parametrize(
    ("name", "num_images", "num_boxes"),
    [
        ("aquarium", (393, 121), (3006, 912)),
        ("coco_permissive", (67, 40), (615, 305)),
        ("digits_multiscale", (1200, 300), (5917, 1406)),
        ("dali_cc0_tiny256", (42, 18), (66, 24)),
    ],
)
def test_real_sets_are_read_without_changing_a_box(
    name: str, num_images: tuple[int, int], num_boxes: tuple[int, int]
) -> None:
    config = DataConfig(folder=str(shared_folder("data") / name))
    train_paths, val_paths = find_split(config, "train"), find_split(config, "val")
    train = read_annotations(train_paths.annotations, train_paths.images)
    val = read_annotations(val_paths.annotations, val_paths.images)
    check_same_categories(train, val)
    for part, images, boxes in zip((train, val), num_images, num_boxes, strict=True):
        assert (len(part.image_ids), len(part.boxes_xywh)) == (images, boxes)
        assert {finding.what for finding in part.findings} <= {"areas of 0, which COCO counts as small"}
