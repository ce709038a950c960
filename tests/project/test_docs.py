"""The documentation: its commands exist, its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from shared_fixtures import REPOSITORY

from spinenas.search.cli.main import main
from spinenas.search.cli.published_table import AP_COLUMNS, published_rows
from spinenas.search.config.checking import dotted_keys
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.loading import load_config_file
from spinenas.search.config.presets import PRESETS

DOCS = REPOSITORY / "docs"
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
FOLDERS = ("space", "results", "controller", "proxy_task", "search")
COMMAND = re.compile(r"^    (spinenas .*?)(?:  +#.*)?$", flags=re.MULTILINE)
"""A command that a page shows, without its comment."""


def commands(group: click.Group, prefix: str = "spinenas") -> dict[str, click.Command]:
    """All commands by their full name."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


def test_every_command_and_option_has_help_in_complete_sentences() -> None:
    for name, command in commands(main).items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert re.fullmatch(r"[A-Z].*\.", parameter.help or "", flags=re.DOTALL), f"{name} {parameter.opts[0]}"


@pytest.mark.parametrize("words", [[], ["proxy"], ["space"], ["bench"]])
def test_no_description_of_a_command_is_cut_in_a_terminal_of_80_columns(words: list[str]) -> None:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert "..." not in result.stdout.partition("\n")[2]


def test_every_command_is_listed_in_the_help() -> None:
    listed = CliRunner().invoke(main, ["--help"]).stdout
    assert [name for name in main.commands if f"\n  {name} " not in listed] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if COMMAND.search(page.read_text())], ids=lambda page: page.name
)
def test_commands_that_a_page_shows_exist_with_their_options(page: Path) -> None:
    known = commands(main)
    for line in COMMAND.findall(page.read_text(encoding="utf-8")):
        name = next(name for name in known if line.startswith(name))
        options = {option for parameter in known[name].params for option in parameter.opts}
        for option in re.findall(r"(?<= )--[a-z-]+", line):
            assert option in options, f"{line}: {option}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "experiment_log.md"], ids=lambda page: page.name
)
def test_files_and_configuration_keys_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"(?<![\w/])((?:{'|'.join(FOLDERS)}|tests|benchmarks)/[\w/.-]+\.\w+)", text):
        assert (REPOSITORY / name).exists(), f"{page.name} names {name}"
    keys = set(dotted_keys(SearchConfig))
    for key in re.findall(r"--set ([a-z_.]+)=|`([a-z]+\.[a-z_.]+) ?=", text):
        assert "".join(key) in keys, f"{page.name} names {''.join(key)}"


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150


def test_the_readme_names_every_preset_and_no_other() -> None:
    table = re.findall(r"^\| `([a-z0-9-]+)` \|", README, flags=re.MULTILINE)
    assert sorted(table) == sorted(PRESETS)


def test_the_index_of_the_documentation_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in sorted(DOCS.glob("*.md")):
        assert page.name == "README.md" or page.name in index, f"docs/README.md lacks {page.name}"


def test_the_page_on_architecture_names_every_folder_and_modules_that_exist() -> None:
    rows = re.findall(r"^\| `([a-z_/]+)/` \|.*\| (.*) \|$", (DOCS / "architecture.md").read_text(), flags=re.MULTILINE)
    folders = {path.parent for name in FOLDERS for path in (REPOSITORY / name).rglob("*.py")}
    assert {name for name, _ in rows} == {str(folder.relative_to(REPOSITORY)) for folder in folders} - {"search"}
    for folder, modules in rows:
        for module in re.findall(r"`([a-z_]+)`", modules):
            assert (REPOSITORY / folder / f"{module}.py").exists(), f"{folder}/{module}.py"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.name
)
def test_the_python_in_a_page_runs(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for code in blocks:
        exec(code, {})


def test_the_page_on_parity_has_the_counts_of_show() -> None:
    page = (DOCS / "parity.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \| ([\d,]+) \| .*? \| ([\d.]+) G \| ", page, flags=re.MULTILINE)
    rows = [
        (row["name"], str(row["pixels"]), f"{row['params']:,}", f"{row['madds'] / 1e9:.3f}") for row in published_rows()
    ]
    assert table == rows


def test_the_page_on_parity_has_the_published_aps_of_show() -> None:
    page = (DOCS / "parity.md").read_text(encoding="utf-8")
    header = "| model | px | A | B | C | mobile | C, test-dev |\n|---|---|---|---|---|---|---|\n"
    table = page.partition(header)[2].partition("\n\n")[0].splitlines()
    rows = []
    for row in published_rows():
        aps = ["-" if row[name] is None else f"{row[name] * 100:.1f}" for name in AP_COLUMNS]
        if set(aps) != {"-"}:
            rows.append(" | ".join([f"| `{row['name']}`", str(row["pixels"]), *aps]) + " |")
    assert table == rows


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)]+)", text) + re.findall(r'src="([^"]+)"', text):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


def test_the_example_configuration_is_valid() -> None:
    config = load_config_file(REPOSITORY / "examples" / "own_images.toml")
    assert config.task.image_size_pixels == 384
    assert config.budget.num_trials == 200


def test_the_example_of_ask_and_tell_finds_better_ones(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(REPOSITORY / "examples" / "ask_and_tell.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    assert float(lines[-1].split()[2]) > float(lines[0].split()[2])


def test_the_generated_pages_are_up_to_date() -> None:
    for path, text in runpy.run_path(str(REPOSITORY / "docs" / "generate.py"))["pages"]().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date; run python docs/generate.py"
