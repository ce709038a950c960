"""`spinenas bench`: predicts the cost of trials, and compares controllers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from spinenas.search.cli.options import (
    Command,
    CommandGroup,
    check_plot,
    configuration,
    data_option,
    format_options,
    overrides_of,
    overrides_option,
    plot_options,
    print_rows,
    source_argument,
    watched,
    write_plot,
)


@click.group(cls=CommandGroup)
def bench() -> None:
    """Predict the cost of trials, or compare controllers."""


@bench.command("proxy")
@source_argument
@data_option
@click.option("--calibrate", is_flag=True, help="Measure this machine first, which takes minutes, and keep the fit.")
@overrides_option
@format_options
def bench_proxy(source: str, calibrate: bool, format: str | None, **options: Any) -> None:
    """Predict seconds and memory of trials on this machine.

    The prediction uses a calibration that is kept for each device. It stays valid when image size, width, batch size,
    share of the images, epochs or search space change.
    """
    config, _ = configuration(source, overrides_of(options))
    from spinenas.search.planning.predicted_cost import predicted_rows

    with watched(lambda: "no calibration was kept"):
        rows = predicted_rows(config, lambda text: click.echo(text, err=True), calibrate_first=calibrate)
    print_rows(rows, format, {"value": "digits"})


def _count(name: str, least: int, default: int, help: str) -> Callable[[Command], Command]:
    """Return an option that takes a number."""
    return click.option(
        name, type=click.IntRange(min=least), default=default, show_default=True, metavar="N", help=help
    )


@bench.command("controllers")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File of the outcomes; an existing one is continued.",
)
@click.option("--controllers", metavar="A,B,...", help="Controllers to compare. The default is all but tpe.")
@_count("--budget", 8, 1000, "Trainings in each search.")
@_count("--landscapes", 1, 16, "Number of landscapes of each family.")
@_count("--first-landscape", 0, 0, "Number of the first landscape.")
@_count("--seeds", 1, 5, "Searches on each landscape.")
@_count("--workers", 1, 20, "Simulated trainings at the same time.")
@click.option(
    "--table", type=click.Path(path_type=Path), metavar="FILE", help="Table of trainings to learn landscapes from."
)
@click.option("--rows", "only_rows", is_flag=True, help="Search only among the networks of the table.")
@click.option("--single", is_flag=True, help="Choose the winner by single results, without replicates.")
@click.option("--by-family", "each_family", is_flag=True, help="Print separate rows for each family of landscapes.")
@click.option("--lead-of", metavar="NAME", help="Print how far this controller leads the others after equal trainings.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Searches at the same time. The default is one for each core.",
)
@plot_options
@format_options
def bench_controllers(
    out: Path,
    controllers: str | None,
    landscapes: int,
    first_landscape: int,
    seeds: int,
    workers: int,
    budget: int,
    table: Path | None,
    only_rows: bool,
    processes: int | None,
    single: bool,
    each_family: bool,
    lead_of: str | None,
    plot: Path | None,
    force: bool,
    format: str | None,
) -> None:
    """Compare controllers on synthetic landscapes.

    Nothing is trained. The figures are true values of the chosen networks, in standard deviations of random networks.
    Repeat the command to resume a stopped comparison.
    """
    from spinenas.results.pictures.charts.study_charts import controller_plot
    from spinenas.search.controller_bench.comparison import (
        COMPARED,
        by_family,
        cells,
        lead,
        of_synthetic_families,
        run_cells,
        summary,
    )
    from spinenas.search.controller_bench.learnt_landscape import measured_fit
    from spinenas.search.controller_bench.simulated_search import checkpoints
    from spinenas.space.search_space import space_by_name

    check_plot(plot, force)
    if only_rows and table is None:
        raise click.UsageError("--rows needs the table of --table; give both")
    names = COMPARED if controllers is None else tuple(controllers.split(","))
    if lead_of is not None and lead_of not in names:
        raise click.UsageError(f"--lead-of {lead_of} is not one of the compared controllers: {', '.join(names)}")
    wanted = cells(
        names,
        num_landscapes=landscapes,
        first_landscape=first_landscape,
        num_seeds=seeds,
        workers=workers,
        budget=budget,
        table=None if table is None else str(table),
        rows=only_rows,
    )
    if table is None:
        click.echo("without --table no landscape is learnt from trainings", err=True)
    elif not only_rows:
        fit = measured_fit(table, space_by_name("spinenet49"))
        click.echo(
            f"{table}: {fit.num_networks} networks; on held-out networks R2 is {fit.r2:.2f} and Kendall's tau "
            f"{fit.kendall:.2f}",
            err=True,
        )
    with watched(lambda: "repeat the command to resume it"):
        outcomes = run_cells(
            wanted, out, processes=processes or os.cpu_count() or 1, note=lambda text: click.echo(text, err=True)
        )
    kind = "chosen" if single else "replicated"
    pooled = of_synthetic_families(outcomes)
    if len(pooled) < len(outcomes):
        click.echo("these rows exclude the landscapes of the table; --by-family includes them", err=True)
    if plot is not None:
        num_landscapes = len({(outcome["family"], outcome["landscape"]) for outcome in pooled})
        write_plot(controller_plot(summary(pooled, kind), checkpoints(budget), num_landscapes).svg(), plot, force)
    rows_of = partial(summary, kind=kind) if lead_of is None else partial(lead, kind=kind, name=lead_of)
    rows = by_family(outcomes, rows_of) if each_family else rows_of(pooled)
    texts = ("family", "controller", "reached at")
    is_text = [lead_of is not None or name in texts or name.startswith("ahead at ") for name in rows[0]]
    print_rows(rows, format, {name: "digits" for name, text in zip(rows[0], is_text, strict=True) if not text})
