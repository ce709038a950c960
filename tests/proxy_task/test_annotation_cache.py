"""The annotation cache: equal to the files, built once per machine, and robust against damage and kills."""

from __future__ import annotations

import json
import logging
import mmap
import signal
import subprocess
import sys
import textwrap
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_fixtures import shared_folder

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data import annotations as coco
from spinenas.proxy_task.data.annotation_files import annotation_cache
from spinenas.proxy_task.data.annotation_files.annotation_cache import StringArray, open_annotations
from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotation_files.layout import find_split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.splits.subsets import hold_out
from spinenas.space.errors import UserError

DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "width": 20, "height": 50, "group": "szene ü"},
        {"id": 3, "file_name": 'a " ü😀.jpg', "width": 60, "height": 80},
        {"id": 9, "file_name": "empty.jpg", "width": 10, "height": 10},
    ],
    "annotations": [
        {"id": 50, "image_id": 7, "category_id": 90, "bbox": [1, 2, 30, 40], "area": 700.5, "iscrowd": 0},
        {"id": 40, "image_id": 3, "category_id": 2, "bbox": [5.5, 6, 7, 8], "area": 56, "iscrowd": 1},
        {"id": 60, "image_id": 7, "category_id": 2, "bbox": [10, 10, 0.25, 5], "area": 1.25, "iscrowd": 0},
        {"id": 61, "image_id": 7, "category_id": 2, "bbox": [10, 10, 0, 5], "area": 0, "iscrowd": 0},
    ],
    "categories": [{"id": 90, "name": "toothbrush ü"}, {"id": 2, "name": "bicycle"}],
}
FINGERPRINT = "54235e5b904b846a6e80ca988a668b8e91b1c3a791383f6173ded5220f4df9b1"
"""Computed before the cache existed; task keys of existing runs depend on it."""

FINDINGS = (
    Finding("boxes dropped, zero size", 1, 4, "annotation 61"),
    Finding("boxes clipped to their image", 1, 4, "annotation 50"),
)


def write(folder: Path, document: Any = DOCUMENT) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return path


def entry(root: Path) -> Path:
    """Return the only entry of a cache."""
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    return folder


def assert_same(ours: Annotations, theirs: Annotations) -> None:
    """Compare every field, and the types of arrays."""
    for field in fields(Annotations):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype, field.name
            assert np.array_equal(one, other), field.name
        else:
            assert (tuple(one) == tuple(other)) if field.name in ("file_names", "groups") else one == other, field.name


def test_cached_annotations_equal_those_of_the_file_and_have_its_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path)
    read = read_annotations(path, tmp_path)
    for _ in range(2):
        opened = open_annotations(path, tmp_path, tmp_path / "cache")
        assert_same(opened, read)
        assert opened.fingerprint == read.fingerprint == FINGERPRINT
    assert_same(opened.subset(np.array([2, 1])), read.subset(np.array([2, 1])))


@pytest.mark.parametrize("piece", [1, 2, 3])
def test_a_fingerprint_does_not_depend_on_the_chunk_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(coco, "CHUNK", piece)
    assert open_annotations(write(tmp_path), tmp_path, tmp_path / "cache").fingerprint == FINGERPRINT


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("aquarium", "55bcfc152c43225074f634bb329fcca50f7cc91b42e90221f56dfbeaa7d2756a"),
        ("coco_permissive", "14e438eba0a4b283aca67433d787fc6fb7ca45f3a80b62d164cfc7e771505d09"),
        ("digits_multiscale", "bb501760f942dedb10da164e974da458357de993151a6fd16cc1b5570f3a6706"),
    ],
)
def test_cached_annotations_of_a_real_data_set_equal_those_of_its_file(
    tmp_path: Path, name: str, fingerprint: str
) -> None:
    paths = find_split(DataConfig(folder=str(shared_folder("data") / name)), "train")
    opened = open_annotations(paths.annotations, paths.images, tmp_path)
    assert_same(opened, read_annotations(paths.annotations, paths.images))
    assert opened.fingerprint == fingerprint


def test_a_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    first = open_annotations(path, tmp_path, tmp_path / "cache")
    monkeypatch.setattr(annotation_cache, "parse_annotations", None)
    assert_same(open_annotations(path, tmp_path, tmp_path / "cache"), first)


def test_an_entry_depends_on_the_content_of_the_file_but_not_on_its_path_or_images_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, root = write(tmp_path), tmp_path / "cache"
    open_annotations(path, tmp_path, root)
    moved = path.rename(tmp_path / "moved.json")
    with monkeypatch.context() as patch:
        patch.setattr(annotation_cache, "parse_annotations", None)
        opened = open_annotations(moved, tmp_path / "elsewhere", root)
    assert opened.images_folder == tmp_path / "elsewhere"
    document = json.loads(moved.read_text())
    document["images"][1]["width"] = 61
    assert open_annotations(write(tmp_path, document), tmp_path, root).widths.tolist() == [61, 20, 10]


def test_every_array_is_mapped_from_the_cache_and_cannot_be_written_to(tmp_path: Path) -> None:
    path, root = write(tmp_path), tmp_path / "cache"
    opened = open_annotations(path, tmp_path, root)
    arrays = [getattr(opened, field.name) for field in fields(Annotations)]
    arrays = [array for array in arrays if isinstance(array, np.ndarray)]
    for names in (opened.file_names, opened.groups):
        assert isinstance(names, StringArray)
        arrays += [names.utf8, names.offsets]
    assert len(arrays) == len(list(entry(root).glob("*.npy")))
    for array in arrays:
        assert not array.flags.writeable
        while isinstance(array, np.ndarray):
            array = array.base
        assert isinstance(array, mmap.mmap)


