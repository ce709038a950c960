"""Configuration of the constraints: cost limits, counted in the detector that will be deployed."""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.proxy_task.config import TaskConfig
from spinenas.search.config.amount import Amount
from spinenas.search.config.checking import check_positive
from spinenas.space.limits import CostTarget, Limits


@dataclass(frozen=True, slots=True)
class ConstraintsConfig:
    """Cost limits that every proposal satisfies.

    Attributes:
        max_params: limit of the detector's trainable parameters; None for no limit.
        max_madds: limit of the detector's multiply-adds for one image; None for no limit.
        target: detector to count costs in: a published scaling and an image size, such as "49@640". None for the
            detector that trials train.
        class_channels: class channels of the detector that trials train; None until the data is known.
    """

    max_params: Amount | None = None
    max_madds: Amount | None = None
    target: str | None = None
    class_channels: int | None = None

    def __post_init__(self) -> None:
        check_positive("constraints", self, "max_params", "max_madds", "class_channels")
        if self.target is not None:
            CostTarget.published(self.target)

    @property
    def are_any(self) -> bool:
        """Whether any cost is limited."""
        return self.max_params is not None or self.max_madds is not None

    def cost_target(self, task: TaskConfig) -> CostTarget:
        """Return the detector to count costs in, with COCO's class channels until those of the data are known."""
        if self.target is not None:
            return CostTarget.published(self.target)
        detector = {"scaling": task.scaling, "image_size": task.image_size_pixels, **task.head.as_cost_arguments()}
        if self.class_channels is not None:
            detector["class_channels"] = self.class_channels
        return CostTarget(f"the task's own {task.image_size_pixels} px", detector)

    def limits(self, task: TaskConfig) -> Limits | None:
        """Return the limits of a search with this task; None without any."""
        return Limits(self.cost_target(task), self.max_params, self.max_madds) if self.are_any else None
