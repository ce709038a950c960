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
    resume_advice,
    run_argument,
    seed_option,
    target_argument,
    watched,
)
from spinenas.search.cli_proxy import proxy
from spinenas.search.cli_report import compare, report
from spinenas.search.cli_space import space
from spinenas.search.cli_validate import validate
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    from spinenas.search.config import SearchConfig
    from spinenas.search.run import Run
    from spinenas.search.target import Target


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
    help="Who proposes: evolution, hybrid, screened, local, ppo, reinforce, tpe or random.",
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


@main.command()
@run_argument
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Networks at most.")
@click.option("--front", is_flag=True, help="Only those that none beats in AP, multiply-adds and parameters at once.")
@format_options
def leaderboard(run: Path, top: int, front: bool, format: str | None) -> None:
    """Rank the networks of a run, by the mean over their trainings."""
    from spinenas.search.run import Run

    _print_leaderboard(Run.open(run), top, format, front=front)


@main.command()
@target_argument
@click.option("--draw", type=click.Path(path_type=Path), metavar="FILE", help="Draw it as well: FILE.svg or FILE.png.")
@click.option(
    "--beside", metavar="OTHER", help='Draw it with another, what differs marked: NAME, FILE or "RUN NUMBER".'
)
@click.option("--force", is_flag=True, help="Replace an existing picture.")
@format_options
def show(target: tuple[str, ...], draw: Path | None, beside: str | None, force: bool, format: str | None) -> None:
    """Print the blocks of an architecture: a trial's, a published one's, or a file's, with their costs.

    Of a published model it gives the published figures and their source beside ours; without a TARGET, a table of
    all of them. Of a failed trial it says why; with --json, the traceback follows on stderr.

    A picture has the blocks in order and by level, as the paper draws them; two are compared position by position.
    """
    from spinenas.search.target import find_target, published_rows

    if draw is None and (beside is not None or force):
        raise click.UsageError("--beside and --force are about a picture; name its file with --draw")
    if draw is not None and not target:
        raise click.UsageError("a picture is of one architecture; name it before --draw")
    if not target:
        _print_published(published_rows(), format)
        return
    found = find_target(target)
    if draw is not None:
        _draw(found, draw, beside, force)
    click.echo(f"{found.name}: {found.describe()}", err=format is not None)
    failure = found.record and found.record.failure
    if failure and failure.traceback and format == "json":
        click.echo(failure.traceback.rstrip(), err=True)
    print_rows(found.block_rows(), format, {"params": "millions", "madds": "billions"})


def _draw(found: Target, path: Path, beside: str | None, force: bool) -> None:
    """Write the picture of an architecture, or of two."""
    from spinenas.results.drawing import draw, draw_pair
    from spinenas.results.picture_file import check_picture_path, write_picture
    from spinenas.search.target import find_target

    check_picture_path(path, force=force)
    if beside is None:
        svg = draw(found.subject())
    else:
        # A trial is named as a run and a number; the name of a file may have spaces.
        words = (beside,) if Path(beside).exists() else tuple(beside.rsplit(" ", 1))
        svg = draw_pair(found.subject(), find_target(words).subject())
    write_picture(svg, path, force=force)
    click.echo(f"drew {found.name} in {path}", err=True)


@main.command()
@target_argument
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
    target: tuple[str, ...],
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
    from spinenas.search.target import find_target

    found = find_target(target)
    if found.weights is not None:
        if source is not None or seed is not None or width != "proxy":
            raise click.UsageError("a weights file is measured as it is; leave out --preset, --seed and --width")
        _replay_weights(found, out, data_settings(data), overrides, format)
        return
    if source is None and found.run is not None:
        source = str(found.run.folder.path / "config.json")
    config, config_toml = configuration(source or "quickstart", given({"seed": seed}) | data_settings(data), overrides)
    from spinenas.search.display import display_for
    from spinenas.search.replay import replay as replay_architecture

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
    _refuse_empty(run)
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
    found: Target, out: Path, settings: dict[str, Any], overrides: tuple[str, ...], format: str | None
) -> None:
    """Measure a weights file on val."""
    useless = [word for word in overrides if not word.startswith(("task.eval.", "task.data."))]
    if useless:
        raise click.UsageError(f"a weights file is not trained: only task.eval and task.data count, not {useless[0]}")
    config, _ = configuration("quickstart", settings, ("task.eval.pre_nms_top=5000", *overrides))
    from spinenas.search.replay import replay_weights

    assert found.weights is not None
    metrics = replay_weights(found.weights, config.task, out=out)
    published = {"AP": found.model.ap} if found.model else {}
    rows = [{"metric": name, "val": value, "published": published.get(name)} for name, value in metrics.items()]
    print_rows(rows, format, {"val": "figure", "published": "figure"})
    _announce_published(found)


def _announce_published(found: Target) -> None:
    """Say what others have measured of a published model; on another task, unless it is COCO at full length."""
    if found.model is not None:
        from spinenas.search.target import published_words

        click.echo(f"{found.model.name}, {published_words(found.model)}", err=True)


def _conclude(run: Run) -> None:
    """After a search: the ranking, and what to do with the best."""
    _refuse_empty(run)
    _print_leaderboard(run, 10, None)
    folder = shlex.quote(str(run.folder.path))
    click.echo(
        f"look at it: spinenas report {folder}\n"
        f"export the winner with: spinenas export {folder} best --format block-specs --out winner.json\n"
        f"is it better than SpineNet-49 and a random one, on val: spinenas validate {folder}",
        err=True,
    )


def _refuse_empty(run: Run) -> None:
    """Fail unless some trial is complete. Raises UserError."""
    records = run.records()
    failures = [record.failure for record in records if record.failure is not None]
    if failures and len(failures) == len(records):
        raise UserError(
            f"none of the {len(records)} trials has a result; the last one: {failures[-1].kind}, {failures[-1].message}"
        )


def _print_leaderboard(run: Run, top: int, format: str | None, *, front: bool = False) -> None:
    """Print the best of its networks, and say which one `best` means."""
    from spinenas.results.leaderboard import leaderboard_rows, winner_words
    from spinenas.results.pareto import front_rows

    columns = {
        "number": "text",
        "objective": "figure",
        "lower": "figure",
        "upper": "figure",
        "std": "figure",
        "n": "text",
        "status": "text",
        "params": "millions",
        "madds": "billions",
        "train_seconds": "seconds",
        "origin": "text",
        "key": "text",
    }
    records = run.records()
    rows = leaderboard_rows(records, None if front else top)
    if front:
        rows = front_rows(rows)[:top]
    if format is None:
        rows = [{name: row[name] for name in columns} for row in rows]
    print_rows(rows, format, columns)
    for sentence in winner_words(records, run.worth()):
        click.echo(sentence, err=True)


def _print_published(rows: list[dict[str, Any]], format: str | None) -> None:
    columns = {
        "params": "millions",
        "published_params": "millions",
        "params_ratio": "figure",
        "madds": "billions",
        "published_madds": "billions",
        "madds_ratio": "figure",
        "baseline_ratio": "figure",
        "published_ap": "figure",
        "published_ap_test_dev": "figure",
    }
    if format is None:
        rows = [{name: value for name, value in row.items() if name != "source"} for row in rows]
    print_rows(rows, format, columns)
