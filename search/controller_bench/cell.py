"""One search of a comparison: everything that its outcome depends on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spinenas.controller.registry import CONTROLLERS
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.space.errors import UserError

CHECKPOINTS = (10, 20, 30, 50, 100, 200, 300, 350, 500, 1000)
"""Budgets, in trials, at which outcomes are recorded, from a twentieth of the cell's budget; its end is one as well."""

EPOCH_BUDGETS = (10, 20, 30, 50, 100, 200, 330, 500)
"""Budgets, in whole trainings, of the searches of controllers that count epochs. Each is a search of its own, since
such a controller plans with its budget."""

REPLICATE_SHARE = 0.1
"""Share of a budget, equal to the default of `budget.replicate_share`."""

TABLE = "table"
"""The family of landscapes learnt from a table."""

ROWS = "rows"
"""The family in which searches are restricted to the networks of a table (`tabular.py`)."""

BY_MADDS = "random by madds"
"""The control that trains random networks and selects the one with most multiply-adds, whatever the results."""

BENCH_PROTOCOL = 1
"""Version of outcomes: raised when the code changes them, so that earlier outcomes are not reused."""

CURVES_PROTOCOL = 1
"""The same for outcomes that depend on the early epochs of trainings."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One search.

    Attributes:
        controller: a name in `CONTROLLERS`, or BY_MADDS.
        family, landscape: family and number of the landscape; all numbers of "rows" are the same landscape.
        seed: seed of the controller and the trainings; landscapes of a comparison have different seeds.
        workers: trainings at the same time.
        noise: noise of a training of a mean network, in standard deviations over random networks; unused for "rows".
        budget: total number of trainings; a controller that counts epochs may spend that many times their length.
        space: name of the search space.
        table: file of trainings, for the families "table" and "rows".
        crossing: whether learning curves cross: the order after three of five epochs says little about the final one.
        options: options of the controller; the others are those of a search with this budget.
    """

    controller: str
    family: str
    landscape: int
    seed: int
    workers: int
    noise: float
    budget: int
    space: str = "spinenet49"
    table: str | None = None
    crossing: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def controller_name(self) -> str:
        """Name of the controller in `CONTROLLERS`."""
        return "random" if self.controller == BY_MADDS else self.controller

    @property
    def counts_epochs(self) -> bool:
        """Whether the controller pauses trainings and counts epochs."""
        return CONTROLLERS[self.controller_name].counts_epochs

    def all_options(self) -> dict[str, Any]:
        """Return all options of the controller, with defaults."""
        config = SearchConfig(controller=ControllerConfig(self.controller_name), budget=BudgetConfig(self.budget))
        return config.resolved().controller.options() | dict(self.options)

    @property
    def protocol(self) -> int | str:
        """BENCH_PROTOCOL, with the controller's own protocol unless that is 1, and CURVES_PROTOCOL if curves matter."""
        own = CONTROLLERS[self.controller_name].options(**self.all_options()).protocol
        if self.counts_epochs:
            return f"{BENCH_PROTOCOL}.{own}.{CURVES_PROTOCOL}"
        return BENCH_PROTOCOL if own == 1 else f"{BENCH_PROTOCOL}.{own}"

    def identity(self) -> dict[str, Any]:
        """Return all that the outcome depends on, with all options, and a digest of the table instead of its path."""
        return {
            **asdict(self),
            "options": self.all_options(),
            "table": None if self.table is None else _digest(self.table),
            "crossing": self.crossing and self.counts_epochs,  # others never see the early epochs
            "protocol": self.protocol,
        }


def checkpoints(budget: int) -> list[int]:
    """Return the checkpoints of a cell with this budget."""
    return sorted({point for point in CHECKPOINTS if budget / 20 <= point < budget} | {budget})


def epoch_budgets(budget: int) -> list[int]:
    """Return the budgets of a controller that counts epochs, beside others with this budget."""
    return [point for point in EPOCH_BUDGETS if budget / 20 <= point < budget] or [budget]


@functools.cache
def _digest(table: str) -> str:
    try:
        return hashlib.sha256(Path(table).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{table} is not a table of trainings ({error}); name the file of one") from error
