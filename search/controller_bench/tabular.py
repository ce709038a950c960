"""A search restricted to the networks of a table of real trainings.

Each proposal is replaced by the most similar network of the table that was not proposed yet: the one that shares
most Weisfeiler-Lehman labels of the built network. The controller treats it as its own proposal. Results are
the table's trainings with their curves. The true value of a network is the mean of its trainings.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from spinenas.controller.base import Continuation, Controller, EndsSearch, Proposal, SpaceExhausted, Step
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.search.controller_bench.curves import evaluation_up_to
from spinenas.search.controller_bench.wl_labels import wl_labels
from spinenas.search.studies.measured_curves import measured_curves
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace


class TableRows:
    """The networks of a table that belong to a space, as a landscape. Reading them raises UserError.

    Attributes:
        genotypes: genotypes by network key.
        num_epochs: length of the trainings.
    """

    def __init__(self, path: Path, space: SearchSpace) -> None:
        curves = measured_curves(path)
        networks = curves.networks(space, use="searches are replayed on")
        self.genotypes = {key: genotype for key, (genotype, _) in networks.items()}
        self.num_epochs = max(curves.epochs())
        self._aps = {key: aps for key, (_, aps) in networks.items()}
        self._curves: dict[str, list[list[float]]] = {key: [] for key in networks}
        for training in curves.trainings:
            if training.network_key in networks:
                early = [training.ap_by_epoch[epoch] for epoch in range(1, self.num_epochs)]
                self._curves[training.network_key].append([*early, training.ap])
        means = np.array([np.mean(aps) for aps in self._aps.values()])
        self._mean, self._spread = float(means.mean()), float(means.std())

    def value(self, genotype: Genotype) -> float:
        """Return the mean of a network's trainings, in standard deviations above the mean of all rows."""
        return (float(np.mean(self._aps[network_key(genotype)])) - self._mean) / self._spread

    def train(
        self, genotype: Genotype, replicate: int, *, seed: int, noise: float, until: int | None = None
    ) -> Evaluation:
        """Return one of a network's trainings, in an order that follows from the seed and repeats after the last.

        With `until`, it pauses after that epoch. `noise` is unused: the trainings have their own.
        """
        key = network_key(genotype)
        curves = self._curves[key]
        order = generator(seed, f"bench/rows/{key}").permutation(len(curves))
        return evaluation_up_to(until, curves[order[replicate % len(curves)]])


class RestrictedToRows:
    """Wraps a controller and replaces each proposal by the most similar row, each row once.

    Args:
        controller: the search algorithm.
        rows: the networks to propose.
    """

    def __init__(self, controller: Controller, rows: TableRows) -> None:
        self._controller = controller
        self._remaining = dict(rows.genotypes)
        self._labels = {key: wl_labels(genotype) for key, genotype in self._remaining.items()}

    def ask(self) -> Step | None:
        """Return the controller's step, with the row most similar to a new network instead of it.

        Raises SpaceExhausted. When every row was proposed, a controller that replicates leaders itself does only that.
        """
        if not self._remaining:
            if not isinstance(self._controller, EndsSearch):
                raise SpaceExhausted("every row was proposed")
            self._controller.end_search()
        step = copy.deepcopy(self._controller).ask()
        if isinstance(step, Proposal) and step.stage is Stage.SEARCH:
            assert isinstance(step.genotype, Genotype), "a search proposes genotypes"
            labels = wl_labels(step.genotype)
            nearest = max(self._remaining, key=lambda key: (labels & self._labels[key]).total())
            # `info`, such as a log-probability, belongs to the original proposal.
            step = replace(step, genotype=self._remaining[nearest], info={}, known_key=nearest)
        if step is not None:
            self.replay_ask(step)
        return step

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Pass a result on."""
        return self._controller.tell(number, result)

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Pass an archived result on."""
        self._controller.observe(genotype, evaluation)

    def replay_ask(self, step: Step) -> None:
        """Adopt a recorded step."""
        if not isinstance(step, Continuation):
            self._remaining.pop(network_key(step.genotype), None)
        self._controller.replay_ask(step)
