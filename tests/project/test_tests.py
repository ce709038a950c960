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


def calls(function: ast.AST) -> set[str]:
    """Return the names of the functions and methods that a function calls."""
    called = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {f.attr if isinstance(f, ast.Attribute) else f.id for f in called if isinstance(f, ast.Attribute | ast.Name)}


def asserts(function: ast.AST, helpers: set[str]) -> bool:
    """Return whether a function has an assertion, or calls one that has."""
    called = calls(function)
    return (
        any(isinstance(node, ast.Assert) for node in ast.walk(function))
        or bool(called & ({"raises", "fail"} | helpers))
        or any(name.startswith(("assert_", "check_")) for name in called)
    )


def functions_of(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def without_assertion(tree: ast.AST) -> list[str]:
    """Return the test functions of a file in which nothing can fail but a crash."""
    functions = functions_of(tree)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    helpers = {"check"} & imported
    for _ in range(3):  # helpers that call helpers
        helpers |= {f.name for f in functions if not f.name.startswith("test_") and asserts(f, helpers)}
    return [f.name for f in functions if f.name.startswith("test_") and not asserts(f, helpers)]


def test_every_test_has_an_assertion() -> None:
    found = {str(path.relative_to(TESTS)): without_assertion(parsed(path)) for path in FILES}
    lacking = {name: tests for name, tests in found.items() if tests}
    assert lacking == {}, "say what must be true at the end of each"


def test_a_test_without_assertion_is_found() -> None:
    source = "def helper():\n  assert f()\ndef test_a():\n  f()\ndef test_b():\n  helper()\n"
    assert without_assertion(ast.parse(source)) == ["test_a"]
