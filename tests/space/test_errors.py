"""One place turns what the operating system refuses into a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spinenas.space.errors import UserError, explained_os_errors


def explained(path: Path) -> str:
    with pytest.raises(UserError) as caught, explained_os_errors("cannot read the file", "name another"):
        path.read_bytes()
    return str(caught.value)


def test_a_file_that_cannot_be_opened_is_explained_with_the_remedy(tmp_path: Path) -> None:
    assert explained(tmp_path) == "cannot read the file: Is a directory; name another"
    assert explained(tmp_path / ("a" * 300)) == "cannot read the file: File name too long; name another"


def test_a_path_that_no_system_can_have_is_explained_too(tmp_path: Path) -> None:
    assert explained(tmp_path / "a\0b") == "cannot read the file: the path contains the character NUL; name another"
    assert "of this system's file names has no character '\\udfff'; name another" in explained(tmp_path / "\udfff")


def test_a_system_error_without_a_number_is_explained_by_its_text() -> None:
    with pytest.raises(UserError, match=r"^p: the disk is away; r$"), explained_os_errors("p", "r"):
        raise OSError("the disk is away")


@pytest.mark.parametrize("error", [ValueError("an embedded null"), UserError("a sentence"), KeyError("x")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explained_os_errors("p", "r"):
        raise error
    assert caught.value is error


def test_the_sentence_keeps_the_error_that_it_explains() -> None:
    with pytest.raises(UserError) as caught, explained_os_errors("p", "r"):
        os.stat("a\0b")
    assert isinstance(caught.value.__cause__, ValueError)
