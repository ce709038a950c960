"""`spinenas proxy`: studies of how reliable the results of a proxy task are."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.search.cli.options import (
    PATH,
    CommandGroup,
    address_option,
    check_plot,
    configuration,
    data_option,
    format_options,
    note,
    number_option,
    options,
    overrides_of,
    overrides_option,
    path_option,
    plot_options,
    resume_advice,
    seed_option,
    source_argument,
    watched,
    workers_option,
    write_plot,
)
from spinenas.search.cli.table import print_rows

if TYPE_CHECKING:
    from spinenas.search.config.config import SearchConfig
    from spinenas.search.run.run import Run
    from spinenas.space.baseline import Architecture


@click.group(cls=CommandGroup)
def proxy() -> None:
    """Study how reliable the results of a proxy task are."""


_study_options = options(
    data_option,
    seed_option,
    workers_option,
    address_option,
    overrides_option,
    format_options,
)
_out_option = path_option("--out", "Folder of the study, new or begun.", metavar="FOLDER", required=True)


@proxy.command()
@source_argument
@_out_option
@number_option("--genotypes", least=2, default=12, help="Number of genotypes: SpineNet-49 and random ones.")
@path_option(
    "--mutants-of",
    "Train edits of the best tenth of another run or table instead, to measure the noise late in a search.",
    metavar="RUN|TABLE",
)
@number_option(
    "--seeds",
    default=3,
    help="Trainings of each genotype. One measures no noise, but is enough for `spinenas proxy rank`.",
)
@_study_options
def noise(
    source: str, out: Path, genotypes: int, mutants_of: Path | None, seeds: int, format: str | None, **options: Any
) -> None:
    """Measure how much of a result is due to the seed.

    The command trains genotypes with several seeds each, and separates the variance of architectures from that of
    seeds. The same command resumes a stopped study, and prints the answer of a complete one again.
    """
    config, _ = configuration(source, overrides_of(options))
    from spinenas.search.studies.noise import measured_noise, mutants_of_best, random_architectures
    from spinenas.space.search_space import space_by_name

    chosen = (
        random_architectures(space_by_name(config.space.name), genotypes, config.seed)
        if mutants_of is None
        else mutants_of_best(mutants_of, genotypes, config.seed)
    )
    run = _trained(config, chosen, seeds, out)
    if seeds == 1:
        note(
            "one training of each measures no noise; compare the study with: spinenas proxy rank "
            f"{shlex.quote(str(out))} STUDY"
        )
        return
    found = measured_noise(run)
    if format == "json":
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    print_rows(found.rows(), format)
    note(found.advice())


@proxy.command()
@source_argument
@_out_option
@number_option(
    "--random",
    "num_random",
    least=0,
    default=30,
    help="Number of random genotypes with as many multiply-adds as SpineNet-49.",
)
@number_option("--seeds", least=2, default=3, help="Trainings of each architecture.")
@_study_options
def ladder(source: str, out: Path, num_random: int, seeds: int, format: str | None, **options: Any) -> None:
    """Check whether a task ranks architectures as the paper does.

    The command trains R50-FPN, R23-SP30, R0-SP53, SpineNet-49, and R0-SP53 with one parent of each block removed. It
    also ranks SpineNet-49 among random genotypes of equal cost.
    """
    config, _ = configuration(source, overrides_of(options))
    from spinenas.search.studies.ladder import LADDER, ladder_architectures, ladder_result

    found = ladder_result(_trained(config, ladder_architectures(config, num_random), seeds, out))
    print_rows(found.rows, format, {"AP": "figure", "sd": "figure"})
    unchecked = ", ".join(f"{entry.published_ap}" for entry in LADDER if not entry.is_checked)
    note(f"not checked against the paper's table: {unchecked}")
    order = "undefined, all are equal" if found.order is None else f"{found.order:.2f}"
    note(f"Kendall's tau with the paper's order: {order}")
    for better, worse in found.reversed_pairs:
        note(f"the paper ranks {better} above {worse}, this task ranks it below")
    if found.num_random:
        share, (low, high) = found.num_better / found.num_random, found.better_interval
        note(
            f"SpineNet-49 ranks {found.num_better + 1} of {found.num_random + 1}, with {found.num_random} random "
            f"genotypes of equal cost; {share:.0%} of such genotypes are better (95 %: {low:.0%} to {high:.0%})"
        )


@proxy.command()
@click.argument("longer", type=PATH, metavar="LONGER_STUDY|TABLE")
@click.argument("others", type=PATH, metavar="[STUDY|TABLE]...", nargs=-1)
@click.option(
    "--wanted",
    type=click.FloatRange(-1, 1),
    default=0.7,
    show_default=True,
    metavar="TAU",
    help="Kendall's tau that is high enough.",
)
@format_options
def rank(longer: Path, others: tuple[Path, ...], wanted: float, format: str | None) -> None:
    """Find the cheapest training that ranks as a longer one does.

    The command compares how studies rank the same genotypes. Make the studies with `spinenas proxy noise`, the same
    --seed and other settings, such as --set task.train.epochs=20. A table of trainings serves as a study. AP that was
    measured after earlier epochs is compared as well.
    """
    from spinenas.search.studies.fidelities import advice, compare_fidelities, rank_shifts
    from spinenas.search.studies.measured_curves import measured_curves

    reference = measured_curves(longer)
    found = compare_fidelities(reference, [measured_curves(other) for other in others])
    print_rows([fidelity.row() for fidelity in found], format, {"cost": "figure"})
    for line in [*advice(found, wanted), *rank_shifts(reference)]:
        note(line)


@proxy.command()
@click.argument("study", type=PATH, metavar="STUDY|TABLE")
@plot_options
@format_options
def halving(study: Path, plot: Path | None, force: bool, format: str | None) -> None:
    """Measure what early stopping saves and loses.

    The command replays early stopping on the curves of a study in 200 random orders. It reports the epochs saved, and
    how often the best training is stopped. The study needs AP after each epoch (--set task.eval.every_epochs=1). A
    table of trainings serves as a study. Use early stopping in a search with --set halving.rungs=[2,4] --set
    halving.reduction=3.
    """
    from spinenas.results.pictures.charts.study_charts import halving_plot
    from spinenas.search.studies.fidelities import halving_options
    from spinenas.search.studies.measured_curves import measured_curves

    check_plot(plot, force)
    rows = halving_options(measured_curves(study))
    if plot is not None:
        write_plot(halving_plot(rows).svg(), plot, force)
    print_rows(
        rows,
        format,
        {"epochs saved": "figure", "best is stopped": "figure", "AP lost": "figure", "AP lost, worst order": "figure"},
    )


def _trained(config: SearchConfig, architectures: Sequence[Architecture], seeds: int, out: Path) -> Run:
    """Run a study until it is complete."""
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.studies.study import run_study

    with watched(resume_advice(out)):
        return run_study(config, architectures, seeds, out=out, display=display_for(sys.stderr))
