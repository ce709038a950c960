"""Lines of Ray's libraries are kept in a file of the run, apart from a search's own output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spinenas.search.executors.raw_output import raw_output_in, separate_stderr

PROGRAM = """
import logging, os, sys
from contextlib import redirect_stdout
from pathlib import Path
from spinenas.search.executors.raw_output import raw_output_in, separate_stderr
logging.getLogger("ray").addHandler(logging.StreamHandler())
run = Path(sys.argv[1])
with {opened}:
    with raw_output_in(run) as settle:
        os.write(2, b"native, before the run exists\\n")
        print("of the search", file=sys.stderr)
        run.mkdir()
        settle()
        os.write(2, b"native, later\\n")
        print("printed by Ray")
        logging.getLogger("ray").error("logged by Ray")
    os.write(2, b"afterwards\\n")
"""


WITHOUT_LINES = """
import sys
from pathlib import Path
from spinenas.search.executors.raw_output import raw_output_in, separate_stderr
run = Path(sys.argv[1])
run.mkdir()
with separate_stderr():
    with raw_output_in(run) as settle:
        settle()
        assert (run / "ray.log").exists()
    with raw_output_in(run.parent / "never"):
        pass
"""


def said(program: str, run: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program, run], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_on_the_command_line_only_the_lines_of_the_search_are_printed(tmp_path: Path) -> None:
    program = PROGRAM.format(opened="separate_stderr(), redirect_stdout(sys.stderr)")
    assert said(program, tmp_path / "run") == "of the search\nafterwards\n"
    lines = (tmp_path / "run" / "ray.log").read_text().splitlines()
    assert lines[:3] == ["native, before the run exists", "native, later", "printed by Ray"]
    assert lines[3].endswith("logged by Ray")


def test_in_a_python_program_nothing_is_diverted(tmp_path: Path) -> None:
    assert "native, later" in said(PROGRAM.format(opened="open(os.devnull)"), tmp_path / "run")
    assert not (tmp_path / "run" / "ray.log").exists()


def test_a_file_without_lines_is_removed_and_a_run_that_never_began_leaves_none(tmp_path: Path) -> None:
    assert said(WITHOUT_LINES, tmp_path / "run") == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_within_a_test_that_captures_stderr_nothing_is_diverted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with separate_stderr(), raw_output_in(tmp_path) as settle:
        settle()
        os.write(2, b"native")
    assert capfd.readouterr().err == "native"
    assert not list(tmp_path.iterdir())
