"""The configuration's choice of a controller: a name, and a table of options for each controller of the registry."""

from __future__ import annotations

import dataclasses
from dataclasses import field, make_dataclass
from typing import Any

from spinenas.controller.base import ControllerOptions
from spinenas.controller.former_names import table_name
from spinenas.controller.predictor.prior import absolute_prior
from spinenas.controller.registry import CONTROLLERS, check_controller_name

DEFAULT_CONTROLLER = "predictor-guided"


def _check_name(config: ControllerConfig) -> None:
    check_controller_name(config.name)


_Tables: Any = make_dataclass(
    "_Tables",
    [
        ("name", str, DEFAULT_CONTROLLER),
        *(
            (table_name(name), entry.options, field(default_factory=entry.options))
            for name, entry in CONTROLLERS.items()
        ),
    ],
    namespace={"__post_init__": _check_name},
    frozen=True,
    slots=True,
)


class ControllerConfig(_Tables):  # type: ignore[misc]  # its fields are those of the registry
    """Search algorithm: its name, and a table of options for each controller.

    Attributes:
        name: name of the search algorithm; `spinenas controllers` lists them. Options of the others have no effect.
    """

    __slots__ = ()
    name: str

    @property
    def chosen(self) -> ControllerOptions:
        """Options of the controller that `name` selects."""
        return self.options_of(self.name)

    def options_of(self, name: str) -> ControllerOptions:
        """Return the table of options of any controller."""
        options: ControllerOptions = getattr(self, table_name(name))
        return options

    def options(self) -> dict[str, Any]:
        """Keyword arguments for `make_controller`."""
        return {item.name: getattr(self.chosen, item.name) for item in dataclasses.fields(self.chosen)}

    @property
    def prior(self) -> str | None:
        """Prior of the chosen controller's predictor; None without one."""
        return getattr(self.chosen, "prior", None)

    def with_absolute_prior(self) -> ControllerConfig:
        """Make the path of the prior absolute, so that a run means the same from any folder."""
        if self.prior is None:
            return self
        chosen: Any = self.chosen
        options = dataclasses.replace(chosen, prior=absolute_prior(self.prior))
        return dataclasses.replace(self, **{table_name(self.name): options})

    def for_budget(self, num_trials: int) -> ControllerConfig:
        """Resolve the options of the chosen controller that follow from the budget."""
        return dataclasses.replace(self, **{table_name(self.name): self.chosen.for_budget(num_trials)})

    def for_schedule(self, epochs: int) -> ControllerConfig:
        """Resolve the options of the chosen controller that follow from the epochs of a training."""
        return dataclasses.replace(self, **{table_name(self.name): self.chosen.for_schedule(epochs)})
