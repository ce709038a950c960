"""The noise study: how much of a result is the seed."""

from __future__ import annotations

import statistics
from pathlib import Path

from spinenas.results.stats.noise import Noise, noise_of
from spinenas.search.run.run import Run
from spinenas.search.studies.measured_curves import measured_curves
from spinenas.search.studies.study import planned_trainings
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks, network_key
from spinenas.space.mutate import random_edit
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

MOST_EDITS = 3
"""A mutant of a study's best differs from its parent by 1, 2, ... so many edits, in turn."""


def random_architectures(space: SearchSpace, count: int, seed: int) -> list[Genotype]:
    """SpineNet-49, where the space has it, and random ones without dead blocks, no network twice; a larger count
    begins with the same ones. Raises UserError."""
    chosen = {network_key(SPINENET_49): SPINENET_49} if space.contains(SPINENET_49) else {}
    for number in range(10 * count):
        if len(chosen) >= count:
            break
        genotype = sample_without_dead_blocks(space, generator(seed, "study", number))
        chosen.setdefault(network_key(genotype), genotype)
    if len(chosen) < count:
        raise UserError(f"the space {space.name!r} gives {len(chosen)} different networks, not {count}; ask for fewer")
    return list(chosen.values())[:count]


def mutants_of_best(path: Path, count: int, seed: int) -> list[Genotype]:
    """Return edits of the best tenth of a run's or a table's networks, at least two, by mean AP: where searches end.

    Published networks of another space have no part in it. None has a dead block, is one of those with a result or one
    of the others; a larger count begins with the same ones. Raises UserError.
    """
    trained = measured_curves(path)
    genotypes, aps = trained.genotypes(), trained.aps()
    of_space = [key for key, genotype in genotypes.items() if trained.space.contains(genotype)]
    ranked = sorted(of_space, key=lambda key: -statistics.fmean(aps[key]))
    parents = [genotypes[key] for key in ranked[: max(2, len(ranked) // 10)]]
    if not parents:
        raise UserError(f"{path} has no result of a genotype of {trained.space.name}; give a run that has")
    chosen: dict[str, Genotype] = {}
    for number in range(100 * count):
        if len(chosen) >= count:
            break
        rng = generator(seed, "mutants", number)
        genotype = parents[number % len(parents)]
        for _ in range(1 + number // len(parents) % MOST_EDITS):
            genotype = random_edit(trained.space, genotype, rng)[1]
        if network_key(genotype) not in genotypes and not dead_blocks(genotype):
            chosen.setdefault(network_key(genotype), genotype)
    if len(chosen) < count:
        raise UserError(f"{path} gives {len(chosen)} different mutants, not {count}; ask for fewer")
    return list(chosen.values())


def measured_noise(run: Run) -> Noise:
    """Answer a noise study, by the architectures that have a result for every seed. Raises UserError."""
    seeds = planned_trainings(run).replicates
    return noise_of([aps for aps in measured_curves(run.folder.path).aps().values() if len(aps) == seeds])
