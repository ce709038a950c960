"""Layouts, file names and labels as tools write them, each on data made here."""

from __future__ import annotations

import gzip
import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_sets import HEIGHT, WIDTH, document, said, task_data, write_images, write_json, write_set
from PIL import Image
from pycocotools import mask

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.task_data import TaskData
from spinenas.space.errors import UserError

BOXES = ((10, 12, 30, 20), (40, 5, 25, 45))


def plain(folder: Path) -> TaskData:
    """The data set that all others should be read as."""
    return task_data(write_set(folder / "plain", document()), folder / "cache")


def boxes(data: TaskData) -> list[list[float]]:
    return data.train.boxes_xywh.tolist()


def pixels(data: TaskData) -> np.ndarray:
    images = data.split("train", 96, torch.device("cpu")).images
    return np.array(images)


LAYOUTS = {
    "roboflow": ("train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid"),
    "2014": ("annotations/instances_train2014.json", "train2014", "annotations/instances_val2014.json", "val2014"),
    "cvat subsets": (
        "annotations/instances_Train.json",
        "images/Train",
        "annotations/instances_Val.json",
        "images/Val",
    ),
    "cvat default": ("annotations/instances_default.json", "images/default", None, None),
    "label studio": ("result.json", "images", None, None),
    "one json of any name": ("my labels.json", "images", None, None),
    "fiftyone": ("train/labels.json", "train/data", "val/labels.json", "val/data"),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_of_a_tool_is_read_as_it_is(layout: str, compressed: bool, tmp_path: Path) -> None:
    annotations, images, val_annotations, val_images = LAYOUTS[layout]
    folder = tmp_path / "set"
    for file, where, count in ((annotations, images, 6), (val_annotations, val_images, 2)):
        if file is None or where is None:
            continue
        write_json(folder / file, document(num_images=count))
        write_images(folder / where, [f"{i}.png" for i in range(count)])
        if compressed:
            text = (folder / file).read_bytes()
            (folder / file).unlink()
            (folder / f"{file}.gz").write_bytes(gzip.compress(text))
    data = task_data(folder, tmp_path / "cache")
    assert said(data) == []
    assert data.train.fingerprint == plain(tmp_path).train.fingerprint
    assert data.has_val == (val_annotations is not None)
    if data.has_val:
        assert len(data.val.image_ids) == 2


def test_a_set_one_folder_down_is_read_and_two_are_named(tmp_path: Path) -> None:
    write_set(tmp_path / "set/export-3", document())
    (tmp_path / "set/README.txt").write_text("unpacked")
    assert len(task_data(tmp_path / "set", tmp_path / "cache").train.image_ids) == 6
    write_set(tmp_path / "set/export-4", document())
    with pytest.raises(UserError, match=r"export-3.*export-4"):
        _ = task_data(tmp_path / "set", tmp_path / "cache").train


def test_explicit_paths_of_train_are_enough_for_a_search(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document())
    paths = {
        "train_annotations": str(folder / "annotations/instances_train.json"),
        "train_images": str(folder / "images"),
    }
    data = TaskData(DataConfig(folder="", cache_folder=str(tmp_path / "cache"), **paths), 96)
    assert len(data.train.image_ids) == 6
    with pytest.raises(UserError, match=r"val_annotations is not set.*a search needs none"):
        _ = data.val
    with pytest.raises(UserError, match="give all four, the two of train, or none"):
        DataConfig(train_images="x")


NAMES: dict[str, tuple[Callable[[int], str], Callable[[int], str], str]] = {
    "backslashes": (lambda i: f"a\\b\\{i}.png", lambda i: f"a/b/{i}.png", "backslashes, read as slashes"),
    "URL": (lambda i: f"my%20photo%20%C3%A9{i}.png", lambda i: f"my photo é{i}.png", "URL encoding, decoded"),
    "leading": (lambda i: f"images/train/{i}.png", lambda i: f"{i}.png", "leading folders"),
    "below": (lambda i: f"{i}.png", lambda i: f"sub/{i}.png", "sub-folder that the file is in"),
    "case": (lambda i: f"{i}.JPG", lambda i: f"{i}.jpg", "another case or Unicode form"),
    "NFD": (
        lambda i: unicodedata.normalize("NFC", f"Übung{i}.png"),
        lambda i: unicodedata.normalize("NFD", f"Übung{i}.png"),
        "another case or Unicode form",
    ),
}


@pytest.mark.parametrize("kind", NAMES)
def test_files_whose_names_are_written_in_another_way_are_found(kind: str, tmp_path: Path) -> None:
    written, stored, words = NAMES[kind]
    found = document()
    for number, image in enumerate(found["images"]):
        image["file_name"] = written(number)
    write_json(tmp_path / "set/annotations/instances_train.json", found)
    write_images(tmp_path / "set/images", [stored(number) for number in range(6)])
    data = task_data(tmp_path / "set", tmp_path / "cache")
    assert any(words in sentence and ": 6 of 6" in sentence for sentence in said(data)), said(data)


def test_a_file_that_is_there_under_its_written_name_is_never_looked_for_elsewhere(tmp_path: Path) -> None:
    found = document()
    found["images"][0]["file_name"] = "%31.png"
    write_json(tmp_path / "set/annotations/instances_train.json", found)
    write_images(tmp_path / "set/images", ["%31.png", *(f"{i}.png" for i in range(1, 6))])
    assert said(task_data(tmp_path / "set", tmp_path / "cache")) == []


@pytest.mark.parametrize("sides", [("width",), ("width", "height")])
def test_a_missing_size_comes_from_the_file(sides: tuple[str, ...], tmp_path: Path) -> None:
    found = document()
    for image in found["images"][:4]:
        for side in sides:
            image.pop(side)
    data = task_data(write_set(tmp_path / "set", found), tmp_path / "cache")
    assert any("read from the image files: 4 of 6" in sentence for sentence in said(data))
    assert data.train.widths.tolist() == [WIDTH] * 6


def runs(box: tuple[int, int, int, int], *, compressed: bool) -> dict[str, Any]:
    """Return the run lengths of a filled box."""
    x, y, width, height = box
    filled = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    filled[y : y + height, x : x + width] = 1
    if compressed:
        found = mask.encode(filled)
        return {"size": [HEIGHT, WIDTH], "counts": found["counts"].decode()}
    flat = filled.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *changes.tolist(), flat.size]).tolist()}


