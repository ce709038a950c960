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

from spinenas.proxy_task.contact_sheet import COLUMNS, MARGIN_PIXELS, TEXT_PIXELS, TILE_PIXELS
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
    assert "boxes with negative width or height, turned round" in result.stdout
    assert "val images whose file train lists too" in result.stdout
    assert result.stderr.count("figures on val say little") == 1
    assert "turned round" not in result.stderr, "the table says it"


def test_a_val_that_cannot_be_used_ends_with_its_reason_after_the_table(tmp_path: Path) -> None:
    val = document(num_images=2)
    val["categories"][0]["name"] = "twig"
    result = check(write_set(tmp_path / "set", document(num_images=6), val), *SMALL)
    assert result.exit_code == 1
    assert "train: boxes" in result.stdout
    assert "val cannot be used" in result.stderr
    assert "'twig'" in result.stderr


def test_a_set_smaller_than_a_batch_is_a_problem(tmp_path: Path) -> None:
    result = check(write_set(tmp_path / "set", document(num_images=3)))
    assert result.exit_code == 1
    assert "fewer than a batch of 8" in result.stderr


def test_the_picture_shows_each_image_with_its_boxes(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", document([(10, 12, 30, 20)], num_images=6))
    write_images(folder / "images", [f"{i}.png" for i in range(6)], (80, 60))
    plain, other = tmp_path / "plain.png", tmp_path / "augmented.png"
    assert check(folder, *SMALL, "--draw", plain, "--images", 4).exit_code == 0
    with Image.open(plain) as picture:
        step = TILE_PIXELS + MARGIN_PIXELS
        assert picture.size == (min(4, COLUMNS) * step + MARGIN_PIXELS, step + TEXT_PIXELS + MARGIN_PIXELS)
        pixels = np.asarray(picture).astype(int)
    scale = TILE_PIXELS / 80  # the long side of the image fills its tile
    left, bottom = round(MARGIN_PIXELS + 10 * scale), round(MARGIN_PIXELS + TEXT_PIXELS + 32 * scale)
    edge = pixels[bottom - 2, left + 40]
    assert tuple(edge) == (0xE6, 0x19, 0x4B), "the first category's colour lies on the lower edge of its box"
    jittered = (*SMALL, "--set", "task.train.scale_jitter=[0.5,0.6]")
    assert check(folder, *jittered, "--draw", other, "--images", 4, "--augmented").exit_code == 0
    with Image.open(other) as picture:
        assert not np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--draw", "sheet.svg"), "end it in .png"),
        (("--augmented",), "belong to the picture of --draw"),
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
