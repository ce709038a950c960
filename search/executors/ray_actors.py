"""The Ray executor: long-lived actors, each of which holds the prepared task and runs one job after the other.

The driver controls them, not Ray Tune, so that the journal is written before any action. A trial in a running actor
starts within milliseconds; a new process takes seconds. All workers are requested at once, so that an autoscaler
grows the cluster. Workers that have started get jobs while others are still pending, and a worker whose machine is
lost is requested again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spinenas.results.record import Failure, FailureKind
from spinenas.results.storage.events import EpochDone, Finished, Started
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.base import Executor, Job, Message, Note, Remark, Task, WorkerEvent
from spinenas.search.executors.data_command import this_session
from spinenas.search.executors.failure_rules import pause_seconds
from spinenas.search.executors.local_cpus import is_remote
from spinenas.search.executors.raw_output import raw_output_in
from spinenas.search.executors.ray_resources import explain_waiting
from spinenas.search.executors.ray_session import (
    accelerators_of,
    options_of,
    prepare_worker,
    ray_session,
    request_of,
)
from spinenas.search.executors.stop_signals import sigterm_waits
from spinenas.search.executors.storage_variables import StorageVariables, storage_variables
from spinenas.search.executors.worker import stream_job, timeout_failure
from spinenas.space.errors import UserError, first_line

CHECK_SECONDS = 1.0
"""Interval of the checks for time limits and missing workers."""

EXPLAIN_SECONDS = 5.0
"""Time without any worker before the cause is looked up."""

REMIND_SECONDS = 300.0
"""Time until the message about missing workers is repeated."""

MAX_FAILED_STARTS = 3
"""After this many failed starts in a row on running machines, a search without any other worker ends."""


class _Worker:
    """The actor: holds the task and runs one job at a time."""

    def __init__(
        self, name: str, gpus: float, config: ExecutorConfig, session: str, variables: StorageVariables, task: Task
    ):
        prepare_worker(config, gpus, session, variables)
        self._name, self._task = name, task
        self._accelerators, self._seconds = accelerators_of(config, gpus), config.trial_seconds

    def where(self) -> tuple[str, str, int]:
        """Return the id of the worker's node, the name of its machine, and `oom_kills` there."""
        return str(ray.get_runtime_context().get_node_id()), socket.gethostname(), oom_kills()

    def run(self, job: Job) -> Iterator[Message]:
        yield from stream_job(self._task, job, self._name, accelerators=self._accelerators, seconds=self._seconds)


