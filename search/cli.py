"""The command line: each command is a thin layer over one function; data on stdout, everything else on stderr.

Modules that take long to load (torch, ray, pandas) are imported inside the commands that need them.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.search.cli_bench import bench
from spinenas.search.cli_export import convert, export, to_optuna
from spinenas.search.cli_import import import_file
from spinenas.search.cli_leaderboard import leaderboard, print_leaderboard
from spinenas.search.cli_parts import (
    configuration,
    constraint_options,
    constraint_settings,
    data_option,
    data_settings,
    format_options,
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
from spinenas.search.cli_proxy import proxy
from spinenas.search.cli_replay import replay
from spinenas.search.cli_report import compare, report
from spinenas.search.cli_show import show
from spinenas.search.cli_space import space
from spinenas.search.cli_validate import validate
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    from spinenas.search.config import SearchConfig
    from spinenas.search.run import Run


class _Sentence(click.ClickException):
    """A UserError as click shows it."""

    def show(self, file: Any = None) -> None:
        click.echo(f"spinenas: error: {self.format_message()}", err=True)


class _Commands(click.Group):
    """A group in which what a user gave wrongly ends a command with one sentence and status 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            raise _Sentence(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spinenas", prog_name="spinenas")
def main() -> None:
    """Search for scale-permuted detection backbones, as SpineNet was found."""


@main.command()
@click.argument("source", metavar="PRESET|FILE.toml")
@out_option
@click.option("--trials", type=click.IntRange(min=1), help="Trainings in all.")
@click.option("--workers", type=click.IntRange(min=1), help="Trainings at a time.")
@seed_option
@click.option(
    "--controller",
    metavar="NAME",
    help="Who proposes: screened, hybrid, evolution, local, ppo, reinforce, tpe or random.",
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
    from spinenas.search.display import display_for
    from spinenas.search.loop import run_search, search_or_resume

    start = search_or_resume if or_resume else run_search
    with watched(resume_advice(out)):
        display = display_for(sys.stderr)
        run = start(config, out=out, display=display, config_toml=config_toml, warm_start=warm_start)
    _conclude(run)


def _dry_run(config: SearchConfig, out: Path) -> None:
    """Say what a search would take."""
    from spinenas.search.estimate import estimate

    with watched(lambda: "nothing was begun"):
        found = estimate(config, out, lambda text: click.echo(text, err=True))
    print_rows(found.rows(), None, {})


@main.command()
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
    from spinenas.search.display import display_for
    from spinenas.search.loop import resume as resume_run

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
    _conclude(resumed)


@main.command()
@click.argument("source", metavar="PRESET|FILE.toml")
@data_option
@click.option("--address", help='Ray cluster to look at, or "auto".')
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("."), help="Where the run will be: can it be written?"
)
@overrides_option
@format_options
def preflight(
    source: str,
    data: Path | None,
    address: str | None,
    out: Path,
    overrides: tuple[str, ...],
    format: str | None,
) -> None:
    """Try, on each kind of machine, what a search needs: versions, data, storage, a training step, memory."""
    config, _ = configuration(source, given({"executor.address": address}) | data_settings(data), overrides)
    from spinenas.search.preflight import preflight as look

    with watched(lambda: "nothing was begun"):
        machines, _ = look(config, out, lambda text: click.echo(text, err=True))
    print_rows(
        [machine.row() for machine in machines],
        format,
        {"step_seconds": "figure", "trial_minutes": "seconds", "peak_memory": "gibibytes"},
    )
    for machine in machines:
        if machine.traceback:
            click.echo(machine.traceback.rstrip(), err=True)
    problems = [f"{machine.name}: {problem}" for machine in machines for problem in machine.problems]
    if problems:
        raise UserError("; ".join(problems))


main.add_command(import_file)
main.add_command(proxy)
main.add_command(validate)
main.add_command(report)
main.add_command(compare)
main.add_command(bench)
main.add_command(export)
main.add_command(to_optuna)
main.add_command(convert)
main.add_command(space)
main.add_command(leaderboard)
main.add_command(show)
main.add_command(replay)


def _conclude(run: Run) -> None:
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
