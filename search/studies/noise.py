"""The noise study: measures how much of a result is due to the seed."""

from __future__ import annotations

import statistics
from itertools import chain
from pathlib import Path

from spinenas.results.stats.noise import Noise, noise_of
from spinenas.search.run.run import Run
from spinenas.search.studies.measured_curves import measured_curves
from spinenas.search.studies.study import different_networks, study_plan
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks
from spinenas.space.mutate import random_edit
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

MAX_EDITS = 3
"""Mutants differ from their parent by 1 to this many edits, in turn."""


def random_architectures(space: SearchSpace, count: int, seed: int) -> list[Genotype]:
    """Return SpineNet-49, if the space contains it, and random genotypes without dead blocks.

    All networks are different. A larger count starts with the same genotypes. Raises UserError.
    """
    published = [SPINENET_49] if space.contains(SPINENET_49) else []
    drawn = (sample_without_dead_blocks(space, generator(seed, "study", number)) for number in range(10 * count))
    chosen = different_networks(chain(published, drawn), count)
    if len(chosen) < count:
        raise UserError(f"the space {space.name!r} gives {len(chosen)} different networks, not {count}; ask for fewer")
    return chosen


def mutants_of_best(path: Path, count: int, seed: int) -> list[Genotype]:
    """Return mutants of the best tenth (at least two) of the networks of a run or table, ranked by mean AP.

    A search compares such networks at its end. Networks outside the space are not used as parents. Mutants have no
    dead blocks, differ from one another, and have no result yet. A larger count starts with the same mutants.
    Raises UserError.
    """
    trained = measured_curves(path)
    genotypes, aps = trained.genotypes(), trained.aps()
    of_space = [key for key, genotype in genotypes.items() if trained.space.contains(genotype)]
    ranked = sorted(of_space, key=lambda key: -statistics.fmean(aps[key]))
    parents = [genotypes[key] for key in ranked[: max(2, len(ranked) // 10)]]
    if not parents:
        raise UserError(
            f"{path} has no result of a genotype of the space {trained.space.name}; give a run that has one"
        )

    def mutant(number: int) -> Genotype:
        rng, genotype = generator(seed, "mutants", number), parents[number % len(parents)]
        for _ in range(1 + number // len(parents) % MAX_EDITS):
            genotype = random_edit(trained.space, genotype, rng)[1]
        return genotype

    alive = (genotype for genotype in map(mutant, range(100 * count)) if not dead_blocks(genotype))
    chosen = different_networks(alive, count, known=genotypes)
    if len(chosen) < count:
        raise UserError(f"{path} gives {len(chosen)} different mutants, not {count}; ask for fewer")
    return chosen


def measured_noise(run: Run) -> Noise:
    """Estimate the noise from the architectures of a study that have a result for every seed. Raises UserError."""
    seeds = study_plan(run).replicates
    return noise_of([aps for aps in measured_curves(run.folder.path).aps().values() if len(aps) == seeds])
