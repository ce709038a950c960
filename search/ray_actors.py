"""Trials in warm Ray actors: each holds the prepared task and does one job after the other.

Our own loop drives them (rather than Ray Tune), so that the journal is written before anything is acted on; and
an actor that lives on costs a trial some milliseconds, where a fresh process costs seconds. spinenas must be
installed on every machine of a cluster.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from spinenas.results.record import Failure, FailureKind
from spinenas.search.config import ExecutorConfig
from spinenas.search.executor import Event, Finished, Job, Task, stream_job
from spinenas.space.errors import UserError

LOCAL = "local"
"""The address that means a Ray of our own on this machine, as Ray has it; no address means the same."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Shared memory of a Ray started here. Only the task and small events pass through it; images do not."""


@contextmanager
def ray_session(config: ExecutorConfig) -> Iterator[float]:
    """Connect to Ray, or start one for this search and stop it afterwards. Raises UserError.

    Yields:
        GPUs of each worker.
    """
    started_here = not ray.is_initialized()
    if started_here:
        _init(config)
    try:
        yield _gpus_per_worker(config, ray.cluster_resources())  # type: ignore[no-untyped-call]
    finally:
        if started_here:
            ray.shutdown()


def _init(config: ExecutorConfig) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of the two behaviours for workers without GPUs, this is the coming default, and silences the notice of it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if config.address not in (None, LOCAL):
        try:
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"no Ray cluster answers at {config.address!r} ({str(error).splitlines()[0]}); "
                "start one with `ray start --head`, or leave the address out"
            ) from error
    else:
        # A Ray of our own has as many logical CPUs as the workers need; how many are real is the user's choice.
        num_cpus = math.ceil(config.workers * config.cpus_per_worker)
        # Said aloud: without an address Ray would join the cluster of RAY_ADDRESS, or one that runs on this machine.
        ray.init(address=LOCAL, num_cpus=max(1, num_cpus), object_store_memory=OBJECT_STORE_BYTES, **quiet)


def _gpus_per_worker(config: ExecutorConfig, resources: dict[str, float]) -> float:
    """Check that all workers fit at once, and return each one's share of the GPUs."""
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    share = config.gpus_per_worker
    if share is None:
        share = gpus / config.workers
        # Ray takes whole GPUs or a part of one; rounded down, so that all workers fit.
        share = float(math.floor(share)) if share >= 1 else math.floor(share * 100) / 100
    for name, wanted, present in (("CPU", config.cpus_per_worker, cpus), ("GPU", share, gpus)):
        if config.workers * wanted > present:
            raise UserError(
                f"{config.workers} workers with {wanted:g} {name}s each need {config.workers * wanted:g}, and Ray has "
                f"{present:g}; set fewer executor.workers or less of executor.{name.lower()}s_per_worker"
            )
    return share


def hide_unreserved_gpus(gpus: float) -> None:
    """In a worker: see no GPU if it has reserved none, for which Ray leaves all of them visible."""
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


class _Worker:
    """The actor: a task that stays, and one job at a time."""

    def __init__(self, task: Task, name: str, gpus: float):
        hide_unreserved_gpus(gpus)
        self._task = task
        self._name = name

    def node_id(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def run(self, job: Job) -> Iterator[Event]:
        yield from stream_job(self._task, job, self._name)


class _Slot:
    """A place for a worker: the actor in it, where it is, and the job it does."""

    def __init__(self, name: str):
        self.name = name
        self.actor: Any = None
        self.node_id: Any = None  # a reference; the actor may not run yet
        self.job: Job | None = None


class RayExecutor:
    """Runs jobs in as many actors as there are workers."""

    def __init__(self, task: Task, config: ExecutorConfig):
        """Run trials of a prepared task; Ray starts when the executor is entered."""
        self.num_slots = config.workers
        self._task, self._config = task, config
        self._slots = [_Slot(f"worker-{index}") for index in range(config.workers)]
        self._streams: dict[Any, _Slot] = {}  # by the stream of a job's events
        self._cleanup = ExitStack()

    def __enter__(self) -> RayExecutor:
        with ExitStack() as stack:
            self._gpus = stack.enter_context(ray_session(self._config))
            stack.callback(self._kill_actors)
            self._task_reference = ray.put(self._task)
            for slot in self._slots:
                self._start_actor(slot)
            try:
                ray.get([slot.node_id for slot in self._slots])
            except RayError as error:
                raise UserError(
                    f"a Ray worker cannot start ({str(error).strip().splitlines()[-1]}); "
                    "install spinenas and what the task needs on every machine of the cluster"
                ) from error
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def submit(self, job: Job) -> None:
        """Give the job to an idle worker."""
        slot = next(slot for slot in self._slots if slot.job is None)
        slot.job = job
        stream = slot.actor.run.options(num_returns="streaming").remote(job)
        self._streams[stream] = slot

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Hand over the next event of each job that has one, waiting until one has."""
        first, _ = ray.wait(list(self._streams), num_returns=1)
        ready, _ = ray.wait(list(self._streams), num_returns=len(self._streams), timeout=0)
        for stream in dict.fromkeys([*first, *ready]):
            slot = self._streams[stream]
            job = slot.job
            assert job is not None
            try:
                event: Event = ray.get(next(stream))  # type: ignore[arg-type, assignment]
            except RayError as error:
                event = Finished(job.number, job.attempt, self._loss(slot, error))
                ray.kill(slot.actor)  # after an error that is not its death, it may still live
                self._start_actor(slot)
            if isinstance(event, Finished):
                del self._streams[stream]
                slot.job = None
            on_event(event)

    def _start_actor(self, slot: _Slot) -> None:
        actor_class = ray.remote(_Worker).options(
            num_cpus=self._config.cpus_per_worker, num_gpus=self._gpus, max_restarts=0
        )
        slot.actor = actor_class.remote(self._task_reference, slot.name, self._gpus)
        slot.node_id = slot.actor.node_id.remote()

    def _loss(self, slot: _Slot, error: RayError) -> Failure:
        """Say what became of a worker: too large, or its process or its whole machine gone."""
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if isinstance(error, OutOfMemoryError):
            # Ray's memory monitor chose it; tried again, the trial would fill the machine again.
            return Failure(FailureKind.OUT_OF_MEMORY, f"{slot.name} was ended, its machine ran out of memory: {reason}")
        if not isinstance(error, RayActorError):
            return Failure(FailureKind.WORKER_LOST, f"{slot.name} failed ({type(error).__name__}): {reason}")
        # Ray's error is the same for a lost process and a lost machine.
        try:
            node_id = ray.get(slot.node_id)
        except RayError:
            node_id = None  # it died before it could say where it was
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        alive = {node["NodeID"] for node in nodes if node["Alive"]}
        if node_id is not None and node_id not in alive:
            return Failure(FailureKind.PREEMPTED, f"the machine of {slot.name} was lost")
        return Failure(FailureKind.WORKER_LOST, f"{slot.name} died: {reason}")

    def _kill_actors(self) -> None:
        for slot in self._slots:
            if slot.actor is not None:
                ray.kill(slot.actor)