def oom_kills() -> int:
    """Return how many processes the kernel of this machine has killed when out of memory; 0 if unknown."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


class _Slot:
    """A place for a worker.

    Attributes:
        state: starting (requested), idle, busy, pausing (before it is requested again), or released for good.
        actor, ready: its handle, and the reference that resolves when it runs.
        node_id: node where it runs.
        machine: name of its machine, if it is one of a cluster.
        job: current job.
        began, heard: start of the job and time of its last report, in seconds of the monotonic clock.
        epoch: last epoch that it reported.
        stall_noted: whether its silence was reported to the user.
        again_at: when a pausing worker is requested again.
    """

    def __init__(self, name: str):
        self.name = name
        self.state: Literal["starting", "idle", "busy", "pausing", "released"] = "pausing"
        self.actor: Any = None
        self.ready: Any = None
        self.node_id: str | None = None
        self.machine = ""
        self.job: Job | None = None
        self.began = self.heard = self.again_at = 0.0
        self.epoch = 0
        self.stall_noted = False

    def __str__(self) -> str:
        return f"{self.name} on {self.machine}" if self.machine else self.name


class RayExecutor(Executor):
    """Runs jobs in up to `executor.workers` actors, as many as the cluster has room for."""

    def __init__(self, task: Task, config: ExecutorConfig, note: Note, folder: Path | None = None):
        """Run trials of a prepared task; Ray starts when the executor is entered.

        Args:
            folder: of the run, for the lines that Ray itself prints; None to let it print them.
        """
        self._task, self._config, self._note, self._folder = task, config, note, folder
        self._slots = [_Slot(f"worker-{index}") for index in range(config.workers)]
        self._streams: dict[Any, _Slot] = {}  # by the stream of a job's events
        self._num_failed_starts = 0
        self._start_errors: set[str] = set()
        self._without_workers = 0.0  # since when there is no worker, in seconds of the monotonic clock
        self._explained = ""
        self._explained_at = 0.0
        self._oom_kills: dict[str, int] = {}  # by node id

    def start(self, stack: ExitStack) -> None:
        self._settle_output = stack.enter_context(raw_output_in(self._folder))
        self._gpus = stack.enter_context(ray_session(self._config, self._note))
        stack.callback(self._kill_actors)
        self._task_reference = ray.put(self._task)
        for slot in self._slots:
            self._request(slot)
        self._without_workers = time.monotonic()
        while self.num_free == 0:
            with sigterm_waits():
                self._wait(lambda event: None, CHECK_SECONDS)

    @property
    def num_free(self) -> int:
        """Number of idle workers."""
        return sum(slot.state == "idle" for slot in self._slots)

    def submit(self, job: Job) -> None:
        """Give the job to an idle worker."""
        self._settle_output()
        slot = next(slot for slot in self._slots if slot.state == "idle")
        slot.state, slot.job, slot.epoch, slot.stall_noted = "busy", job, 0, False
        slot.began = slot.heard = time.monotonic()
        self._streams[slot.actor.run.options(num_returns="streaming").remote(job)] = slot

    def cancel(self, number: int) -> None:
        """End the worker of this trial, and request another."""
        for slot in self._slots:
            if slot.job is not None and slot.job.number == number:
                self._replace(slot)

    def release_idle(self) -> None:
        """End the workers that are idle or have not started."""
        for slot in self._slots:
            if slot.state != "busy" and slot.state != "released":
                if slot.actor is not None:
                    ray.kill(slot.actor)
                slot.state, slot.actor = "released", None

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        """Hand over the next event of each job; wait until there is one or a worker has started."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = CHECK_SECONDS if deadline is None else min(CHECK_SECONDS, deadline - time.monotonic())
            with sigterm_waits():
                happened = self._wait(on_event, max(0.0, left))
            if happened or (deadline is not None and time.monotonic() >= deadline):
                return

    def _wait(self, on_event: Callable[[WorkerEvent], None], seconds: float) -> bool:
        """Wait for at most this time, and return whether an event arrived or a worker started."""
        starting = {slot.ready: slot for slot in self._slots if slot.state == "starting"}
        awaited = [*self._streams, *starting]
        if awaited:
            first, _ = ray.wait(awaited, num_returns=1, timeout=seconds)
            ready, _ = ray.wait(awaited, num_returns=len(awaited), timeout=0)
            ready = list(dict.fromkeys([*first, *ready]))
        else:
            time.sleep(seconds)
            ready = []
        happened = False
        for reference in ready:
            if reference in starting:
                happened |= self._started(starting[reference])
            elif reference in self._streams:  # an earlier event may have cancelled it
                self._next_event(reference, on_event)
                happened = True
        return self._look_after_workers(on_event) or happened

    def _next_event(self, stream: Any, on_event: Callable[[WorkerEvent], None]) -> None:
        slot = self._streams[stream]
        job = slot.job
        assert job is not None
        try:
            event: Message = ray.get(next(stream))
        except RayError as error:
            event = Finished(job.number, job.attempt, self._loss(slot, error))
            self._replace(slot)
        slot.heard, slot.stall_noted = time.monotonic(), False
        if isinstance(event, Remark):
            self._note(event.text)
            return
        if isinstance(event, Started):
            slot.began = slot.heard
        elif isinstance(event, EpochDone):
            slot.epoch = event.epoch
        elif slot.state == "busy":
            del self._streams[stream]
            slot.state, slot.job = "idle", None
        on_event(event)

    def _request(self, slot: _Slot) -> None:
        """Request a worker; it has started when its reference resolves."""
        actor_class = ray.remote(_Worker).options(**options_of(self._config, self._gpus), max_restarts=0)
        slot.actor = actor_class.remote(
            slot.name, self._gpus, self._config, this_session(), storage_variables(), self._task_reference
        )
        slot.ready, slot.node_id, slot.state = slot.actor.where.remote(), None, "starting"
        slot.machine = ""

    def _started(self, slot: _Slot) -> bool:
        """Return whether a requested worker has started; a failed one is requested again."""
        try:
            slot.node_id, machine, kills = ray.get(slot.ready)
        except RayError as error:
            self._start_failed(slot, error)
            return False
        slot.machine = machine if is_remote(self._config) else ""
        self._oom_kills[slot.node_id] = kills
        slot.state = "idle"
        self._num_failed_starts = 0
        return True

    def _start_failed(self, slot: _Slot, error: RayError) -> None:
        slot.state = "pausing"
        if _is_lost_node(error):
            slot.again_at = time.monotonic()
            return
        self._num_failed_starts += 1
        reason = str(error).strip().splitlines()[-1]
        said = reason.removeprefix("spinenas.space.errors.UserError: ")
        if said == reason:
            said += "; install spinenas and what the task needs on every machine of the cluster"
        is_alone = not any(other.state in ("idle", "busy") for other in self._slots)
        if is_alone and self._num_failed_starts >= min(MAX_FAILED_STARTS, len(self._slots)):
            raise UserError(f"no Ray worker can start: {said}") from error
        if said not in self._start_errors:
            self._start_errors.add(said)
            self._note(f"{slot.name} cannot start and will be tried again: {said}")
        slot.again_at = time.monotonic() + pause_seconds(self._num_failed_starts)

    def _replace(self, slot: _Slot) -> None:
        """End a worker, dead or alive, and request another in its place."""
        for stream in [stream for stream, of in self._streams.items() if of is slot]:
            del self._streams[stream]
        ray.kill(slot.actor)
        slot.job = None
        self._request(slot)

    def _look_after_workers(self, on_event: Callable[[WorkerEvent], None]) -> bool:
        """Enforce time limits, report silent workers, request workers again; return whether a trial ended."""
        now = time.monotonic()
        ended = False
        limit = self._config.trial_seconds
        for slot in self._slots:
            job = slot.job
            if slot.state == "pausing" and now >= slot.again_at:
                self._request(slot)
            elif job is not None and limit is not None and now - slot.began > limit:
                self._replace(slot)
                on_event(Finished(job.number, job.attempt, timeout_failure(limit)))
                ended = True
            elif job is not None and now - slot.heard > 60 * self._config.stall_minutes and not slot.stall_noted:
                slot.stall_noted = True
                self._note(
                    f"{slot} has reported nothing for {self._config.stall_minutes:g} min; trial {job.number} "
                    f"is after epoch {slot.epoch}; set executor.trial_minutes to end trials that hang"
                )
        if any(slot.state in ("idle", "busy", "released") for slot in self._slots):
            self._without_workers = now
        elif now - self._without_workers > EXPLAIN_SECONDS:
            text = "the workers have not started yet; waiting"  # a local Ray has room for all of them
            if is_remote(self._config):
                text = explain_waiting(request_of(self._config, self._gpus))
            if text != self._explained or now - self._explained_at > REMIND_SECONDS:
                self._explained, self._explained_at = text, now
                self._note(text)
        return ended

    def _loss(self, slot: _Slot, error: RayError) -> Failure:
        """Classify the loss of a worker: out of memory, or its process or whole machine lost."""
        reason = first_line(error)
        if isinstance(error, OutOfMemoryError):
            # Ray's memory monitor ended it; another attempt would fill the memory again.
            return Failure(FailureKind.OUT_OF_MEMORY, f"{slot} was ended, its machine ran out of memory: {reason}")
        if not isinstance(error, RayActorError):
            return Failure(FailureKind.WORKER_LOST, f"{slot} failed ({type(error).__name__}): {reason}")
        if _is_lost_node(error) or slot.node_id not in _living_nodes():
            return Failure(FailureKind.PREEMPTED, _lost_machine(slot))
        if self._was_out_of_memory(slot.node_id):
            return Failure(FailureKind.OUT_OF_MEMORY, f"the system ended {slot}, its machine ran out of memory")
        return Failure(FailureKind.WORKER_LOST, f"{slot} died: {reason}")

    def _was_out_of_memory(self, node_id: str) -> bool:
        """Whether a process of that machine was killed when out of memory since a worker started there."""
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        count = ray.remote(oom_kills).options(num_cpus=0, scheduling_strategy=there)
        try:
            kills = ray.get(count.remote(), timeout=10)
        except RayError:
            return False
        before = self._oom_kills.get(node_id, kills)
        self._oom_kills[node_id] = kills
        return bool(kills > before)

    def _kill_actors(self) -> None:
        for slot in self._slots:
            if slot.actor is not None:
                ray.kill(slot.actor)


def _lost_machine(slot: _Slot) -> str:
    machine = f", {slot.machine}," if slot.machine else ""
    return f"the machine of {slot.name}{machine} was lost"


def _is_lost_node(error: RayError) -> bool:
    """Whether an actor's error means that its machine was lost, not only its process."""
    # A lost machine does not answer; Ray knows only some seconds later that it is dead. A process that died is known.
    if isinstance(error, ActorUnavailableError):
        return True
    return isinstance(error, RayActorError) and (error.preempted or "its node has died" in str(error))


def _living_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
