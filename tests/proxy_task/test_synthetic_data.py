"""The built-in data set: the same bytes every time, exact boxes, and objects as described."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotation_files.layout import find_split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.synthetic import (
    MAX_OVERLAP,
    SHAPES,
    draw_image,
    ensure_built_in,
    generate_dataset,
)
from spinenas.space.random_streams import generator

SYNTHETIC = "spinenas.proxy_task.data.synthetic"


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set of 150 + 10 images of 128 px."""
    return ensure_built_in(tmp_path_factory.mktemp("cache"), 150, 10, 128)


@pytest.fixture(scope="module")
def train(built_in: Path) -> Annotations:
    paths = find_split(DataConfig(folder=str(built_in)), "train")
    return read_annotations(paths.annotations, paths.images)


def test_the_set_is_the_same_to_the_byte_and_another_seed_gives_another(tmp_path: Path) -> None:
    for name, seed in {"a": 3, "b": 3, "c": 4}.items():
        generate_dataset(tmp_path / name, num_train=4, num_val=2, image_size_pixels=96, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not set(digests(tmp_path / "a").values()) & set(digests(tmp_path / "c").values())


def test_a_larger_set_begins_with_the_images_of_a_smaller_one(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "small", num_train=2, num_val=1, seed=0)
    generate_dataset(tmp_path / "large", num_train=3, num_val=2, seed=0)
    small, large = digests(tmp_path / "small"), digests(tmp_path / "large")
    assert {name: digest for name, digest in small.items() if name.endswith("png")}.items() <= large.items()


def test_train_and_val_share_no_image(built_in: Path) -> None:
    images = [digest for name, digest in digests(built_in).items() if name.endswith("png")]
    assert len(set(images)) == len(images) == 160


def test_it_is_read_like_any_coco_data_set_without_repairs(train: Annotations) -> None:
    assert len(train.image_ids) == 150
    assert train.category_names == tuple(SHAPES)
    assert train.findings == ()
    assert (np.diff(train.box_offsets) >= 1).all()
    with Image.open(train.images_folder / train.file_names[0]) as image:
        assert (image.size, image.mode, image.format) == ((128, 128), "RGB", "PNG")


def test_every_class_is_common_and_sizes_are_spread_over_the_levels(train: Annotations) -> None:
    shares = np.bincount(train.labels, minlength=len(SHAPES) + 1)[1:] / len(train.labels)
    assert shares.min() > 0.5 / len(SHAPES)
    sizes = np.sqrt(train.boxes_xywh[:, 2:].prod(axis=1))
    assert np.quantile(sizes, 0.95) / np.quantile(sizes, 0.05) > 7
    octaves = np.histogram(sizes, bins=[8, 16, 32, 64, 128])[0] / len(sizes)
    assert octaves.min() > 0.06


def test_objects_overlap_little(train: Annotations) -> None:
    for first, last in zip(train.box_offsets, train.box_offsets[1:], strict=False):
        boxes = train.boxes_xywh[first:last]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
                overlap = np.maximum(sides, 0).prod() / min(a[2:].prod(), b[2:].prod())
                assert overlap <= MAX_OVERLAP


def test_a_box_is_the_bounding_box_of_the_pixels_that_the_object_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a uniform background, an object that is brighter by 100 shows how much of each pixel it covers."""
    monkeypatch.setattr(f"{SYNTHETIC}._background", lambda rng, side: np.full((side, side, 3), 99.0))
    for number in range(20):
        with monkeypatch.context() as patch:
            patch.setattr(f"{SYNTHETIC}._fill", lambda rng, colour, size: np.full((*size, 3), 99.0))
            plain, objects = draw_image(generator(5, "test", number), 128)
            patch.setattr(f"{SYNTHETIC}._fill", lambda rng, colour, size: np.full((*size, 3), 199.0))
            drawn, _ = draw_image(generator(5, "test", number), 128)
        percent_covered = drawn[:, :, 0].astype(int) - plain[:, :, 0]
        changed = percent_covered > 0
        assert percent_covered[changed].min() >= 50
        inside_a_box = np.zeros_like(changed)
        for _, (x, y, width, height) in objects:
            inside_a_box[y : y + height, x : x + width] = True
        assert not (changed & ~inside_a_box).any()
        for index, (_, (x, y, width, height)) in enumerate(objects):
            others = np.zeros_like(changed)
            for _, (x2, y2, width2, height2) in objects[:index] + objects[index + 1 :]:
                others[y2 : y2 + height2, x2 : x2 + width2] = True
            if not others[y : y + height, x : x + width].any():
                window = changed[y : y + height, x : x + width]
                assert window[0].any()
                assert window[-1].any()
                assert window[:, 0].any()
                assert window[:, -1].any()


def test_objects_differ_in_colour_from_their_background(built_in: Path, train: Annotations) -> None:
    """A disc or square covers the centre of its box, where its colour differs from the pixels just outside."""
    contrasts = []
    solid = [train.category_names.index(name) + 1 for name in ("disc", "square")]
    for image_index, first in enumerate(train.box_offsets[:-1]):
        pixels = np.asarray(Image.open(built_in / "images" / train.file_names[image_index])).astype(float)
        for row in range(first, train.box_offsets[image_index + 1]):
            x, y, width, height = train.boxes_xywh[row].astype(int)
            if train.labels[row] in solid and min(x, y) >= 3 and max(x + width, y + height) <= 125:
                middle = pixels[y + height // 2, x + width // 2]
                frame = pixels[y - 3 : y + height + 3, x - 3 : x + width + 3].copy()
                frame[3:-3, 3:-3] = np.nan
                contrasts.append(np.abs(middle - np.nanmean(frame, axis=(0, 1))).sum())
    assert min(contrasts) > 100


def test_the_built_in_set_is_written_once(built_in: Path) -> None:
    before = digests(built_in)
    marker = built_in / "images" / "train_00000.png"
    modified = marker.stat().st_mtime_ns
    assert ensure_built_in(built_in.parent, 150, 10, 128) == built_in
    assert digests(built_in) == before
    assert marker.stat().st_mtime_ns == modified


def test_every_parameter_of_the_set_is_in_the_name_of_its_folder(tmp_path: Path) -> None:
    folders = {ensure_built_in(tmp_path, *sizes) for sizes in [(2, 1, 96), (1, 1, 96), (1, 2, 96), (1, 1, 128)]}
    assert len(folders) == 4
    lengths = [
        len(json.loads((folder / "annotations" / "instances_train.json").read_text())["images"]) for folder in folders
    ]
    assert sorted(lengths) == [1, 1, 1, 2]
