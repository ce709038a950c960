"""A table of really trained genotypes as all there is: a controller may ask for its networks alone.

What a controller proposes is replaced by the network of the table that is most like it and was not asked for yet: the
one that shares most Weisfeiler-Lehman labels of the network that is built with it. The controller takes that for its
own proposal. Results are the table's trainings, true values the means of all trainings of a network.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.results.record import Evaluation
from spinenas.search.built_labels import built_labels
from spinenas.search.measured_curves import measured_curves
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace

FEWEST_ROWS = 20


class TableRows:
    """The networks of a table that are of a space.

    Attributes:
        name: for streams of random numbers.
    """

    name = "rows"

    def __init__(self, path: Path, space: SearchSpace) -> None:
        """Read them. Raises UserError."""
        measured = measured_curves(path)
        self._genotypes = {key: genotype for key, genotype in measured.genotypes().items() if space.contains(genotype)}
        if len(self._genotypes) < FEWEST_ROWS:
            raise UserError(
                f"{path} has {len(self._genotypes)} networks of {space.name}; searches are replayed on {FEWEST_ROWS} "
                "or more"
            )
        self._aps = {key: aps for key, aps in measured.aps().items() if key in self._genotypes}
        self._labels = {key: built_labels(genotype) for key, genotype in self._genotypes.items()}
        means = np.array([np.mean(aps) for aps in self._aps.values()])
        self._mean, self._spread = float(means.mean()), float(means.std())

    def value(self, genotype: Genotype) -> float:
        """Return the mean of its trainings, in standard deviations above the mean of all rows."""
        return (float(np.mean(self._aps[network_key(genotype)])) - self._mean) / self._spread

    def measured(self, genotype: Genotype, replicate: int, seed: int) -> Evaluation:
        """Return one of its trainings; which comes first follows from the seed, and after the last the first again."""
        key = network_key(genotype)
        aps = self._aps[key]
        order = generator(seed, f"bench/rows/{key}").permutation(len(aps))
        return Evaluation(aps[order[replicate % len(aps)]])

    def ask(self, controller: Controller, taken: Sequence[Genotype]) -> Proposal | None:
        """Let a controller propose a row that was not asked for yet. Raises SpaceExhausted when there is none."""
        known = {network_key(genotype) for genotype in taken}
        left = [key for key in self._genotypes if key not in known]
        if not left:
            raise SpaceExhausted("every row was asked for")
        wanted = copy.deepcopy(controller).ask()
        if wanted is None:
            return None
        assert isinstance(wanted.genotype, Genotype), "a search proposes genotypes"
        labels = built_labels(wanted.genotype)
        nearest = max(left, key=lambda key: (labels & self._labels[key]).total())
        proposal = replace(wanted, genotype=self._genotypes[nearest])
        controller.replay_ask(proposal)
        return proposal
