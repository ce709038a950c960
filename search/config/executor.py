"""Configuration of the executor, which runs trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spinenas.search.config.checking import check_positive
from spinenas.space.errors import UserError


@dataclass(frozen=True, slots=True)
class ExecutorConfig:
    """Where and how trials run.

    Attributes:
        kind: "ray" trains in long-lived Ray actors, "serial" in this process one trial after the other, "tune" under
            Ray Tune.
        workers: trials at the same time; "serial" runs one. On a cluster, fewer run while there is no room for all.
        cpus_per_worker: CPU cores that Ray reserves for each worker.
        gpus_per_worker: GPUs that Ray reserves for each worker; a fraction shares a GPU, and 0 trains on the CPU. None
            divides all GPUs evenly, at most one for each worker.
        gpu_memory_gib: GPU memory that a trial may use; None for no limit. Each GPU gets as many workers as fit, and a
            trial that exceeds the limit fails as out of memory. `spinenas preflight` measures the peak.
        tpus_per_worker: TPU chips of each worker: 0, 1, 2, 4 or 8. Experimental: not yet tested on hardware.
        threads_per_trial: CPU threads of each trial. Results differ in the last bits between thread counts.
        address: address of a running Ray cluster, or "auto" to find one; None or "local" starts Ray on this machine.
        ship_code: send this installation's code to the workers of a cluster, so that all run the same version.
        data_command: shell command that fetches the data, run once on each machine before its first trial.
        ordered: process results in the order of trial numbers, so that a search does not depend on timing. Workers may
            wait for each other.
        trial_minutes: time limit of a trial; None for no limit. It restarts for each attempt and after each rung of
            halving. A trial over the limit fails.
        stall_minutes: time after which a silent worker causes a warning.
        max_attempts: attempts of a trial whose worker dies while its machine stays alive.
        out_of_memory_retries: times that a trial out of memory is repeated with half the batch size.
        max_errors: the search stops after this many trials of a session failed by a bug or invalid data.
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
                "executor.gpu_memory_gib determines how workers share GPUs; leave out executor.gpus_per_worker and "
                "executor.tpus_per_worker"
            )
        if self.tpus_per_worker not in (0, 1, 2, 4, 8):
            raise UserError(f"executor.tpus_per_worker is {self.tpus_per_worker}; it is 0, 1, 2, 4 or 8 chips")
        if self.tpus_per_worker and self.gpus_per_worker:
            raise UserError("a worker has GPUs or TPUs; leave out executor.gpus_per_worker or executor.tpus_per_worker")

    @property
    def trial_seconds(self) -> float | None:
        """The time limit of a trial; None for no limit."""
        return None if self.trial_minutes is None else 60 * self.trial_minutes
