"""Images that show one picture or scene are one image or one group, so that no hold-out separates them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import document, task_data, write_images, write_json
from PIL import Image

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data.splits.grouping import source_name
from spinenas.proxy_task.data.splits.identical_files import same_bytes
from spinenas.proxy_task.task_data import TaskData
from spinenas.space.errors import UserError

BOXES = ((10, 12, 30, 20), (40, 5, 25, 45))


def write(folder: Path, names: list[str], boxes: Any = BOXES, **keys: list[Any]) -> Path:
    """Write a train split with an entry for each name; `keys` are further fields of the entries."""
    found = document(boxes, num_images=len(names))
    for row, (image, name) in enumerate(zip(found["images"], names, strict=True)):
        image["file_name"] = name
        image.update({key: values[row] for key, values in keys.items()})
    write_json(folder / "annotations/instances_train.json", found)
    write_images(folder / "images", sorted(set(names)))
    return folder


def whats(data: TaskData) -> list[tuple[str, int, int]]:
    return [(finding.what, finding.count, finding.total) for finding in data.train.findings]


def together(data: TaskData) -> list[list[int]]:
    """Return the rows of each group of several images."""
    groups = data.train.groups
    return [rows for name in dict.fromkeys(groups) if len(rows := [i for i, g in enumerate(groups) if g == name]) > 1]


def test_entries_of_one_file_become_one_image_with_all_its_boxes(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [*(f"{i}.png" for i in range(6)), "./2.png", "4.png"])
    data = task_data(folder, tmp_path / "cache")
    assert data.train.image_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert np.diff(data.train.box_offsets).tolist() == [2] * 6, "exact repetitions are dropped"
    assert whats(data) == [
        ("image entries of a file that another entry names, merged into one image", 2, 8),
        ("boxes dropped, exact repetitions of a box in another entry of their file", 4, 16),
    ]
    assert data.train.findings[1].first == "annotation 13"


def one_box_per_entry(second: tuple[float, float, float, float]) -> dict[str, Any]:
    """Return entries 1 to 6 with one box each, and an entry 7 of the file of entry 3 with another box."""
    found = document(BOXES[:1], num_images=7)
    found["images"][6]["file_name"] = "2.png"
    found["annotations"][6]["bbox"] = list(second)
    return found


def test_boxes_of_merged_entries_are_all_kept_at_their_image(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(7)])
    write_json(folder / "annotations/instances_train.json", one_box_per_entry((50, 30, 10, 10)))
    train = task_data(folder, tmp_path / "cache").train
    assert np.diff(train.box_offsets).tolist() == [1, 1, 2, 1, 1, 1]
    assert train.annotation_ids.tolist() == [1, 2, 3, 7, 4, 5, 6]
    assert [len(each) for each in (train.file_names, train.groups, train.written_names)] == [6, 6, 6]


def test_merged_entries_keep_the_names_that_the_annotation_file_gives_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", ["0.png", "1.png", "0.png"])
    path = folder / "annotations/instances_train.json"
    path.write_text(path.read_text().replace(".png", ".PNG"))
    train = task_data(folder, tmp_path / "cache").train
    assert (list(train.file_names), list(train.written_names)) == (["0.png", "1.png"], ["0.PNG", "1.PNG"])


def test_boxes_that_nearly_repeat_one_of_another_entry_stay_and_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(7)])
    write_json(folder / "annotations/instances_train.json", one_box_per_entry((10, 12, 30, 20.5)))
    data = task_data(folder, tmp_path / "cache")
    assert len(data.train.labels) == 7
    assert whats(data)[1] == ("boxes that nearly repeat a box in another entry of their file", 1, 7)
    assert data.train.findings[1].first == "annotation 7"


def test_boxes_that_one_entry_repeats_itself_are_not_touched(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(6)], boxes=(BOXES[0], BOXES[1], BOXES[0]))
    data = task_data(folder, tmp_path / "cache")
    assert len(data.train.labels) == 18
    assert whats(data) == []


def test_entries_of_a_file_that_differ_in_size_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", ["0.png", "1.png", "0.png"], width=[80, 80, 90])
    with pytest.raises(UserError, match=r"0\.png and differ in its size: image 1 says 80 x 60 px and image 3 says 90"):
        _ = task_data(folder, tmp_path / "cache").train


def test_merged_entries_join_the_groups_that_the_annotation_file_gives_them(tmp_path: Path) -> None:
    names = ["0.png", "1.png", "2.png", "3.png", "0.png"]
    folder = write(tmp_path / "set", names, group=["a", "b", "c", "b", "c"])
    assert together(task_data(folder, tmp_path / "cache")) == [[0, 2], [1, 3]]


def test_files_with_the_same_bytes_are_one_group(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(8)])
    shutil.copy(folder / "images/1.png", folder / "images/5.png")
    shutil.copy(folder / "images/1.png", folder / "images/7.png")
    data = task_data(folder, tmp_path / "cache")
    assert together(data) == [[1, 5, 7]]
    assert whats(data) == [("images with the same bytes as an earlier one, never separated by the hold-out", 2, 8)]
    assert data.train.findings[0].first == "5.png, like 1.png"


def test_files_of_equal_size_with_other_bytes_are_not_the_same(tmp_path: Path) -> None:
    middle, end = bytearray(20_000), bytearray(20_000)
    middle[10_000] = end[-1] = 1  # a difference in the piece that is read first, and outside it
    contents = [bytes(20_000), bytes(middle), bytes(end), bytes(20_000)]
    paths = [tmp_path / str(row) for row in range(4)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    missing = [str(tmp_path / "missing"), str(tmp_path / "nul\0")] * 2
    assert same_bytes([*map(str, paths), *missing], tmp_path).tolist() == [0, 1, 2, 0, 4, 5, 6, 7]


def test_a_changed_file_is_compared_again(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"same")
    assert same_bytes([*map(str, paths)], tmp_path).tolist() == [0, 0]
    paths[1].write_bytes(b"other")
    assert same_bytes([*map(str, paths)], tmp_path).tolist() == [0, 1]


def test_versions_of_a_picture_by_roboflow_are_one_group(tmp_path: Path) -> None:
    names = [f"{frame}_jpg.rf.{version * 8}.jpg" for frame in ("cat", "dog", "cow") for version in "0af"]
    data = task_data(write(tmp_path / "set", names), tmp_path / "cache", held_out_images=5)
    assert together(data) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert whats(data)[0][1:] == (6, 9)
    assert data.reward_rows.tolist() in ([0, 1, 2], [3, 4, 5], [6, 7, 8])


@pytest.mark.parametrize("name", ["cat.jpg", "cat.rf.jpg", "cat.rf.12.jpg", ".rf.0123456789abcdef.jpg"])
def test_other_names_are_no_versions_by_roboflow(name: str) -> None:
    assert source_name(name) is None


FRAMES = [f"video_{video}/frame_{frame}.png" for video in "ab" for frame in range(4)] + ["logo.png", "cover.png"]


@pytest.mark.parametrize("pattern", [r"video_(\w)/", r"video_\w"])
def test_a_pattern_makes_the_frames_of_a_video_one_group(pattern: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "set", FRAMES)
    data = task_data(folder, tmp_path / "cache", group_pattern=pattern, held_out_images=5)
    assert together(data) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    reward = set(data.reward_rows.tolist())
    assert all(len(reward & video) in (0, 4) for video in ({0, 1, 2, 3}, {4, 5, 6, 7}))
    assert whats(data) == [("images whose name task.data.group_pattern does not match, each a group of its own", 2, 10)]
    assert data.fingerprint["hold_out"] == "by picture"


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(UserError, match=r"group_pattern is 'frame\(', which is no regular expression"):
        DataConfig(group_pattern="frame(")


def test_a_pattern_that_matches_no_name_is_refused(tmp_path: Path) -> None:
    data = task_data(write(tmp_path / "set", FRAMES), tmp_path / "cache", group_pattern="clip_")
    with pytest.raises(UserError, match=r"group_pattern is 'clip_', which matches none of the 10 file names, such as"):
        _ = data.train


def test_groups_of_the_annotation_file_are_never_separated(tmp_path: Path) -> None:
    groups = ["scene 1", "scene 1", "scene 2", "scene 2", "scene 2", None, None, None]
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(8)], group=groups)
    for count in range(2, 7):
        data = task_data(folder, tmp_path / "cache", held_out_images=count)
        reward = set(data.reward_rows.tolist())
        assert 0 < len(reward) <= count
        assert all(reward >= scene or not reward & scene for scene in ({0, 1}, {2, 3, 4}))
    assert together(data) == [[0, 1], [2, 3, 4]]
    assert "hold_out" not in data.fingerprint, "the annotation file itself says so"


def test_groups_of_the_file_and_copies_join(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(6)], group=["a", "a", "b", "b", None, None])
    shutil.copy(folder / "images/1.png", folder / "images/3.png")
    Image.new("RGB", (80, 60)).save(folder / "images/4.png")
    assert together(task_data(folder, tmp_path / "cache")) == [[0, 1, 2, 3]]
