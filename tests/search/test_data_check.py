"""`spinenas data check`: what it counts, what it finds, and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from data_sets import document, write_images, write_set
from PIL import Image

from spinenas.proxy_task.contact_sheet import (
    COLUMNS,
    MARGIN_PIXELS,
    PADDING,
    TEXT_PIXELS,
    TILE_PIXELS,
    TITLE_PIXELS,
    Part,
    shares,
)
from spinenas.search.cli.main import main

SMALL = ("--set", "task.train.batch_size=2")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPINENAS_CACHE", str(tmp_path / "cache"))


def check(*words: Any) -> Result:
    return CliRunner().invoke(main, ["data", "check", *map(str, words)], prog_name="spinenas")


def counts(folder: Path) -> dict[str, Any]:
    result = check(folder, *SMALL, "--json")
    assert result.exit_code == 0, result.stderr
    return {row["what"]: row["count"] for row in json.loads(result.stdout)}


def test_images_boxes_and_categories_are_counted(tmp_path: Path) -> None:
    found = document(num_images=6)
    found["annotations"] = [entry for entry in found["annotations"] if entry["image_id"] != 5]
    found["annotations"][0]["iscrowd"] = 1
    assert counts(write_set(tmp_path / "set", found)) == {
        "train: images": 6,
        "train: images without objects": 1,
        "train: boxes": 10,
        "train: boxes of crowds": 1,
        "train: objects of 'leaf'": 4,
        "train: objects of 'stone'": 5,
        "train: images to train on": 5,
        "train: reward images, held out": 1,
    }


def test_findings_of_both_splits_follow_the_counts_once(tmp_path: Path) -> None:
    train, val = document(num_images=6), document(num_images=2)
    train["annotations"][3]["bbox"] = [60, 12, -20, 20]
    folder = write_set(tmp_path / "set", train, val)
    result = check(folder, *SMALL)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].startswith("boxes with negative width or height, turned round"), "findings come first"
    assert ["what", "train", "val"] in [line.split() for line in lines]
    assert ["leaf", "6", "2"] in [line.split() for line in lines], "a category has one row for both splits"
    assert result.stderr.splitlines()[-1] == "2 findings, listed first"
    assert "val images whose file train lists too" in result.stdout
    assert result.stderr.count("figures on val say little") == 1
    assert "turned round" not in result.stderr, "the table says it"


def test_a_val_that_cannot_be_used_ends_with_its_reason_after_the_table(tmp_path: Path) -> None:
    val = document(num_images=2)
    val["categories"][0]["name"] = "twig"
    result = check(write_set(tmp_path / "set", document(num_images=6), val), *SMALL)
    assert result.exit_code == 1
    assert ["boxes", "12", "-"] in [line.split() for line in result.stdout.splitlines()]
    assert result.stderr.count("val cannot be used") == 1
    assert "'twig'" in result.stderr
    assert "a search runs without val" in result.stderr
    assert "nothing was found" not in result.stderr


def test_a_set_smaller_than_a_batch_is_a_problem(tmp_path: Path) -> None:
    result = check(write_set(tmp_path / "set", document(num_images=3)))
    assert result.exit_code == 1
    assert "fewer than a batch of 8" in result.stderr
    assert "nothing was found" not in result.stderr, "no all-clear above a refusal"


def test_the_output_begins_with_what_the_data_were_checked_for(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document(num_images=12))
    alone = check(folder).stderr.splitlines()[0]
    assert alone.startswith("checked for the preset quickstart: 128 px, batches of 8; for another: ")
    assert f"data check PRESET --data {folder}" in alone
    preset = check("coco-small", "--data", folder, "--set", "task.image_size_pixels=96").stderr.splitlines()[0]
    assert preset == "checked for the preset coco-small: 96 px, batches of 4"


def test_an_annotation_file_is_checked_alone(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document(num_images=6), document(num_images=4))
    result = check(folder / "annotations/instances_val.json", *SMALL, "--json")
    assert result.exit_code == 0, result.stderr
    found = {row["what"]: row["count"] for row in json.loads(result.stdout)}
    assert found["train: images"] == 4
    assert f"with the images in {folder / 'images'}" in result.stderr
    (tmp_path / "alone.json").write_text(json.dumps(document(num_images=2)))
    assert "no folder of images beside it" in check(tmp_path / "alone.json").stderr


def test_what_is_no_data_set_is_named_with_what_can_be_given(tmp_path: Path) -> None:
    result = check(tmp_path / "nothing")
    assert result.exit_code == 1
    assert f"{tmp_path / 'nothing'} does not exist; name a data set folder" in result.stderr
    assert "did you mean 'quickstart'?" in check("quickstrt").stderr
    (tmp_path / "yolo/labels").mkdir(parents=True)
    (tmp_path / "yolo/labels/0.txt").write_text("0 0.5 0.5 0.1 0.1")
    assert "looks like YOLO's format; export or convert it to COCO" in check(tmp_path / "yolo").stderr


def test_images_with_more_objects_than_detections_count_are_found(tmp_path: Path) -> None:
    boxes = [(i, j, 8, 8) for i in range(0, 72, 9) for j in range(0, 52, 9)]
    folder = write_set(tmp_path / "set", document(boxes, num_images=6))
    few = ("--set", f"task.eval.max_detections={len(boxes) - 1}")
    found = {row["what"]: row for row in json.loads(check(folder, *SMALL, *few, "--json").stdout) if row["finding"]}
    (row,) = (row for what, row in found.items() if what == f"images with more than {len(boxes) - 1} objects")
    assert (row["count"], row["of"]) == (6, 6)
    assert "task.eval.max_detections" in row["advice"]
    assert "more than" not in check(folder, *SMALL, "--set", f"task.eval.max_detections={len(boxes)}").stdout


def test_the_picture_shows_each_image_with_its_boxes(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document([(10, 12, 30, 20)], num_images=6))
    write_images(folder / "images", [f"{i}.png" for i in range(6)], (80, 60))
    plain, other = tmp_path / "plain.png", tmp_path / "augmented.png"
    assert check(folder, *SMALL, "--draw", plain, "--images", 4).exit_code == 0
    with Image.open(plain) as picture:
        step = TILE_PIXELS + MARGIN_PIXELS
        height = TITLE_PIXELS + step + TEXT_PIXELS + MARGIN_PIXELS
        assert picture.size == (min(4, COLUMNS) * step + MARGIN_PIXELS, height)
        pixels = np.asarray(picture).astype(int)
    scale = TILE_PIXELS / 80  # the long side of the image fills its tile
    top = TITLE_PIXELS + MARGIN_PIXELS + TEXT_PIXELS
    left, bottom = round(MARGIN_PIXELS + 10 * scale), round(top + 32 * scale)
    edge = pixels[bottom - 2, left + 40]
    assert tuple(edge) == (0xE6, 0x19, 0x4B), "the first category's colour lies on the lower edge of its box"
    assert tuple(pixels[top + TILE_PIXELS - 2, left]) == tuple(PADDING), "padding has the colour that networks see"
    jittered = (*SMALL, "--set", "task.train.scale_jitter=[0.5,0.6]")
    assert check(folder, *jittered, "--draw", other, "--images", 4, "--augmented").exit_code == 0
    with Image.open(other) as picture:
        augmented = np.asarray(picture)
    assert not np.array_equal(augmented, pixels)
    assert tuple(augmented[top + TILE_PIXELS - 2, left]) == tuple(PADDING)


def test_the_picture_has_images_of_all_splits_or_of_one(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document(num_images=6), document(num_images=2))
    said = check(folder, *SMALL, "--draw", tmp_path / "all.png").stderr
    assert "drew 5 of 5 training, 1 of 1 reward and 2 of 2 val images with their boxes" in said
    said = check(folder, *SMALL, "--draw", tmp_path / "val.png", "--split", "val", "--images", 1).stderr
    assert "drew 1 of 2 val images with" in said
    without = write_set(tmp_path / "without", document(num_images=6))
    result = check(without, *SMALL, "--draw", tmp_path / "no.png", "--split", "val")
    assert result.exit_code == 1
    assert "there is no val to draw" in result.stderr


@pytest.mark.parametrize(
    ("sizes", "num_images", "expected"),
    [
        ({"train": 8, "reward": 2, "val": 4}, 24, {"train": 8, "reward": 2, "val": 4}),
        ({"train": 90000, "reward": 20000, "val": 500}, 24, {"train": 19, "reward": 4, "val": 1}),
        ({"train": 40, "reward": 10}, 10, {"train": 8, "reward": 2}),
        ({"train": 40, "reward": 10, "val": 10}, 1, {"train": 1, "reward": 0, "val": 0}),
    ],
)
def test_the_parts_share_a_picture_in_proportion(
    sizes: dict[Part, int], num_images: int, expected: dict[Part, int]
) -> None:
    assert shares(sizes, num_images) == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--draw", "sheet.svg"), "end it in .png"),
        (("--augmented",), "--augmented belongs to the picture of --draw"),
        (("--split", "val", "--force"), "--split and --force belong to the picture of --draw"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_read(words: tuple[str, ...], sentence: str) -> None:
    result = check("no such folder", *words)
    assert result.exit_code in (1, 2)
    assert sentence in result.stderr


def test_an_existing_picture_is_kept_without_force(tmp_path: Path) -> None:
    folder, path = write_set(tmp_path / "set", document(num_images=6)), tmp_path / "sheet.png"
    path.write_bytes(b"mine")
    assert check(folder, *SMALL, "--draw", path).exit_code == 1
    assert path.read_bytes() == b"mine"
    assert check(folder, *SMALL, "--draw", path, "--force").exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
