"""The commands that measure before a search: what its trials take, and how good controllers are."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click

from spinenas.search.cli.options import (
    check_plot,
    configuration,
    data_option,
    data_settings,
    format_options,
    overrides_option,
    plot_options,
    print_rows,
    watched,
    write_plot,
)


@click.group()
def bench() -> None:
    """Measure what trials take, and how good controllers are."""


@bench.command("proxy")
@click.argument("source", metavar="PRESET|FILE.toml")
@data_option
@click.option("--calibrate", is_flag=True, help="Measure on this machine first, a minute or more, and keep the fit.")
@overrides_option
@format_options
def bench_proxy(
    source: str, data: Path | None, calibrate: bool, overrides: tuple[str, ...], format: str | None
) -> None:
    """Predict seconds and memory of a search's trials on this machine, by a calibration kept for its device.

    Image size, width, batch, share of the images and epochs may change after the calibration, as may the space.
    """
    config, _ = configuration(source, data_settings(data), overrides)
    from spinenas.search.planning.predicted_cost import predicted_rows

    with watched(lambda: "nothing was kept"):
        rows = predicted_rows(config, lambda text: click.echo(text, err=True), calibrate_first=calibrate)
    print_rows(rows, format, {"value": "digits"})


@bench.command("controllers")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File of the outcomes; one there goes on.")
@click.option("--controllers", metavar="A,B,...", help="Who is compared; all but tpe if not given.")
@click.option("--landscapes", type=click.IntRange(min=1), default=16, show_default=True, help="How many.")
@click.option(
    "--first-landscape", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the first."
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Searches of each.")
@click.option("--workers", type=click.IntRange(min=1), default=20, show_default=True, help="Trainings at a time.")
@click.option("--budget", type=click.IntRange(min=8), default=1000, show_default=True, help="Trainings of a search.")
@click.option(
    "--table", type=click.Path(path_type=Path), help="Of trainings; a family of landscapes is learnt from it."
)
@click.option("--rows", "only_rows", is_flag=True, help="The networks of the table are all there is.")
@click.option("--processes", type=click.IntRange(min=1), help="Searches at a time; one for each core if not given.")
@click.option("--single", is_flag=True, help="Choose by single results instead of training the leaders again.")
@click.option("--by-family", "each_family", is_flag=True, help="Rows for each family of landscapes by itself.")
@click.option("--lead-of", metavar="NAME", help="Instead, how far this controller is ahead after as many trainings.")
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
    """Compare controllers on synthetic landscapes: true values, in spreads of random networks, of what they choose.

    Nothing is trained. A comparison that was stopped goes on when it is given again.
    """
    from spinenas.results.pictures.study_charts import controller_plot
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
        raise click.UsageError("--rows is about the rows of a table; name it with --table")
    names = COMPARED if controllers is None else tuple(controllers.split(","))
    if lead_of is not None and lead_of not in names:
        raise click.UsageError(f"--lead-of {lead_of} is not among those compared: {', '.join(names)}")
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
        click.echo("no --table was given: no landscape is learnt from trainings", err=True)
    elif not only_rows:
        fit = measured_fit(table, space_by_name("spinenet49"))
        click.echo(
            f"{table}: {fit.num_networks} networks; of those left out, R2 {fit.r2:.2f} and Kendall {fit.kendall:.2f}",
            err=True,
        )
    with watched(lambda: "give the command again to go on"):
        outcomes = run_cells(
            wanted, out, processes=processes or os.cpu_count() or 1, note=lambda text: click.echo(text, err=True)
        )
    kind = "chosen" if single else "replicated"
    pooled = of_synthetic_families(outcomes)
    if len(pooled) < len(outcomes):
        click.echo("rows over all families are without the table's landscapes; --by-family has those as well", err=True)
    if plot is not None:
        num_landscapes = len({(outcome["family"], outcome["landscape"]) for outcome in pooled})
        write_plot(controller_plot(summary(pooled, kind), checkpoints(budget), num_landscapes).svg(), plot, force)
    rows_of = partial(summary, kind=kind) if lead_of is None else partial(lead, kind=kind, name=lead_of)
    rows = by_family(outcomes, rows_of) if each_family else rows_of(pooled)
    texts = ("family", "controller", "reached at")
    is_text = [lead_of is not None or name in texts or name.startswith("ahead at ") for name in rows[0]]
    print_rows(rows, format, {name: "digits" for name, text in zip(rows[0], is_text, strict=True) if not text})
