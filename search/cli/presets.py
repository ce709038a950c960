"""`spinenas presets`: lists the ready-made configurations."""

from __future__ import annotations

import click

from spinenas.search.cli.options import format_options
from spinenas.search.cli.table import print_rows


@click.command("presets")
@format_options
def presets(format: str | None) -> None:
    """List the presets.

    `spinenas config PRESET` prints every value of a preset.
    """
    from spinenas.search.config.presets import PRESET_SUMMARIES, PRESETS

    rows = [
        {
            "preset": name,
            "pixels": config.task.image_size_pixels,
            "epochs": config.task.train.epochs,
            "trials": config.budget.num_trials,
            "summary": PRESET_SUMMARIES[name],
        }
        for name, config in PRESETS.items()
    ]
    print_rows(rows, format)
