"""Rules for the tests themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from shared_fixtures import REPOSITORY

TESTS = REPOSITORY / "tests"
FILES = sorted(TESTS.rglob("*.py"))
NAME = "test_other"
IMPORT = re.compile(r"^\s*(?:from|import) (test_\w+)", re.MULTILINE)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_test_files(tree: ast.AST) -> Iterator[str]:
    """Yield the test files that a module imports, also in a program that it passes to another process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("test_"))
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (name for name in [node.module] if name.startswith("test_"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from IMPORT.findall(node.value)


def test_no_file_imports_a_test_file() -> None:
    found = {str(path.relative_to(TESTS)): set(imported_test_files(parsed(path))) for path in FILES}
    imports = {name: imported for name, imported in found.items() if imported}
    assert imports == {}, "move what several files use to a module in tests/ that is not a test file"


@pytest.mark.parametrize("source", [f"import {NAME}", f"from {NAME} import b", f"'''\n  from {NAME} import b\n'''"])
def test_an_import_of_a_test_file_is_found(source: str) -> None:
    assert list(imported_test_files(ast.parse(source))) == [NAME]