def polygon(box: tuple[int, int, int, int]) -> list[list[int]]:
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


OUTLINES: dict[str, Callable[[tuple[int, int, int, int]], Any]] = {
    "polygon": polygon,
    "flat polygon": lambda box: polygon(box)[0],
    "runs": lambda box: runs(box, compressed=False),
    "compressed runs": lambda box: runs(box, compressed=True),
}


@pytest.mark.parametrize("kind", OUTLINES)
def test_a_missing_box_comes_from_the_outline(kind: str, tmp_path: Path) -> None:
    found = document(BOXES)
    for entry in found["annotations"][::2]:
        entry["segmentation"] = OUTLINES[kind](tuple(entry.pop("bbox")))
    data = task_data(write_set(tmp_path / "set", found), tmp_path / "cache")
    assert any("taken from the outline, because there is no bbox: 6 of 12" in sentence for sentence in said(data))
    assert boxes(data) == boxes(plain(tmp_path))


@pytest.mark.parametrize("area", [-3.5, float("nan"), 1e12])
@pytest.mark.parametrize("outline", [None, "polygon"])
def test_an_area_that_coco_does_not_count_comes_from_the_outline_or_the_box(
    area: float, outline: str | None, tmp_path: Path
) -> None:
    found = document(BOXES)
    for entry in found["annotations"][:5]:
        entry["area"] = area
        if outline:
            x, y, width, height = entry["bbox"]
            entry["segmentation"] = polygon((x, y, width // 2, height))
    data = task_data(write_set(tmp_path / "set", found), tmp_path / "cache")
    assert any("areas" in sentence and "5 of 12" in sentence for sentence in said(data)), said(data)
    share = 0.5 if outline else 1.0
    expected = [width * height for _, _, width, height in boxes(data)]
    assert data.train.areas[5:].tolist() == expected[5:]
    assert data.train.areas[:5].tolist() == pytest.approx([share * area for area in expected[:5]], rel=0.05)


@pytest.mark.parametrize(
    ("change", "value"), [("id", float), ("image_id", float), ("iscrowd", lambda _: None), ("group", lambda _: None)]
)
def test_whole_numbers_and_null_as_tools_write_them_are_taken(
    change: str, value: Callable[[Any], Any], tmp_path: Path
) -> None:
    found = document()
    for entry in [*found["images"], *found["annotations"]]:
        if change in entry or change == "group":
            entry[change] = value(entry.get(change))
    data = task_data(write_set(tmp_path / "set", found), tmp_path / "cache")
    assert said(data) == []
    assert data.train.fingerprint == plain(tmp_path).train.fingerprint


def test_boxes_drawn_backwards_are_turned_round(tmp_path: Path) -> None:
    found = document(BOXES)
    for number, entry in enumerate(found["annotations"]):
        x, y, width, height = entry["bbox"]
        if number % 4 == 1:
            entry["bbox"] = [x + width, y, -width, height]
        if number % 4 == 2:
            entry["bbox"] = [x + width, y + height, -width, -height]
    data = task_data(write_set(tmp_path / "set", found), tmp_path / "cache")
    assert any("turned round: 6 of 12" in sentence for sentence in said(data))
    assert boxes(data) == boxes(plain(tmp_path))


FORMATS: dict[str, tuple[Callable[..., list[float]], str]] = {
    "corners": (lambda x, y, w, h: [x, y, x + w, y + h], r"look like corners, \[x1, y1, x2, y2\]"),
    "shares": (lambda x, y, w, h: [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT], "look like shares of the image"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_boxes_in_another_format_are_refused_with_its_name(kind: str, tmp_path: Path) -> None:
    found = document(((30, 22, 30, 20), (40, 15, 35, 40)))
    for entry in found["annotations"]:
        entry["bbox"] = FORMATS[kind][0](*entry["bbox"])
    with pytest.raises(UserError, match=FORMATS[kind][1]):
        said(task_data(write_set(tmp_path / "set", found), tmp_path / "cache"))


def test_a_few_boxes_outside_are_counted_and_read(tmp_path: Path) -> None:
    found = document(BOXES)
    found["annotations"][3]["bbox"] = [50, 40, 60, 60]
    (sentence,) = said(task_data(write_set(tmp_path / "set", found), tmp_path / "cache"))
    assert "boxes clipped to their image: 1 of 12" in sentence


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_displayed_size_says_that_an_image_is_annotated_upright(orientation: int, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document(((10, 12, 30, 20),)))
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    for path in (folder / "images").iterdir():
        with Image.open(path) as image:
            upright = image.copy()
        upright.paste((250, 10, 10), (10, 12, 40, 32))
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright.transpose(undo).save(path, exif=exif)
    data = task_data(folder, tmp_path / "cache", exif="displayed")
    assert any("turned upright by their EXIF orientation" in sentence for sentence in said(data))
    red = pixels(data)[:, :, :, 0] > 230
    assert red[:, round(14 * 1.2) : round(30 * 1.2), round(12 * 1.2) : round(38 * 1.2)].mean() > 0.95
    unsaid = task_data(folder, tmp_path / "cache")
    turned = "turned upright" in said(unsaid)[0]
    assert turned == (orientation != 3), "sizes tell for a quarter turn, and nothing tells for a half"


def test_pictures_with_twelve_of_sixteen_bits_are_named_and_a_key_gives_their_depth(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document())
    levels = np.linspace(0, 4095, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    for number, path in enumerate((folder / "images").iterdir()):
        Image.fromarray(np.roll(levels, number)).save(path)
    dark, right = task_data(folder, tmp_path / "cache"), task_data(folder, tmp_path / "cache", bit_depth=12)
    assert any("almost black: 6 of 6" in sentence and "task.data.bit_depth" in sentence for sentence in said(dark))
    assert pixels(dark).max() < 20
    assert said(right) == []
    assert pixels(right).max() > 250


def test_an_image_above_the_limit_is_refused_with_the_key(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document())
    with pytest.raises(
        UserError, match=r"megapixels, more than .*; save it smaller, or raise task.data.max_megapixels to 1"
    ):
        said(task_data(folder, tmp_path / "cache", max_megapixels=0.001))


def test_objects_too_small_at_the_size_of_the_task_are_counted(tmp_path: Path) -> None:
    data = task_data(write_set(tmp_path / "set", document(((10, 12, 1.2, 20), (40, 5, 25, 45)))), tmp_path / "cache")
    (sentence,) = said(data)
    assert "objects narrower than 2 px at 96 px: 6 of 12" in sentence


def test_a_set_of_crowds_is_refused(tmp_path: Path) -> None:
    found = document()
    for entry in found["annotations"]:
        entry["iscrowd"] = 1
    with pytest.raises(UserError, match="all 12 are crowds"):
        said(task_data(write_set(tmp_path / "set", found), tmp_path / "cache"))


def test_val_with_other_names_is_refused_and_with_other_ids_matched(tmp_path: Path) -> None:
    val = document(num_images=2)
    val["categories"] = [{"id": 5, "name": "stone"}, {"id": 9, "name": "leaf"}]
    for entry in val["annotations"]:
        entry["category_id"] = {1: 9, 2: 5}[entry["category_id"]]
    folder = write_set(tmp_path / "set", document(), val)
    data = task_data(folder, tmp_path / "cache")
    assert data.val.labels.tolist() == [1, 2, 1, 2]
    assert "matched by name" in data.val.findings[0].what
    val["categories"][0]["name"] = "pebble"
    write_json(folder / "annotations/instances_val.json", val)
    with pytest.raises(UserError, match="'pebble'"):
        _ = task_data(folder, tmp_path / "cache").val


@pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png", "x" * 300 + ".png"])
def test_a_file_name_that_no_system_can_have_is_one_sentence(name: str, tmp_path: Path) -> None:
    found = document()
    found["images"][2]["file_name"] = name
    folder = write_set(tmp_path / "set", found)
    with pytest.raises(UserError) as caught:
        said(task_data(folder, tmp_path / "cache"))
    assert "\n" not in str(caught.value)


def test_findings_are_kept_with_the_caches(tmp_path: Path) -> None:
    found = document()
    found["images"][1].pop("width")
    folder = write_set(tmp_path / "set", found)
    first = said(task_data(folder, tmp_path / "cache"))
    assert first
    shutil.rmtree(folder / "images/nothing", ignore_errors=True)
    assert said(task_data(folder, tmp_path / "cache")) == first
    assert json.loads((folder / "annotations/instances_train.json").read_text()) == found


def _without_categories(found: dict[str, Any]) -> None:
    del found["categories"]


def _of_an_unknown_category(found: dict[str, Any]) -> None:
    found["annotations"][3]["category_id"] = 7


def _of_an_unknown_image(found: dict[str, Any]) -> None:
    found["annotations"][3]["image_id"] = 70


def _hardly_labelled(found: dict[str, Any]) -> None:
    found["annotations"] = [entry for entry in found["annotations"] if entry["image_id"] == 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_categories, r'no list .categories.; add it, with an entry such as ."id": 1, '),
        (_of_an_unknown_category, r"category 7, .* \(their ids are 1, 2\); add the category to the list, or correct"),
        (_of_an_unknown_image, r"of image 70, which is not in the list of images; export both lists together"),
        (_hardly_labelled, r"as 5 of the 6 images have no object; label more images, or choose another task\.data"),
    ],
)
def test_a_refusal_names_what_is_wrong_and_what_to_do(
    change: Callable[[dict[str, Any]], None], words: str, tmp_path: Path
) -> None:
    found = document()
    change(found)
    with pytest.raises(UserError, match=words):
        said(task_data(write_set(tmp_path / "set", found), tmp_path / "cache"))


def test_areas_of_0_are_said_with_what_to_do(tmp_path: Path) -> None:
    found = document()
    for entry in found["annotations"]:
        entry["area"] = 0
    (sentence,) = said(task_data(write_set(tmp_path / "set", found), tmp_path / "cache"))
    assert sentence.startswith("areas of 0, which COCO counts as small: 12 of 12")
    assert sentence.endswith("; leave out area to have it taken from the box")


def test_what_is_wrong_with_val_is_said_without_a_count(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document())
    (folder / "annotations/instances_val.json").write_text("{")
    (found,) = task_data(folder, tmp_path / "cache").findings(with_val=False)
    assert found.sentence.startswith(f"val cannot be used: {folder}/annotations/instances_val.json is not valid JSON")
    assert found.sentence.endswith("; a search runs without val, validate and replay do not")
