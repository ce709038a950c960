"""`spinenas data`: checks a data set before a search."""

from __future__ import annotations

from pathlib import Path

import click

from spinenas.search.cli.options import (
    CommandGroup,
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
from spinenas.space.errors import UserError


@click.group(cls=CommandGroup)
def data() -> None:
    """Check a data set before a search."""


@data.command()
@click.argument("source", metavar="FOLDER|PRESET|FILE|RUN")
@data_option
@overrides_option
@path_option("--draw", "Also draw images with their boxes: FILE.png.")
@number_option("--images", "num_images", default=24, help="Number of images that --draw shows.")
@click.option("--augmented", is_flag=True, help="Draw images as trials train on them, scaled, cropped and flipped.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of the images drawn.")
@force_option
@format_options
def check(
    source: str,
    data: Path | None,
    overrides: tuple[str, ...],
    draw: Path | None,
    num_images: int,
    augmented: bool,
    seed: int,
    force: bool,
    format: str | None,
) -> None:
    """Count what is in a data set, and say what looks wrong with it.

    The command reads train and val, decodes every image at the size of the task, and trains nothing. FOLDER is a data
    set, checked for the task of the preset quickstart. A preset, file or run gives its own task and data.
    """
    from spinenas.results.storage.atomic_write import check_destination, write_chosen_file

    if draw is None and (augmented or force):
        raise click.UsageError("--augmented and --force belong to the picture of --draw; give --draw FILE too")
    if draw is not None:
        if draw.suffix.lower() != ".png":
            raise UserError(f"{draw} is not the name of a PNG; end it in .png")
        check_destination(draw, force=force)
    if data is None and _is_data_folder(source):
        source, data = "quickstart", Path(source)
    config, _ = configuration(source, overrides_of({"data": data, "overrides": overrides}))
    from spinenas.proxy_task.contact_sheet import contact_sheet
    from spinenas.proxy_task.data.findings import not_logged
    from spinenas.proxy_task.data_check import check_data
    from spinenas.proxy_task.task import ProxyTask
    from spinenas.search.run.components import fetch_data

    with watched(lambda: "nothing was trained"), not_logged():
        fetch_data(config)
        task = ProxyTask(config.task, device="cpu")
        found = check_data(task)
        if draw is not None:
            write_chosen_file(draw, contact_sheet(task, num_images=num_images, augmented=augmented, seed=seed))
            note(f"drew {'augmented images' if augmented else 'images'} with their boxes in {draw}")
    rows = found.rows
    if format is None:
        rows = tuple({name: row[name] for name in ("what", "count", "of", "first")} for row in rows)
    print_rows(rows, format)
    if format is None:
        for row in found.rows:
            if row["advice"]:
                note(f"{row['what']}: {row['advice']}")
        if not any(row["finding"] for row in found.rows):
            note("nothing was found that you should know")
    if found.problems:
        raise UserError("; ".join(found.problems))


def _is_data_folder(source: str) -> bool:
    """Whether a source is a folder with data or the generated data, not a run or a preset."""
    from spinenas.proxy_task.config import BUILT_IN
    from spinenas.search.config.presets import PRESETS

    if source in PRESETS:
        return False
    path = Path(source)
    is_run = (path / "config.json").is_file() and (path / "journal.jsonl").exists()
    return source == BUILT_IN or (path.is_dir() and not is_run)
