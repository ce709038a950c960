"""`spinenas proxy`: how far the numbers of a proxy task can be trusted."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.search.cli.options import (
    check_plot,
    configuration,
    data_option,
    data_settings,
    format_options,
    given,
    options,
    overrides_option,
    plot_options,
    print_rows,
    resume_advice,
    seed_option,
    watched,
    write_plot,
)

if TYPE_CHECKING:
    from spinenas.search.config.config import SearchConfig
    from spinenas.search.run.run import Run
    from spinenas.space.baseline import Architecture


@click.group()
def proxy() -> None:
    """Find out how far a proxy task's numbers can be trusted, before searching with it."""


_study = options(
    click.argument("source", metavar="PRESET|FILE.toml"),
    data_option,
    click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the study, new or begun."),
    seed_option,
    click.option("--workers", type=click.IntRange(min=1), help="Trainings at a time."),
    click.option("--address", help='Ray cluster to run on, or "auto".'),
    overrides_option,
    format_options,
)


@proxy.command()
@click.option(
    "--genotypes", type=click.IntRange(min=2), default=12, show_default=True, help="SpineNet-49 and random ones."
)
@click.option(
    "--mutants-of",
    type=click.Path(path_type=Path),
    metavar="RUN|TABLE",
    help="Edits of the best tenth of another run, or a table of trainings, instead: the noise where a search ends.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Trainings of each. One says nothing of noise and is enough for `proxy rank`.",
)
@_study
def noise(
    source: str,
    data: Path | None,
    out: Path,
    genotypes: int,
    mutants_of: Path | None,
    seeds: int,
    seed: int | None,
    workers: int | None,
    address: str | None,
    overrides: tuple[str, ...],
    format: str | None,
) -> None:
    """Train genotypes with several seeds: how much of a result is the architecture, how much the seed?

    The same command goes on with a study that was stopped, and answers again from one that is complete.
    """
    config = _configured(source, data, seed, workers, address, overrides)
    from spinenas.search.studies.noise import measured_noise, mutants_of_best, random_architectures
    from spinenas.space.search_space import space_by_name

    chosen = (
        random_architectures(space_by_name(config.space.name), genotypes, config.seed)
        if mutants_of is None
        else mutants_of_best(mutants_of, genotypes, config.seed)
    )
    run = _trained(config, chosen, seeds, out)
    if seeds == 1:
        click.echo(f"one training of each says nothing of noise; `spinenas proxy rank {out} STUDY` compares", err=True)
        return
    found = measured_noise(run)
    if format == "json":
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    print_rows(found.rows(), format, {})
    click.echo(found.advice(), err=True)


@proxy.command()
@click.option(
    "--random",
    "num_random",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="Random genotypes of SpineNet-49's multiply-adds.",
)
@click.option("--seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Trainings of each.")
@_study
def ladder(
    source: str,
    data: Path | None,
    out: Path,
    num_random: int,
    seeds: int,
    seed: int | None,
    workers: int | None,
    address: str | None,
    overrides: tuple[str, ...],
    format: str | None,
) -> None:
    """Train architectures whose order the paper gives: does this task see what the paper saw?

    R50-FPN, R23-SP30, R0-SP53, SpineNet-49 and R0-SP53 with one parent of each block removed; and where SpineNet-49
    stands among random genotypes of equal cost.
    """
    config = _configured(source, data, seed, workers, address, overrides)
    from spinenas.search.studies.ladder import ladder_architectures, ladder_result

    found = ladder_result(_trained(config, ladder_architectures(config, num_random), seeds, out))
    print_rows(found.rows, format, {"AP": "figure", "sd": "figure"})
    order = "none, all are equal" if found.order is None else f"{found.order:.2f}"
    click.echo(f"Kendall's tau with the paper's order: {order}", err=True)
    for better, worse in found.reversed_pairs:
        click.echo(f"the paper has {better} above {worse}, this task the other way round", err=True)
    if found.num_random:
        share, (low, high) = found.num_better / found.num_random, found.better_interval
        click.echo(
            f"SpineNet-49 is number {found.num_better + 1} of itself and {found.num_random} random genotypes of equal "
            f"cost: {share:.0%} of such genotypes are better (95 %: {low:.0%} to {high:.0%})",
            err=True,
        )


@proxy.command()
@click.argument("longer", type=click.Path(path_type=Path), metavar="LONGER_STUDY|TABLE")
@click.argument("others", type=click.Path(path_type=Path), metavar="[STUDY|TABLE]...", nargs=-1)
@click.option(
    "--wanted", type=click.FloatRange(-1, 1), default=0.7, show_default=True, help="Kendall's tau that is enough."
)
@format_options
def rank(longer: Path, others: tuple[Path, ...], wanted: float, format: str | None) -> None:
    """Compare the order that cheaper studies give to the same genotypes with that of a longer one.

    Studies are made by `spinenas proxy noise` with the same --seed and other settings, such as --set
    task.train.epochs=20; a table of trainings is one as well. Where AP was measured after earlier epochs, these are
    compared too.
    """
    from spinenas.search.studies.fidelities import advice, compare_fidelities, late_starters
    from spinenas.search.studies.measured_curves import measured_curves

    reference = measured_curves(longer)
    found = compare_fidelities(reference, [measured_curves(other) for other in others])
    print_rows([fidelity.row() for fidelity in found], format, {"cost": "figure"})
    for line in [*advice(found, wanted), *late_starters(reference)]:
        click.echo(line, err=True)


@proxy.command()
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY|TABLE")
@plot_options
@format_options
def halving(study: Path, plot: Path | None, force: bool, format: str | None) -> None:
    """Say what stopping weak trainings early would have saved, and how often it would have lost the best.

    Replayed on the curves of a study with AP after each epoch (--set task.eval.every_epochs=1), or of a table of
    trainings, in 200 random orders. A search stops early by --set halving.rungs=[2,4] --set halving.reduction=3.
    """
    from spinenas.results.pictures.study_charts import halving_plot
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


def _configured(
    source: str,
    data: Path | None,
    seed: int | None,
    workers: int | None,
    address: str | None,
    overrides: tuple[str, ...],
) -> SearchConfig:
    settings: dict[str, Any] = {"seed": seed, "executor.workers": workers, "executor.address": address}
    return configuration(source, given(settings) | data_settings(data), overrides)[0]


def _trained(config: SearchConfig, architectures: Sequence[Architecture], seeds: int, out: Path) -> Run:
    """Run a study to its end."""
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.studies.study import run_study

    with watched(resume_advice(out)):
        return run_study(config, architectures, seeds, out=out, display=display_for(sys.stderr))
