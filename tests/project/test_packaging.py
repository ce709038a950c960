"""Packaging. An undeclared folder works in an editable install but is missing from the wheel."""

from __future__ import annotations

import importlib.metadata
import tomllib

from shared_fixtures import REPOSITORY

FOLDERS = ("search", "space", "proxy_task", "controller", "results")


def test_the_declared_packages_are_those_in_the_tree() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        "spinenas." + ".".join(path.parent.relative_to(REPOSITORY).parts)
        for folder in FOLDERS
        for path in (REPOSITORY / folder).rglob("*.py")
    }
    assert sorted(declared) == sorted(found)


def test_every_package_is_typed_and_has_an_init() -> None:
    for folder in FOLDERS:
        assert (REPOSITORY / folder / "py.typed").is_file()
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file()


def test_every_data_file_of_a_package_is_declared() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    covered = {
        path
        for package, patterns in declared.items()
        for folder in (FOLDERS if package == "*" else [package.removeprefix("spinenas.").replace(".", "/")])
        for pattern in patterns
        for path in (REPOSITORY / folder).glob(pattern)
    }
    files = {path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.is_file()}
    assert {path for path in files if path.suffix not in (".py", ".pyc")} == covered


def test_the_version_installed_is_the_one_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert importlib.metadata.version("spinenas") == project["version"]


def test_the_command_is_declared_and_can_be_loaded() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="spinenas")
    assert callable(command.load())
