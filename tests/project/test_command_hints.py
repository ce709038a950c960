"""Commands in messages can be pasted into a shell: each path in them is quoted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_fixtures import REPOSITORY

FOLDERS = ("space", "results", "controller", "proxy_task", "search")

COMMAND = re.compile(r"(\bspinenas [a-z]+( [a-z-]+)*|\bmv|\bgzip -dc|\biconv[^;]*| > | < |--out) $")
"""The text before a value that belongs to a command."""


SAFE = {"found.model.name", "unpack", "encoding"}
"""Values without a character that a shell treats specially."""


def unquoted(source: str) -> Iterator[str]:
    """Yield the values in commands of a module's f-strings that no `shlex.quote` has quoted."""
    tree = ast.parse(source)
    quoted = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _is_quote(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        before = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                before += part.value
            elif isinstance(part, ast.FormattedValue):
                value = ast.unparse(part.value)
                if COMMAND.search(before) and not _is_quote(part.value) and value not in quoted | SAFE:
                    yield f"{before}{{{value}}}"
                before += "\0"


def _is_quote(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("shlex.quote", "shlex.join")


@pytest.mark.parametrize("folder", FOLDERS)
def test_paths_in_commands_of_messages_are_quoted(folder: str) -> None:
    found = {
        str(path.relative_to(REPOSITORY)): values
        for path in Path(REPOSITORY, folder).rglob("*.py")
        if (values := list(unquoted(path.read_text())))
    }
    assert found == {}


def test_an_unquoted_path_is_found() -> None:
    assert list(unquoted('f"resume it with: spinenas resume {path}"')) == ["resume it with: spinenas resume {path}"]
    assert list(unquoted('f"spinenas resume {shlex.quote(str(path))} {number}"')) == []
    assert list(unquoted('path = shlex.quote(str(folder))\nf"spinenas report {path}"')) == []
