"""`spinenas search` and `spinenas resume`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinenas.search.cli.leaderboard import print_leaderboard
from spinenas.search.cli.options import (
    configuration,
    constraint_options,
    constraint_settings,
    data_option,
    data_settings,
    given,
    out_option,
    overrides_option,
    print_rows,
    refuse_empty,
    resume_advice,
    run_argument,
    seed_option,
    watched,
)

if TYPE_CHECKING:
    from spinenas.search.config.config import SearchConfig
    from spinenas.search.run.run import Run


@click.command()
@click.argument("source", metavar="PRESET|FILE.toml")
@out_option
@click.option("--trials", type=click.IntRange(min=1), help="Trainings in all.")
@click.option("--workers", type=click.IntRange(min=1), help="Trainings at a time.")
@seed_option
@click.option(
    "--controller",
    metavar="NAME",
    help="Who proposes: predictor-guided, evolution, local, ppo, reinforce, tpe or random.",
)
@data_option
@click.option("--address", help='Ray cluster to run on, or "auto".')
@click.option("--mirror", metavar="URI", help="A second place for the run, such as s3://bucket/run.")
@click.option("--max-accelerator-hours", type=float, metavar="H", help="Begin no trial that would exceed them.")
@constraint_options
@click.option(
    "--objective",
    type=click.Choice(["ap", "soft", "front"]),
    help="AP alone (the default), AP at what it costs, or the front of AP and costs.",
)
@click.option(
    "--warm-start",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Begin with the results of an earlier run of the same task; repeatable.",
)
@click.option("--or-resume", is_flag=True, help="Go on with the run in --out if there is one.")
@click.option("--dry-run", is_flag=True, help="Measure one training, state trials, hours and cost, and stop.")
@overrides_option
def search(
    source: str,
    out: Path,
    trials: int | None,
    workers: int | None,
    seed: int | None,
    controller: str | None,
    data: Path | None,
    address: str | None,
    mirror: str | None,
    max_accelerator_hours: float | None,
    max_madds: float | None,
    max_params: float | None,
    target: str | None,
    objective: str | None,
    warm_start: tuple[Path, ...],
    or_resume: bool,
    dry_run: bool,
    overrides: tuple[str, ...],
) -> None:
    """Start a search, from a preset or a TOML file; the winner and all else is kept in --out.

    With --or-resume the same command starts it or goes on with it: what a requeued job runs.
    """
    settings = {
        "budget.num_trials": trials,
        "executor.workers": workers,
        "seed": seed,
        "controller.name": controller,
        "executor.address": address,
        "storage.mirror": mirror,
        "budget.max_accelerator_hours": max_accelerator_hours,
        **constraint_settings(max_madds, max_params, target),
        "objective.kind": objective,
    }
    config, config_toml = configuration(source, given(settings) | data_settings(data), overrides)
    if dry_run:
        _dry_run(config, out)
        return
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.run.lifecycle import run_search, search_or_resume

    start = search_or_resume if or_resume else run_search
    with watched(resume_advice(out)):
        display = display_for(sys.stderr)
        run = start(config, out=out, display=display, config_toml=config_toml, warm_start=warm_start)
    conclude(run)


def _dry_run(config: SearchConfig, out: Path) -> None:
    """Say what a search would take."""
    from spinenas.search.planning.estimate import estimate

    with watched(lambda: "nothing was begun"):
        found = estimate(config, out, lambda text: click.echo(text, err=True))
    print_rows(found.rows(), None, {})


@click.command()
@run_argument
@click.option("--trials", type=click.IntRange(min=1), help="A larger budget, trainings in all.")
@click.option("--workers", type=click.IntRange(min=1), help="Trainings at a time.")
@click.option("--address", help='Another Ray cluster to run on, "auto", or "local" for none.')
@click.option("--max-accelerator-hours", type=float, metavar="H", help="Another limit, for the run in all.")
@click.option("--salvage", is_flag=True, help="First mend a journal that is damaged in the middle.")
def resume(
    run: Path,
    trials: int | None,
    workers: int | None,
    address: str | None,
    max_accelerator_hours: float | None,
    salvage: bool,
) -> None:
    """Finish a search that was stopped, or extend one; no finished trial is repeated."""
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.run.lifecycle import resume as resume_run

    with watched(resume_advice(run)):
        resumed = resume_run(
            run,
            num_trials=trials,
            max_accelerator_hours=max_accelerator_hours,
            workers=workers,
            address=address,
            mend=salvage,
            display=display_for(sys.stderr),
        )
    conclude(resumed)


def conclude(run: Run) -> None:
    """After a search: the ranking, and what to do with the best."""
    refuse_empty(run)
    print_leaderboard(run, 10, None)
    folder = shlex.quote(str(run.folder.path))
    click.echo(
        f"look at it: spinenas report {folder}\n"
        f"export the winner with: spinenas export {folder} best --format block-specs --out winner.json\n"
        f"is it better than SpineNet-49 and a random one, on val: spinenas validate {folder}",
        err=True,
    )
