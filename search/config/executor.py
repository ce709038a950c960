"""Where trials run, as configured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from spinenas.space.errors import UserError


@dataclass(frozen=True, slots=True)
class ExecutorConfig:
    """Where trials run.

    Attributes:
        kind: "ray", warm actors; "serial", one after the other in this process; "tune", Ray Tune.
        workers: trials at a time ("serial": one); on a cluster, as many as find room, as it grows and shrinks.
        cpus_per_worker: what Ray reserves.
        gpus_per_worker: what Ray reserves, a fraction is fine; None shares all GPUs evenly, 0 trains on the CPU.
        gpu_memory_gib: what a trial may take of a GPU's memory (`spinenas preflight` tells the peak of one); as many
            workers share each GPU as it holds, and a trial that takes more has run out of memory itself.
        tpus_per_worker: whole chips, 0, 1, 2, 4 or 8; experimental, it has not run on hardware yet.
        threads_per_trial: CPU threads; sums differ in the last bit with their number.
        address: of a running Ray cluster, or "auto"; None or "local" starts Ray on this machine.
        ship_code: send this installation's spinenas to the workers of a cluster, so that all run the same code.
        data_command: a shell command that fetches the data, run once on each machine before its first trial.
        ordered: ask for a trial only when all but the `workers` trials before it have told their results, in
            the order of their numbers: the same run, whoever finishes first.
        trial_minutes: a trial that takes longer is ended and has failed; None for no limit. Counted anew for each
            attempt, and after each rung of halving.
        stall_minutes: a worker that says nothing for so long is remarked on.
        max_attempts: how often a trial is tried whose worker dies on a machine that lives on.
        out_of_memory_retries: how often a trial that runs out of memory is tried again with half the batch.
        max_errors: the run stops when so many trials of a session failed by a bug or invalid data.
    """

    kind: Literal["ray", "serial", "tune"] = "ray"
    workers: int = 2
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None
    gpu_memory_gib: float | None = None
    tpus_per_worker: int = 0
    threads_per_trial: int = 1
    address: str | None = None
    ship_code: bool = True
    data_command: str | None = None
    ordered: bool = False
    trial_minutes: float | None = None
    stall_minutes: float = 10.0
    max_attempts: int = 4
    out_of_memory_retries: int = 0
    max_errors: int = 3

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_trial", "max_attempts", "max_errors"):
            if getattr(self, name) < 1:
                raise UserError(f"executor.{name} is {getattr(self, name)}; it is at least 1")
        for name in ("cpus_per_worker", "gpus_per_worker", "out_of_memory_retries"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"executor.{name} is {getattr(self, name)}; it is 0 or more")
        check_positive("executor", self, "trial_minutes", "stall_minutes", "gpu_memory_gib")
        if self.gpu_memory_gib is not None and (self.gpus_per_worker is not None or self.tpus_per_worker):
            raise UserError(
                "executor.gpu_memory_gib says how workers share GPUs; leave out executor.gpus_per_worker and "
                "executor.tpus_per_worker"
            )
        if self.tpus_per_worker not in (0, 1, 2, 4, 8):
            raise UserError(f"executor.tpus_per_worker is {self.tpus_per_worker}; Ray lends 1, 2, 4 or 8 whole chips")
        if self.tpus_per_worker and self.gpus_per_worker:
            raise UserError("a worker has GPUs or TPUs; leave out executor.gpus_per_worker or executor.tpus_per_worker")

    @property
    def trial_seconds(self) -> float | None:
        """The time limit of a trial; None for no limit."""
        return None if self.trial_minutes is None else 60 * self.trial_minutes


def check_positive(table: str, part: Any, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{table}.{name} is {value}; it is a number above 0")
