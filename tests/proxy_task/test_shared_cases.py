"""Every data set of the shared cases behaves as its README says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from coco_examples import everything_found
from data_sets import said, task_data
from shared_fixtures import shared_folder

from spinenas.proxy_task.config import DataConfig, TaskConfig
from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.task import ProxyTask
from spinenas.space.errors import UserError

LEADING = "file names with leading folders that the image folder does not have, left out: 10 of 10"

READ: dict[str, tuple[str, ...]] = {
    "ok": (),
    "area_negative": ("areas that COCO does not count .*, taken from the box: 20 of 20",),
    "boxes_drawn_backwards": ("boxes with negative width or height, turned round: 10 of 20",),
    "exif_3_annotated_upright": ("EXIF orientation, which is not applied: 10 of 10 .* task.data.exif=displayed",),
    "exif_6_annotated_upright": ("images turned upright by their EXIF orientation, .*: 10 of 10",),
    "exif_6_label_studio": (
        "EXIF orientation of swapped sides, which is not applied: 10 of 10 .* turn the files upright",
    ),
    "file_name_backslash": ("file names with backslashes, read as slashes: 10 of 10", LEADING),
    "file_name_percent_20": ("file names with URL encoding, decoded: 10 of 10",),
    "file_name_with_images": (LEADING,),
    "group_null": (),
    "ids_float": (),
    "iscrowd_null": (),
    "json_gz": (),
    "layout_cvat": (),
    "layout_label_studio": (LEADING,),
    "layout_one_level_down": (),
    "layout_roboflow": (),
    "objects_300_tiny": ("objects narrower than 2 px at 96 px: 3000 of 3020 .* task.image_size_pixels",),
    "polygons_only": ("boxes taken from the outline, because there is no bbox: 20 of 20",),
    "unicode_nfc_nfd": ("file names in another case or Unicode form than the files, matched: 10 of 10",),
    "val_category_ids_differ": (),
    "val_without_boxes": (),
    "width_height_missing": ("images without width and height, read from the image files: 10 of 10",),
}
"""Data sets that a search reads, with all that is said of their train split."""

REFUSED = {
    "all_crowd_rle": r"all 20 are crowds.*iscrowd 0",
    "boxes_normalized": r"20 of 20 boxes look like shares of the image.*multiply x and width by the width",
    "boxes_xyxy": r"16 of 20 boxes leave their image; they look like corners, \[x1, y1, x2, y2\]",
    "file_name_nul": r"image 3 has 'img\\x00.jpg' as 'file_name'",
    "img_200_megapixels": r"img_0003.png \(has 200 megapixels, more than task.data.max_megapixels",
    "img_heic": r"10 of 10 images .*img_0001.heic \(is a HEIC photo.*convert it to JPEG",
}

MERGED = "image entries of a file that another entry names, merged into one image: 10 of 20"

PICTURES_ON_TWO_SIDES: dict[str, tuple[str, ...]] = {
    "images_annotated_twice": (MERGED, "exact repetitions of a box in another entry of their file: 20 of 40"),
    "one_image_entry_per_box": (MERGED,),
    "set_of_2": (),
    "val_is_train": ("val images whose file train lists too: 10 of 10 .*figures on val say little about new images",),
}
"""Data sets about images on both sides of a split, or about too few, with all that a search or a validation says."""


def test_every_case_is_tested() -> None:
    folders = {path.name for path in shared_folder("cases").iterdir() if path.is_dir()}
    assert folders == READ.keys() | REFUSED.keys() | PICTURES_ON_TWO_SIDES.keys()


@pytest.mark.parametrize("name", READ)
def test_a_case_is_read_and_what_was_found_is_said_at_every_opening(name: str, tmp_path: Path) -> None:
    folder = shared_folder("cases") / name
    for _ in range(2):
        sentences = said(task_data(folder, tmp_path))
        assert len(sentences) == len(READ[name]), sentences
        for words, sentence in zip(READ[name], sentences, strict=True):
            assert re.search(words, sentence)


SAME_AS_OK = (
    "area_negative",
    "boxes_drawn_backwards",
    "group_null",
    "ids_float",
    "iscrowd_null",
    "json_gz",
    "layout_cvat",
    "layout_one_level_down",
    "layout_roboflow",
    "polygons_only",
    "width_height_missing",
)


@pytest.mark.parametrize("name", SAME_AS_OK)
def test_a_case_that_is_written_otherwise_has_the_annotations_of_the_plain_one(name: str, tmp_path: Path) -> None:
    cases = shared_folder("cases")
    plain = task_data(cases / "ok", tmp_path)
    assert task_data(cases / name, tmp_path).train.fingerprint == plain.train.fingerprint


@pytest.mark.parametrize("name", REFUSED)
def test_a_case_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=REFUSED[name]) as caught:
            said(task_data(shared_folder("cases") / name, tmp_path))
        assert "\n" not in str(caught.value)


def test_val_categories_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    cases = shared_folder("cases")
    val, plain = (task_data(cases / name, tmp_path).val for name in ("val_category_ids_differ", "ok"))
    assert val.labels.tolist() == [3 - label for label in plain.labels.tolist()]  # the two names are exchanged
    assert [finding.count for finding in val.findings] == [2]


def test_a_val_without_boxes_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no boxes of objects .its list of annotations is empty."):
        _ = task_data(shared_folder("cases") / "val_without_boxes", tmp_path).val


@pytest.mark.parametrize("name", ["layout_cvat", "layout_label_studio"])
def test_a_single_split_is_enough_until_val_is_needed(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no val: .*a search needs none"):
        _ = task_data(shared_folder("cases") / name, tmp_path).val


def test_three_hundred_objects_count_with_three_hundred_detections(tmp_path: Path) -> None:
    train = task_data(shared_folder("cases") / "objects_300_tiny", tmp_path).train
    some = train.subset(np.arange(2))
    found = everything_found(some)
    by_most = {most: CocoEvaluator(some, max_detections=most).evaluate(found) for most in (100, 300)}
    assert by_most[300]["AP"] > 0.99
    assert by_most[100]["AP"] == pytest.approx(0.7, abs=0.15)
    assert by_most[100]["AR100"] == by_most[300]["AR100"]


@pytest.mark.parametrize("with_val", [False, True])
@pytest.mark.parametrize("name", PICTURES_ON_TWO_SIDES)
def test_pictures_on_two_sides_are_said_in_a_search_and_in_a_validation(
    name: str, with_val: bool, tmp_path: Path
) -> None:
    expected = PICTURES_ON_TWO_SIDES[name]
    for _ in range(2):
        data = task_data(shared_folder("cases") / name, tmp_path)
        sentences = [finding.sentence for finding in data.findings(with_val=with_val)]
        assert len(sentences) == len(expected), sentences
        for words, sentence in zip(expected, sentences, strict=True):
            assert re.search(words, sentence)
        files = data.train.file_names
        assert not {files[row] for row in data.train_rows} & {files[row] for row in data.reward_rows}


def test_fewer_images_than_a_batch_are_refused(tmp_path: Path) -> None:
    folder = shared_folder("cases") / "set_of_2"
    data = DataConfig(folder=str(folder), cache_folder=str(tmp_path))
    with pytest.raises(UserError, match="1 of 2 images are left to train on, fewer than a batch of 64"):
        ProxyTask(TaskConfig(data=data, image_size_pixels=96)).prepare()
