"""`spinenas data`: checks a data set before a search."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.search.cli.options import (
    CommandGroup,
    check_data_is_here,
    configuration,
    data_option,
    force_option,
    format_options,
    note,
    number_option,
    overrides_of,
    overrides_option,
    path_option,
    watched,
)
from spinenas.search.cli.table import print_rows
from spinenas.search.config.presets import PRESETS
from spinenas.space.errors import UserError, nearest

if TYPE_CHECKING:
    from spinenas.proxy_task.contact_sheet import Part
    from spinenas.proxy_task.data_check import DataCheck
    from spinenas.search.config.config import SearchConfig

PART_WORDS: dict[Part, str] = {"train": "training", "reward": "reward", "val": "val"}
"""What the images of each part of a data set are called."""


@click.group(cls=CommandGroup)
def data() -> None:
    """Check a data set before a search."""


@data.command()
@click.argument("source", metavar="FOLDER|PRESET|FILE|RUN")
@data_option
@overrides_option
@path_option("--draw", "Also draw images with their boxes: FILE.png.")
@number_option("--images", "num_images", default=24, help="Number of images that --draw shows.")
@click.option(
    "--split",
    type=click.Choice(["all", *PART_WORDS]),
    default="all",
    show_default=True,
    help="Images that --draw shows: those trained on, the reward images, those of val, or all in proportion.",
)
@click.option("--augmented", is_flag=True, help="Draw images trained on as trials do, scaled, cropped and flipped.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of the images drawn.")
@force_option
@format_options
def check(
    source: str,
    data: Path | None,
    overrides: tuple[str, ...],
    draw: Path | None,
    num_images: int,
    split: str,
    augmented: bool,
    seed: int,
    force: bool,
    format: str | None,
) -> None:
    """Count what is in a data set, and say what looks wrong with it.

    The command reads train and val, decodes every image at the size of the task, and trains nothing. FOLDER is a data
    set, or one annotation file of it, checked for the task of the preset quickstart. A preset, file or run gives its
    own task and data.
    """
    from spinenas.results.storage.atomic_write import check_destination, write_chosen_file

    options = {"--split": split != "all", "--augmented": augmented, "--force": force}
    if draw is None and (given := [name for name, is_given in options.items() if is_given]):
        belong = "belongs" if len(given) == 1 else "belong"
        raise click.UsageError(f"{' and '.join(given)} {belong} to the picture of --draw; give --draw FILE too")
    if draw is not None:
        if draw.suffix.lower() != ".png":
            raise UserError(f"{draw} is not the name of a PNG; end it in .png")
        check_destination(draw, force=force)
    config, task_words = _checked(source, data, overrides)
    note(
        f"checked for {task_words}: {config.task.image_size_pixels} px, batches of {config.task.train.batch_size}"
        + (f"; for another: spinenas data check PRESET --data {shlex.quote(source)}" if _is_data(source) else "")
    )
    from spinenas.proxy_task.contact_sheet import contact_sheet
    from spinenas.proxy_task.data.findings import not_logged
    from spinenas.proxy_task.data_check import check_data
    from spinenas.proxy_task.task import ProxyTask
    from spinenas.search.run.components import fetch_data

    with watched(lambda: "nothing was trained"), not_logged():
        fetch_data(config)
        task = ProxyTask(config.task, device="cpu")
        found = check_data(task)
        if split == "val" and not found.has_val:
            raise UserError("; ".join([*found.problems, "there is no val to draw; choose another --split"]))
        if draw is not None:
            parts = [
                part for part in PART_WORDS if split == part or (split == "all" and (part != "val" or found.has_val))
            ]
            title = f"{_place(config)}, for {task_words}"
            sheet = contact_sheet(task, parts, num_images=num_images, augmented=augmented, seed=seed, title=title)
            write_chosen_file(draw, sheet.png)
            drawn = [f"{number} of {total} {PART_WORDS[part]}" for part, (number, total) in sheet.drawn.items()]
            note(f"drew {_listed(drawn)} images with their boxes in {draw}")
    _print(found, format)
    if found.problems:
        raise UserError("; ".join(found.problems))


def _checked(source: str, data: Path | None, overrides: tuple[str, ...]) -> tuple[SearchConfig, str]:
    """Return the configuration to check data for, and in words what it is. Raises UserError."""
    path = Path(source)
    is_data = data is None and _is_data(source)
    given = overrides_of({"data": path if is_data else data, "overrides": overrides})
    if (images := given.get("task.data.train_images")) is not None:
        note(f"the annotation file is checked alone, with the images in {images}; name the folder to check val as well")
    if not is_data and source not in PRESETS and not path.exists():
        known = nearest(source, PRESETS) if path.name == source and not path.suffix else ""
        raise UserError(
            f"{source} does not exist{known}; name a data set folder, an annotation file, a preset, a .toml file or a "
            "run"
        )
    config, _ = configuration("quickstart" if is_data else source, given)
    check_data_is_here(source, config)
    if is_data or source in PRESETS:
        return config, f"the preset {'quickstart' if is_data else source}"
    return config, f"the {'run' if path.is_dir() else 'configuration'} {source}"


def _is_data(source: str) -> bool:
    """Whether a source is a data set: a folder, an annotation file or the generated data, not a run or a preset."""
    from spinenas.proxy_task.config import BUILT_IN
    from spinenas.proxy_task.data.annotation_files.layout import is_coco_file

    if source in PRESETS:
        return False
    path = Path(source)
    is_run = (path / "config.json").is_file() and (path / "journal.jsonl").exists()
    return source == BUILT_IN or is_coco_file(path) or (path.is_dir() and not is_run)


def _place(config: SearchConfig) -> str:
    return config.task.data.train_annotations or config.task.data.folder


def _listed(words: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _print(found: DataCheck, format: str | None) -> None:
    """Print findings with their advice, then counts, then how many findings there are."""
    if format is not None:
        print_rows(found.rows, format)
        return
    findings: list[dict[str, Any]] = [row for row in found.rows if row["finding"]]
    if findings:
        columns = {"what": "found in the data", "count": "count", "of": "of", "first": "first"}
        print_rows([{title: row[name] for name, title in columns.items()} for row in findings], None)
        advised = {row["advice"]: row["what"] for row in reversed(findings) if row["advice"]}  # once for both splits
        for advice, what in reversed(advised.items()):
            note(f"{what}: {advice}")
        click.echo()
    for of_categories in (False, True):
        print_rows(found.table(of_categories=of_categories), None)
        click.echo()
    if findings:
        note(f"{len(findings)} finding{'s' if len(findings) > 1 else ''}, listed first")
    elif not found.problems:
        note("nothing was found that you should know")
