"""`spinenas search` and `spinenas resume`: run a search."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.search.cli.leaderboard import print_leaderboard
from spinenas.search.cli.options import (
    PATH,
    configuration,
    epochs_option,
    hours_option,
    note,
    overrides_of,
    path_option,
    resume_advice,
    run_argument,
    search_options,
    source_argument,
    trials_option,
    watched,
    workers_option,
)
from spinenas.search.cli.table import print_facts
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    from spinenas.search.run.run import Run


@click.command()
@source_argument
@path_option("--out", "Folder of the new run.", metavar="PATH", required=True)
@search_options
@click.option(
    "--warm-start",
    multiple=True,
    type=PATH,
    metavar="RUN",
    help="Begin with the results of an earlier run of the same task; repeatable.",
)
@click.option("--or-resume", is_flag=True, help="Resume the run in --out if there is one.")
@click.option("--dry-run", is_flag=True, help="Measure one training, print the expected hours and cost, and stop.")
def search(
    source: str, out: Path, warm_start: tuple[Path, ...], or_resume: bool, dry_run: bool, **options: Any
) -> None:
    """Start a search.

    The configuration is that of a preset, a TOML file or an earlier run; `spinenas config` prints it. The folder --out
    keeps the results. With --or-resume the same command starts the search or resumes it, as a requeued job needs.
    """
    config, config_toml = configuration(source, overrides_of(options))
    if dry_run:
        from spinenas.search.planning.estimate import estimate

        with watched(lambda: "nothing was started"):
            expected = estimate(config, out, note, or_resume=or_resume)
        print_facts(expected, None)
        return
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.run.lifecycle import run_search
    from spinenas.search.run.or_resume import search_or_resume

    start = search_or_resume if or_resume else run_search
    with watched(resume_advice(out)):
        display = display_for(sys.stderr)
        run = start(config, out=out, display=display, config_toml=config_toml, warm_start=warm_start)
    conclude(run)


@click.command()
@run_argument
@trials_option
@epochs_option
@workers_option
@hours_option
@click.option("--address", help='Address of another Ray cluster, "auto" to find one, or "local" for none.')
@path_option("--data", "Folder where the data of the run lie now; the run keeps it.", metavar="FOLDER")
@click.option("--salvage", "mend", is_flag=True, help="Repair a damaged journal first.")
@click.option("--set", "overrides", multiple=True, hidden=True, help="Refused, with what to do instead.")
def resume(run: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Resume a stopped search, or extend a finished one.

    No finished trial is repeated. --trials or --epochs, and --max-accelerator-hours, extend the budget of the run.
    --data is for a run that was copied to where its data lie elsewhere; they must be the same data.
    """
    if overrides:
        raise click.UsageError(
            f"a run keeps its configuration, so --set {overrides[0]} has no place here; start a new run: "
            f"spinenas search {shlex.quote(str(run))} --set {shlex.quote(overrides[0])} --out NEW"
        )
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.run.lifecycle import resume as resume_run

    with watched(resume_advice(run)):
        resumed = resume_run(run, display=display_for(sys.stderr), **options)
    conclude(resumed)


def conclude(run: Run) -> None:
    """Print the ranking of a complete run, and the commands that come next.

    Raises UserError if every trial failed.
    """
    from spinenas.search.config.loading import stored_config

    records = run.records()
    failures = [record.failure for record in records if record.failure is not None]
    if failures and len(failures) == len(records):
        raise UserError(
            f"none of the {len(records)} trials has a result; "
            f"the last one failed: {failures[-1].kind}, {failures[-1].message}"
        )
    print_leaderboard(run, 10, None)
    folder = shlex.quote(str(run.folder.path))
    controller = stored_config(run.folder.config()).controller
    if controller.name == "plan":
        note(_ADVICE_FOR_STUDY[controller.plan.stage].format(folder=folder))
        return
    note(f"write a report with: spinenas report {folder}")
    if run.winner() is None:
        return
    note(
        f"export the winner with: spinenas export {folder} best --format block-specs --out winner.json\n"
        f"compare it with SpineNet-49 and a random genotype on val with: spinenas validate {folder}"
    )


_ADVICE_FOR_STUDY = {
    "search": "the study is complete; repeat the `spinenas proxy noise` or `ladder` command that began it, with "
    "--out {folder}, to print its answer",
    "validate": "the trainings of the validation are complete; repeat the `spinenas validate` command that began it to "
    "compare them on val",
    "full": "the training of the replay is complete; repeat the `spinenas replay` command that began it, with --out "
    "{folder}, to measure it on val and write replay.json",
}
"""Advice after `resume` has finished a study, by the stage of its plan."""
