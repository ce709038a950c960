from __future__ import annotations

import os
from functools import partial

import pytest

from spinenas.results.storage.journal import Journal, read_events
from spinenas.results.storage.run_folder import RunFolder
from spinenas.space.errors import UserError

CONFIG = {"seed": 0, "space": {"name": "tiny"}}
RUN = {"versions": {"torch": "2.13.0"}}


def create(path):
    return RunFolder.create(path, "seed = 0\n", CONFIG, RUN)


def test_an_opened_run_folder_has_its_original_content(tmp_path):
    create(tmp_path / "a folder" / "run")
    folder = RunFolder.open(tmp_path / "a folder" / "run")
    assert (folder.path / "config.toml").read_text() == "seed = 0\n"
    assert folder.config() == CONFIG
    assert folder.run_info() == RUN
    assert list(read_events(folder.journal_path)) == []
    Journal.create(folder.journal_path).close()
    assert os.listdir(tmp_path / "a folder") == ["run"]


def test_a_run_may_take_an_empty_folder(tmp_path):
    (tmp_path / "run").mkdir()
    assert create(tmp_path / "run").config() == CONFIG


def test_an_occupied_folder_is_refused_and_unchanged(tmp_path):
    create(tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine too")

    def content():
        return {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    before = content()
    for name, message in {
        "run": "already holds a run",
        "full": "empty folder",
        "file": "empty folder",
    }.items():
        with pytest.raises(UserError, match=message):
            RunFolder.create(tmp_path / name, "", {"other": 1}, {})
    assert content() == before


def test_nothing_is_left_when_the_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose a folder that can be written"):
        create(tmp_path / "file" / "run")
    with pytest.raises(TypeError):
        RunFolder.create(tmp_path / "run", "", {"not JSON": object()}, {})
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_without_a_run_is_refused_with_the_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"is no run, it has no config\.json; name a folder"):
        RunFolder.open(tmp_path)
    create(tmp_path / "run").journal_path.unlink()
    with pytest.raises(UserError, match=r"no journal\.jsonl"):
        RunFolder.open(tmp_path / "run")


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_damaged_configuration_is_named(tmp_path, content):
    folder = create(tmp_path / "run")
    (folder.path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        folder.config()


@pytest.mark.parametrize("place", ["trials/000007", "trials/000007/curve.json", "replay.json"])
def test_a_path_that_cannot_be_written_is_named(tmp_path, place):
    folder = create(tmp_path / "run")
    taken = folder.path / place
    # These two cases fail even for root: a file in place of a folder, and a folder in place of a file.
    if place == "trials/000007":
        taken.write_text("")
    else:
        (taken / "in the way").mkdir(parents=True)
    write = partial(folder.write_replay, {}) if place == "replay.json" else partial(folder.write_curve, 7, ())
    with pytest.raises(UserError, match=f"cannot write .*{place}: .*; put that right") as caught:
        write()
    assert "\n" not in str(caught.value)


def test_a_curve_comes_back_and_a_trial_without_one_has_an_empty_one(tmp_path):
    folder = create(tmp_path / "run")
    curve = ({"loss": 2.0}, {"loss": 1.0, "AP": 0.1})
    folder.write_curve(7, curve)
    assert folder.read_curve(7) == curve
    assert folder.trial_folder(7) == tmp_path / "run" / "trials" / "000007"
    assert folder.read_curve(8) == ()
    assert not (tmp_path / "run" / "trials" / "000008").exists()
    assert os.listdir(folder.trial_folder(7)) == ["curve.json"]


def test_files_left_by_a_killed_process_with_the_same_pid_do_not_stop_a_new_run(tmp_path):
    (tmp_path / f".run.{os.getpid()}.partial" / "trials").mkdir(parents=True)
    create(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]
