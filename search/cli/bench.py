"""`spinenas bench`: predicts the cost of trials, and compares controllers."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import click

from spinenas.search.cli.options import (
    CommandGroup,
    check_plot,
    configuration,
    data_option,
    format_options,
    note,
    number_option,
    overrides_of,
    overrides_option,
    path_option,
    plot_options,
    source_argument,
    watched,
    write_plot,
)
from spinenas.search.cli.table import print_facts, print_rows


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
    from spinenas.search.planning.predicted_cost import predicted_facts

    with watched(lambda: "no calibration was kept", waits_for="the training step"):
        facts = predicted_facts(config, note, calibrate_first=calibrate)
    print_facts(facts, format, {"value": "digits"})


@bench.command("controllers")
@path_option("--out", "File of the outcomes; an existing one is continued.", required=True)
@click.option("--controllers", metavar="A,B,...", help="Controllers to compare. The default is all but tpe.")
@number_option("--budget", least=8, default=1000, help="Trainings in each search.")
@number_option("--landscapes", "num_landscapes", default=16, help="Number of landscapes, of each family in turn.")
@number_option("--first-landscape", least=0, default=0, help="Number of the first landscape.")
@number_option("--seeds", "num_seeds", default=5, help="Searches on each landscape.")
@number_option("--workers", default=20, help="Simulated trainings at the same time.")
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    metavar="SD",
    help="Noise of a training on all landscapes, in "
    "standard deviations of random networks. The default is 0.15, 0.35 and 0.6 in turn.",
)
@click.option(
    "--crossing", is_flag=True, help="Let learning curves cross: early epochs say little about the final order."
)
@click.option(
    "--epoch-budgets",
    metavar="N,N,...",
    help="Budgets of controllers that count epochs, in whole trainings. The default is those of 10, 20, 30, 50, 100, "
    "200, 330 and 500 that are below --budget and at least a twentieth of it.",
)
@path_option("--table", "Table of trainings to learn landscapes from.")
@click.option("--rows", "only_rows", is_flag=True, help="Search only among the networks of the table.")
@click.option("--single", is_flag=True, help="Choose the winner by single results, without replicates.")
@click.option("--by-family", "each_family", is_flag=True, help="Print separate rows for each family of landscapes.")
@click.option("--lead-of", metavar="NAME", help="Print how far this controller leads the others after equal trainings.")
@click.option(
    "--reach",
    "only_reach",
    is_flag=True,
    help="Print on how many landscapes each controller has, after fewer trainings, more than reinforce at the end.",
)
@number_option("--processes", help="Searches at the same time. The default is one for each core.")
@plot_options
@format_options
def bench_controllers(
    out: Path,
    controllers: str | None,
    table: Path | None,
    only_rows: bool,
    noise: float | None,
    crossing: bool,
    epoch_budgets: str | None,
    processes: int | None,
    single: bool,
    each_family: bool,
    lead_of: str | None,
    only_reach: bool,
    plot: Path | None,
    force: bool,
    format: str | None,
    **sizes: int,
) -> None:
    """Compare controllers on synthetic landscapes.

    Nothing is trained. The figures are true values of the chosen networks, in standard deviations of random networks.
    Budgets count whole trainings. A controller that counts epochs runs one search for each of its budgets. Repeat the
    command to resume a stopped comparison.
    """
    from spinenas.results.pictures.charts.study_charts import controller_plot
    from spinenas.search.controller_bench.comparison import COMPARED, cells, run_cells
    from spinenas.search.controller_bench.learnt_landscape import measured_fit
    from spinenas.search.controller_bench.outcome_tables import (
        REFERENCE,
        by_family,
        lead,
        of_synthetic_families,
        reach,
        summary,
    )
    from spinenas.space.search_space import space_by_name

    check_plot(plot, force)
    if only_rows and table is None:
        raise click.UsageError("--rows needs the table of --table; give both")
    names = COMPARED if controllers is None else tuple(controllers.split(","))
    if lead_of is not None and lead_of not in names:
        raise click.UsageError(f"--lead-of {lead_of} is not one of the compared controllers: {', '.join(names)}")
    if only_reach and (lead_of is not None or REFERENCE not in names):
        raise click.UsageError(f"--reach needs {REFERENCE} among --controllers, and takes no --lead-of")
    wanted = cells(
        names,
        **sizes,
        table=None if table is None else str(table),
        rows=only_rows,
        noise=noise,
        crossing=crossing,
        budgets=_budgets(epoch_budgets),
    )
    if table is None:
        note("without --table no landscape is learnt from trainings")
    elif not only_rows:
        fit = measured_fit(table, space_by_name("spinenet49"))
        note(
            f"{table}: {fit.num_networks} networks; on held-out networks R2 is {fit.r2:.2f} and Kendall's tau "
            f"{fit.kendall:.2f}"
        )
    with watched(lambda: "repeat the command to resume it", waits_for="the running searches"):
        outcomes = run_cells(wanted, out, processes=processes or os.cpu_count() or 1, note=note)
    kind = "chosen" if single else "replicated"
    pooled = of_synthetic_families(outcomes)
    if len(pooled) < len(outcomes):
        note("these rows exclude the landscapes of the table; --by-family includes them")
    if plot is not None:
        num_landscapes = len({(outcome["family"], outcome["landscape"]) for outcome in pooled})
        chart = controller_plot(summary(pooled, kind), num_landscapes)
        write_plot(chart.svg(), plot, force)
    if only_reach:
        rows_of = partial(reach, kind=kind)
    else:
        rows_of = partial(summary, kind=kind) if lead_of is None else partial(lead, kind=kind, name=lead_of)
    rows = by_family(outcomes, rows_of) if each_family else rows_of(pooled)
    texts = ("family", "controller", "reached at", "tested at", "ahead")
    figures = [] if only_reach or lead_of is not None else [name for name in rows[0] if name not in texts]
    print_rows(rows, format, dict.fromkeys(figures, "digits"))


def _budgets(text: str | None) -> list[int] | None:
    """Return the whole numbers of a list such as "100,200"; None for None."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.UsageError(f"--epoch-budgets is {text!r}; it lists whole numbers, such as 100,200,330")
    return sorted({int(part) for part in parts})
