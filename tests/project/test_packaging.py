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


def test_the_version_installed_is_the_one_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert importlib.metadata.version("spinenas") == project["version"]


def test_the_command_is_declared_and_can_be_loaded() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="spinenas")
    assert callable(command.load())
