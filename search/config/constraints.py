"""What a search may propose, as configured: costs of the detector that an architecture is meant for."""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.proxy_task.config import TaskConfig
from spinenas.search.config.amount import Amount
from spinenas.space.errors import UserError
from spinenas.space.limits import CostTarget, Limits


@dataclass(frozen=True, slots=True)
class ConstraintsConfig:
    """What every proposal satisfies. In a configuration file an amount may be a text as well, such as "28.5M".

    Attributes:
        max_params: trainable parameters of the detector at most; None for any number.
        max_madds: multiply-adds of the detector for one image at most; None for any number.
        target: what is counted: a published scaling and an image size, such as "49@640", with that model's head for
            COCO; None for the detector that the task trains.
        class_channels: of the detector that the task trains; filled in when the data is known.
    """

    max_params: Amount | None = None
    max_madds: Amount | None = None
    target: str | None = None
    class_channels: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_params", "max_madds", "class_channels"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"constraints.{name} is {value}; it is a number above 0")
        if self.target is not None:
            CostTarget.published(self.target)

    @property
    def are_any(self) -> bool:
        """Whether anything is limited."""
        return self.max_params is not None or self.max_madds is not None

    def cost_target(self, task: TaskConfig) -> CostTarget:
        """Return what is counted, of COCO's class channels while those of the data are not known."""
        if self.target is not None:
            return CostTarget.published(self.target)
        detector = {
            "scaling": task.scaling,
            "image_size": task.image_size_pixels,
            **task.head.as_cost_arguments(),
            **({} if self.class_channels is None else {"class_channels": self.class_channels}),
        }
        return CostTarget(f"the task's own {task.image_size_pixels} px", detector)

    def limits(self, task: TaskConfig) -> Limits | None:
        """Return the limits of a search with this task; None where there are none."""
        return Limits(self.cost_target(task), self.max_params, self.max_madds) if self.are_any else None
