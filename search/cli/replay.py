"""`spinenas replay`: one architecture through the task of a search, and measured on val."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.search.cli.options import (
    architecture_argument,
    configuration,
    data_option,
    data_settings,
    format_options,
    given,
    out_option,
    overrides_option,
    print_rows,
    refuse_empty,
    seed_option,
    watched,
)

if TYPE_CHECKING:
    from spinenas.search.cli.architecture_argument import ArchitectureArgument


@click.command()
@architecture_argument
@click.option("--preset", "source", metavar="PRESET|FILE.toml", help="Whose task; of a run, its own, else quickstart.")
@data_option
@out_option
@seed_option
@click.option(
    "--width",
    type=click.Choice(["proxy", "full"]),
    default="proxy",
    show_default=True,
    help="The task's scaling, or the architecture's own; the head is the task's.",
)
@overrides_option
@format_options
def replay(
    architecture: tuple[str, ...],
    source: str | None,
    data: Path | None,
    out: Path,
    seed: int | None,
    width: str,
    overrides: tuple[str, ...],
    format: str | None,
) -> None:
    """Train one architecture through the task of a search, and measure it on val as well.

    A weights file (FILE.safetensors) is not trained: it is measured on val at its own size.
    """
    from spinenas.search.cli.architecture_argument import find_architecture

    found = find_architecture(architecture)
    if found.weights is not None:
        if source is not None or seed is not None or width != "proxy":
            raise click.UsageError("a weights file is measured as it is; leave out --preset, --seed and --width")
        _replay_weights(found, out, data_settings(data), overrides, format)
        return
    if source is None and found.run is not None:
        source = str(found.run.folder.path / "config.json")
    config, config_toml = configuration(source or "quickstart", given({"seed": seed}) | data_settings(data), overrides)
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.studies.replay import replay as replay_architecture

    with watched(lambda: "run the replay again with another --out, or with this folder removed"):
        run, val = replay_architecture(
            found.architecture,
            config,
            name=found.name,
            out=out,
            scaling=found.scaling if width == "full" else None,
            display=display_for(sys.stderr),
            config_toml=config_toml,
        )
    evaluation = run.records()[0].evaluation
    refuse_empty(run)
    assert evaluation is not None
    rows = [
        {"metric": name, "reward": evaluation.metrics.get(name), "val": val.get(name)}
        for name in val | evaluation.metrics
    ]
    print_rows(rows, format, {"reward": "figure", "val": "figure"})
    weights = run.folder.trial_folder(0) / "weights.safetensors"
    if weights.exists():
        click.echo(f"the trained weights are in {weights}", err=True)
    _announce_published(found)


def _replay_weights(
    found: ArchitectureArgument, out: Path, settings: dict[str, Any], overrides: tuple[str, ...], format: str | None
) -> None:
    """Measure a weights file on val."""
    useless = [word for word in overrides if not word.startswith(("task.eval.", "task.data."))]
    if useless:
        raise click.UsageError(f"a weights file is not trained: only task.eval and task.data count, not {useless[0]}")
    config, _ = configuration("quickstart", settings, ("task.eval.pre_nms_top=5000", *overrides))
    from spinenas.search.studies.replay import replay_weights

    assert found.weights is not None
    metrics = replay_weights(found.weights, config.task, out=out)
    published = {"AP": found.model.ap} if found.model else {}
    rows = [{"metric": name, "val": value, "published": published.get(name)} for name, value in metrics.items()]
    print_rows(rows, format, {"val": "figure", "published": "figure"})
    _announce_published(found)


def _announce_published(found: ArchitectureArgument) -> None:
    """Say what others have measured of a published model; on another task, unless it is COCO at full length."""
    if found.model is not None:
        from spinenas.search.cli.architecture_argument import published_words

        click.echo(f"{found.model.name}, {published_words(found.model)}", err=True)
