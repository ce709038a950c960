"""`spinenas space`: describes and samples search spaces, and checks genotypes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinenas.search.cli.options import PATH, CommandGroup, format_options, number_option
from spinenas.search.cli.table import print_facts, print_rows

if TYPE_CHECKING:
    from spinenas.space.search_space import SearchSpace


@click.group(cls=CommandGroup)
def space() -> None:
    """Describe or sample a search space, or check a genotype."""


@space.command()
@click.argument("name", metavar="PRESET|SPACE")
@format_options
def describe(name: str, format: str | None) -> None:
    """Print the rules and the size of a search space."""
    chosen = _space(name)
    facts = {
        "name": chosen.name,
        "rules": chosen.identity,
        "decisions": len(chosen.decisions),
        "decision vectors": chosen.num_vectors(),
        "genotypes": chosen.size(),
    }
    print_facts(facts, format)


@space.command()
@click.argument("name", metavar="PRESET|SPACE")
@number_option("-n", "count", default=5, help="Number of genotypes.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of the draw.")
@format_options
def sample(name: str, count: int, seed: int, format: str | None) -> None:
    """Print random genotypes, with every decision drawn uniformly."""
    from spinenas.space.graph import dead_blocks
    from spinenas.space.random_streams import generator

    chosen = _space(name)
    rows = []
    for number in range(count):
        genotype = chosen.sample(generator(seed, "space/sample", number))
        dead = " ".join(map(str, dead_blocks(genotype)))
        rows.append({"key": genotype.key, "dead": dead or None, "genotype": genotype.text})
    print_rows(rows, format)


@space.command()
@click.argument("file", type=PATH)
@click.option(
    "--space",
    "name",
    default="spinenet49",
    show_default=True,
    metavar="PRESET|SPACE",
    help="Search space with the rules.",
)
def check(file: Path, name: str) -> None:
    """Check an exported genotype against the rules of a search space."""
    from spinenas.results.export.architecture_files import read_genotype

    chosen = _space(name)
    genotype = read_genotype(file)
    chosen.check(genotype)
    click.echo(f"{genotype.key} is a valid genotype of {chosen.name}")


def _space(name: str) -> SearchSpace:
    """Return a search space by its name or that of a preset. Raises UserError."""
    from spinenas.search.config.presets import PRESETS
    from spinenas.space.search_space import space_by_name

    return space_by_name(PRESETS[name].space.name if name in PRESETS else name)