def test_dropped_and_clipped_boxes_are_logged_at_every_opening(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path)
    for _ in range(3):
        caplog.clear()
        opened = open_annotations(path, tmp_path, tmp_path / "cache")
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
            (logging.WARNING, f"{path}: {finding.sentence}") for finding in FINDINGS
        ]
        assert opened.findings == FINDINGS


@pytest.mark.parametrize("damage", ["a bit", "the end", "all of it", "the file"])
def test_an_entry_with_any_damage_is_built_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path, root = write(tmp_path), tmp_path / "cache"
    whole = open_annotations(path, tmp_path, root)
    names = sorted(file.name for file in entry(root).iterdir())
    assert len(names) == 16
    for name in names:
        file = entry(root) / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        if damage == "a bit":
            file.write_bytes(content)
        elif damage == "the file":
            file.unlink()
        else:
            file.write_bytes(content[:-1] if damage == "the end" else b"")
        caplog.clear()
        assert_same(open_annotations(path, tmp_path, root), whole)
        assert "is damaged and was built again" in caplog.text
    caplog.clear()
    assert_same(open_annotations(path, tmp_path, root), whole)
    assert "built again" not in caplog.text


def test_a_process_that_has_a_damaged_entry_open_keeps_it_while_another_rebuilds_it(tmp_path: Path) -> None:
    path, root = write(tmp_path), tmp_path / "cache"
    before = open_annotations(path, tmp_path, root)
    (entry(root) / "sha256").write_text("")
    after = open_annotations(path, tmp_path, root)
    assert before.boxes_xywh.base is not after.boxes_xywh.base
    assert_same(before, after)


@pytest.mark.parametrize("step", [0, 1, 7, 13, 14, 15, 16])
def test_a_builder_killed_at_any_step_leaves_no_entry_that_looks_complete(tmp_path: Path, step: int) -> None:
    """The steps are 14 arrays, two other files and the renaming."""
    path = write(tmp_path)
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        import numpy as np
        from spinenas.proxy_task.data.annotation_files.annotation_cache import open_annotations
        steps = iter(range(17))
        def or_die(do):
            def step(*args, **options):
                if next(steps) == {step}:
                    os.kill(os.getpid(), signal.SIGKILL)
                return do(*args, **options)
            return step
        np.save, Path.write_text, os.replace = or_die(np.save), or_die(Path.write_text), or_die(os.replace)
        folder = Path({str(tmp_path)!r})
        open_annotations(folder / "instances.json", folder, folder / "cache")
    """)
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "cache").glob("*.partial")
    assert len(list(left.iterdir())) == step
    assert_same(open_annotations(path, tmp_path, tmp_path / "cache"), read_annotations(path, tmp_path))
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to the cache folder .*task\.data\.cache_folder"):
        open_annotations(write(tmp_path), tmp_path, tmp_path / "file" / "cache")


def test_an_entry_on_a_read_only_disk_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, root = write(tmp_path), tmp_path / "cache"
    first = open_annotations(path, tmp_path, root)

    def read_only(*args: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert_same(open_annotations(path, tmp_path, root), first)
    with pytest.raises(UserError, match=r"cannot write to the cache folder .*Read-only file system"):
        open_annotations(path, tmp_path, tmp_path / "elsewhere")


def test_a_full_disk_is_reported_in_one_sentence_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"cannot write the annotations into the cache .*No space left on device"):
        open_annotations(write(tmp_path), tmp_path, tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    parse = annotation_cache.parse_annotations

    def change_and_parse(*args: Any, **options: Any) -> Annotations:
        path.write_text(path.read_text().replace("700.5", "700.6"))
        return parse(*args, **options)

    monkeypatch.setattr(annotation_cache, "parse_annotations", change_and_parse)
    with pytest.raises(UserError, match="was changed while it was read"):
        open_annotations(path, tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(("content", "words"), [("{", "not valid JSON"), ("{}", "no list 'images'")])
def test_an_invalid_file_is_refused_every_time(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    for _ in range(2):
        with pytest.raises(UserError, match=words):
            open_annotations(path, tmp_path, tmp_path / "cache")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.json"):
        open_annotations(tmp_path / "none.json", tmp_path, tmp_path / "cache")


def test_a_string_array_behaves_like_a_tuple_of_any_strings_that_json_allows() -> None:
    strings = ("", "a", "ü😀", "\ud800", "with\0nul\0", "", "last")
    names = StringArray.of(strings)
    assert tuple(names) == strings
    assert len(names) == 7
    assert names[-1] == names[np.int64(6)] == "last"
    assert names[2:5] == strings[2:5]
    assert names[::-2] == strings[::-2]
    assert tuple(StringArray.of(())) == ()
    with pytest.raises(IndexError):
        names[7]


def test_held_out_images_are_the_same_whether_groups_are_strings_or_a_string_array(tmp_path: Path) -> None:
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 9, **({"group": f"g {i % 17}"} if i % 3 else {})}
        for i in range(100)
    ]
    boxes = [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [1, 1, 5, 5]} for i in range(100)]
    document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    opened = open_annotations(write(tmp_path, document), tmp_path, tmp_path / "cache")
    for count in (7, 20, 50):
        train, reward = hold_out(opened, count, "f")
        assert reward.tolist() == held_out_plainly(opened, count, "f")
        assert sorted([*train, *reward]) == list(range(100))


def held_out_plainly(annotations: Annotations, count: int, fingerprint: str) -> list[int]:
    """Do what `hold_out` does with dictionaries and lists."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(annotations.groups):
        members.setdefault(group, []).append(index)
    reward: list[int] = []
    for group in sorted(members, key=lambda group: sha256(f"{fingerprint}/{group}".encode()).digest()):
        if len(reward) + len(members[group]) <= count:
            reward.extend(members[group])
    return sorted(reward)
