"""The documentation: its commands exist, its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import click
import pytest
from shared_fixtures import REPOSITORY

from spinenas.search.cli.main import main
from spinenas.search.cli.target import published_rows
from spinenas.search.config.loading import load_config_file
from spinenas.search.config.presets import PRESETS

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def commands(group: click.Group, prefix: str = "spinenas") -> dict[str, click.Command]:
    """All commands by their full name."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


def test_every_command_has_help_and_every_option_says_what_it_does() -> None:
    for name, command in commands(main).items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts[0]}"


def test_commands_that_the_readme_shows_exist_with_their_options() -> None:
    known = commands(main)
    shown = re.findall(r"^    (spinenas .*?)(?:  +#.*)?$", README, flags=re.MULTILINE)
    assert len(shown) >= 6
    for line in shown:
        name = next(name for name in known if line.startswith(name))
        options = {option for parameter in known[name].params for option in parameter.opts}
        for option in re.findall(r"(?<= )--[a-z-]+", line):
            assert option in options, f"{line}: {option}"


def test_the_readme_names_every_preset_and_no_other() -> None:
    table = re.findall(r"^\| `([a-z0-9-]+)` \|", README, flags=re.MULTILINE)
    assert sorted(name for name in table if "/" not in name) == sorted(PRESETS)


def test_the_python_in_the_readme_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert type(names["backbone"]).__name__ == "SpineNet"


def test_the_page_on_parity_has_the_counts_of_show() -> None:
    page = (REPOSITORY / "docs" / "parity.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \| ([\d,]+) \| .*? \| ([\d.]+) G \| ", page, flags=re.MULTILINE)
    rows = [
        (row["name"], str(row["pixels"]), f"{row['params']:,}", f"{row['madds'] / 1e9:.3f}") for row in published_rows()
    ]
    assert table == rows


def test_the_python_in_the_page_on_parity_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "parity.md").read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert not any(parameter.any() for parameter in names["backbone"].parameters()), "its zeros were loaded"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_example_configuration_is_valid() -> None:
    config = load_config_file(REPOSITORY / "examples" / "own_images.toml")
    assert config.task.image_size_pixels == 384
    assert config.budget.num_trials == 200


def test_the_example_of_ask_and_tell_finds_better_ones(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(REPOSITORY / "examples" / "ask_and_tell.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    assert float(lines[-1].split()[2]) > float(lines[0].split()[2])
