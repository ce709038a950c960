"""Simulates a faulty cluster in virtual time, with the real driver, journal and controllers.

    python tests/fault_simulator.py [--small] [--pausing] [--ordered] [--seed 0]

Workers appear and disappear with their nodes, die, hang and run out of memory. Their reports are repeated, late, out of
order, or of attempts and trials that do not exist. The driver dies and resumes in between. All invariants are checked
after each report, from the events of the journal instead of the driver's own state.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from unittest import mock

from crash_matrix import lines_of, not_recomputed
from fake_task import FakeTask

import spinenas.search.run.lifecycle as loop
from spinenas.controller.predictor.freeze_thaw import FreezeThawOptions
from spinenas.proxy_task.config import TaskConfig, TrainConfig
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Status
from spinenas.results.storage.events import (
    Asked,
    EpochDone,
    Event,
    Finished,
    Paused,
    Promoted,
    Refused,
    Requeued,
    Resumed,
    RunStarted,
    Started,
)
from spinenas.results.storage.journal import SCHEMA, Journal, read_events
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import RunState, fold
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.executors.base import ENDS, Job, WorkerEvent
from spinenas.search.run.components import ordered_window
from spinenas.search.run.driver import Driver

MAX_ATTEMPTS, OUT_OF_MEMORY_RETRIES = 4, 2

NUM_EPOCHS, NUM_PAUSED_EPOCHS = 2, 5
EPOCH_SECONDS = 60.0
LIMIT_SECONDS = 1500.0
NODE_UP_SECONDS, NODE_DOWN_SECONDS = 5000.0, 500.0
"""Mean times of a node; an attempt takes two minutes."""

STRAGGLERS, HANGS, WORKER_DEATHS, OUT_OF_ORDER, GHOSTS = 0.03, 0.01, 0.04, 0.03, 0.5
"""Shares of attempts. GHOSTS is the share of abandoned attempts that continue to report."""

DIVERGED, KILLERS, TOO_LARGE, BUGS, UNLUCKY = 0.03, 0.01, 0.03, 0.002, 0.01
"""Shares of trials that diverge, kill each worker, need smaller batches or never fit, hit a bug, lose nine machines."""

MAY_BE_TRUE = ("late", "before its start", "repeated later")
"""Kinds of bad reports that may bring news, and are accepted in that case."""

BAD_REPORTS = 0.04
"""Probability of each kind of bad report after a report."""


@dataclass(frozen=True)
class Scale:
    """Size of a simulation.

    Attributes:
        num_deaths: number of deaths of the driver.
        pauses: whether the controller pauses, continues and replicates trainings; there are then as many epochs as
            `num_trials` whole trainings have.
    """

    num_nodes: int
    workers_per_node: int
    num_trials: int
    num_deaths: int
    ordered: bool = False
    pauses: bool = False

    @property
    def num_epochs(self) -> int:
        return NUM_PAUSED_EPOCHS if self.pauses else NUM_EPOCHS


SMALL = Scale(num_nodes=12, workers_per_node=5, num_trials=600, num_deaths=5)
PAUSING = Scale(num_nodes=4, workers_per_node=5, num_trials=80, num_deaths=5, pauses=True)
WHOLE = Scale(num_nodes=125, workers_per_node=8, num_trials=20_000, num_deaths=6)


class DriverDied(BaseException):
    """The driver has died."""


class Clock:
    """Virtual time, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def text(self) -> str:
        """The time in the format of events."""
        return (datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)).isoformat(timespec="milliseconds")


# The cluster


@dataclass(eq=False)
class Attempt:
    """A job on a worker.

    Attributes:
        lives: whether its worker still runs it.
        is_ghost: whether it continues to report although it does not live.
        was_started: whether its start was reported to the driver.
    """

    job: Job
    worker: int
    lives: bool = True
    is_ghost: bool = False
    was_started: bool = False


@dataclass(frozen=True)
class Report:
    """An event on its way to the driver.

    Attributes:
        bad: kind of a bad report; empty for a good one.
        ends: attempt that ends with this report.
    """

    event: WorkerEvent
    bad: str = ""
    ends: Attempt | None = None


class Cluster:
    """An executor with many simulated workers.

    Attributes:
        running: attempts by trial number.
        paused_after: by trial number, the epoch that the driver knows to be in its checkpoint.
    """

    def __init__(self, scale: Scale, seed: int, clock: Clock, checks: Checks) -> None:
        self.running: dict[int, Attempt] = {}
        self.paused_after: dict[int, int] = {}
        self._per_node, self._num_epochs, self._seed = scale.workers_per_node, scale.num_epochs, seed
        self._clock, self._checks = clock, checks
        self._rng = random.Random(f"cluster {seed}")
        self._is_up = [True] * scale.num_nodes
        self._idle: dict[int, None] = dict.fromkeys(range(scale.num_nodes * scale.workers_per_node))
        self._at_work: dict[int, Attempt] = {}  # by worker
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._num_planned = 0
        self._inbox: deque[Report] = deque()
        for node in range(scale.num_nodes):
            self._plan(self._rng.expovariate(1 / NODE_UP_SECONDS), self._node_down, node)

    @property
    def num_free(self) -> int:
        return len(self._idle)

    def submit(self, job: Job) -> None:
        """Schedule all reports of an attempt."""
        self._checks.submitted(job)
        worker, _ = self._idle.popitem()
        attempt = Attempt(job, worker)
        self.running[job.number] = self._at_work[worker] = attempt
        rng = self._rng
        start = rng.uniform(1, 5)
        seconds = EPOCH_SECONDS * rng.uniform(0.5, 1.5) * (10 if rng.random() < STRAGGLERS else 1)
        events: list[WorkerEvent] = [Started(job.number, job.attempt, f"worker-{worker}", "cpu", "float32")]
        epochs = range(self.paused_after.get(job.number, 0) + 1, (job.until or self._num_epochs) + 1)
        events += [EpochDone(job.number, job.attempt, epoch, {"loss": 1 / epoch}) for epoch in epochs]
        if self._is(KILLERS, "kills", job.number) or rng.random() < WORKER_DEATHS:
            self._plan(start + rng.uniform(0, len(epochs) * seconds), self._lose, attempt, FailureKind.WORKER_LOST)
        if self._is(UNLUCKY, "unlucky", job.number) and job.attempt < 9:
            self._plan(start + 1, self._lose, attempt, FailureKind.PREEMPTED)
        if rng.random() < HANGS:
            del events[rng.randint(1, len(epochs)) :]
        else:
            result = self._result(job)
            is_paused = isinstance(result, Evaluation) and result.stopped_after is not None
            events.append((Paused if is_paused else Finished)(job.number, job.attempt, result))  # type: ignore[arg-type]
        times = [start + index * seconds for index in range(len(events))]
        if rng.random() < OUT_OF_ORDER:
            rng.shuffle(events)
        for after, event in zip(times, events, strict=True):
            self._plan(after, self._report, attempt, event)
        self._plan(start + LIMIT_SECONDS, self._lose, attempt, FailureKind.TIMEOUT)

    def cancel(self, number: int) -> None:
        """Forget an attempt, and free its worker."""
        attempt = self.running[number]
        attempt.lives = False
        self._end(attempt)

    def release_idle(self) -> None:
        self._idle.clear()

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        """Advance the time until there is a report or a free worker."""
        deadline = float("inf") if timeout_seconds is None else self._clock.now + timeout_seconds
        num_free = self.num_free
        while not self._inbox and self.num_free <= num_free:
            if self._agenda[0][0] > deadline:
                self._clock.now = deadline
                return
            self._clock.now, _, act, about = heapq.heappop(self._agenda)
            act(*about)
        while self._inbox:
            report = self._inbox.popleft()
            if report.ends is not None:
                self._end(report.ends)
            self._checks.hand_over(report, on_event)

    def driver_died(self) -> None:
        """End all attempts, as Ray does; some continue to report to the next session."""
        self._inbox.clear()
        for attempt in self.running.values():
            # An attempt whose start was not reported is repeated under its number.
            self._give_up(attempt, has_ghost=attempt.was_started)
        for attempt in list(self.running.values()):
            self._end(attempt)
        self._idle = dict.fromkeys(
            worker for worker in range(len(self._is_up) * self._per_node) if self._is_free(worker)
        )

    def _plan(self, seconds: float, act: Callable[..., None], *about: Any) -> None:
        self._num_planned += 1
        heapq.heappush(self._agenda, (self._clock.now + seconds, self._num_planned, act, about))

    def _is(self, share: float, what: str, number: int) -> bool:
        """Whether a trial belongs to a share of all trials; the answer for a trial never changes."""
        return random.Random(f"{self._seed} {what} {number}").random() < share

    def _result(self, job: Job) -> Evaluation | Failure:
        number = job.number
        if self._is(BUGS, "bug", number):
            return Failure(FailureKind.BUG, "a bug", "traceback")
        if self._is(DIVERGED, "diverged", number):
            return Failure(FailureKind.DIVERGED, "loss is not finite")
        batch_size = 16 if job.fidelity is None else job.fidelity.batch_size
        if self._is(TOO_LARGE, "large", number) and batch_size > random.Random(f"fits {number}").choice((2, 4, 8)):
            return Failure(FailureKind.OUT_OF_MEMORY, f"batches of {batch_size} are too large")
        quality, metrics = random.Random(f"quality {job.seed}").random(), {"AP50": batch_size / 100}
        if job.until is None:
            return Evaluation(quality, metrics=metrics)
        epochs = range(1, job.until + 1)
        curve = tuple({"epoch": epoch, "AP": quality * epoch / self._num_epochs} for epoch in epochs)
        return Evaluation(curve[-1]["AP"], metrics=metrics, curve=curve, stopped_after=job.until)

    def _report(self, attempt: Attempt, event: WorkerEvent) -> None:
        """Send a report of an attempt, with bad reports around it."""
        if not (attempt.lives or attempt.is_ghost):
            return
        from_ghost = not attempt.lives
        bad = "late" if from_ghost else ""
        if not (from_ghost or attempt.was_started or isinstance(event, Started)):
            bad = "before its start"
        is_last = isinstance(event, ENDS)
        if is_last:
            attempt.lives, attempt.is_ghost = False, True  # its remaining reports are out of order
        if isinstance(event, Started) and self._rng.random() < BAD_REPORTS:
            self._inbox.append(Report(EpochDone(event.number, event.attempt, 1, {}), "epoch before start"))
        self._inbox.append(Report(event, bad, attempt if is_last else None))
        # A bad report of a ghost could be true of the current attempt.
        for bad, false in () if from_ghost else self._false_reports(event):
            if self._rng.random() < BAD_REPORTS:
                self._inbox.append(Report(false, bad))
        if self._rng.random() < BAD_REPORTS:
            self._plan(self._rng.expovariate(1 / 600), self._inbox.append, Report(event, "repeated later"))

    def _false_reports(self, event: WorkerEvent) -> Iterator[tuple[str, WorkerEvent]]:
        """Yield bad reports beside an event of the current attempt, none of which is ever true."""
        number, attempt, ahead = event.number, event.attempt, self._rng.choice((1, 1, 2, 50))
        false = self._rng.choice((event, Finished(number, attempt, Evaluation(1.0))))
        yield "repeated at once", event
        yield "of a future attempt", replace(false, attempt=attempt + ahead)
        yield "of a negative attempt", replace(false, attempt=-ahead)
        yield "of an unknown trial", replace(false, number=number + 10**6)
        yield "of a negative trial", replace(false, number=-1 - number)
        yield "of no known epoch", EpochDone(number, attempt, -1, {})

    def _lose(self, attempt: Attempt, kind: FailureKind) -> None:
        """End an attempt. The driver learns of it a little later."""
        if attempt.lives:
            self._give_up(attempt, has_ghost=kind is not FailureKind.WORKER_LOST)
            self._plan(self._rng.uniform(0, 5), self._notice_loss, attempt, kind)

    def _notice_loss(self, attempt: Attempt, kind: FailureKind) -> None:
        number = attempt.job.number
        if self.running.get(number) is attempt:  # otherwise it was cancelled, or the driver died
            failure = Failure(kind, f"{kind} at worker {attempt.worker}")
            self._inbox.append(Report(Finished(number, attempt.job.attempt, failure), ends=attempt))

    def _give_up(self, attempt: Attempt, *, has_ghost: bool) -> None:
        attempt.lives = False
        attempt.is_ghost = has_ghost and self._rng.random() < GHOSTS

    def _end(self, attempt: Attempt) -> None:
        """Free the worker of an attempt once."""
        if self.running.get(attempt.job.number) is attempt:
            del self.running[attempt.job.number]
        if self._at_work.get(attempt.worker) is attempt:
            del self._at_work[attempt.worker]
            if self._is_free(attempt.worker):
                self._idle[attempt.worker] = None

    def _is_free(self, worker: int) -> bool:
        return worker not in self._at_work and self._is_up[worker // self._per_node]

    def _node_down(self, node: int) -> None:
        self._is_up[node] = False
        for worker in self._workers_of(node):
            self._idle.pop(worker, None)
            if worker in self._at_work:
                self._lose(self._at_work[worker], FailureKind.PREEMPTED)
        self._plan(self._rng.expovariate(1 / NODE_DOWN_SECONDS), self._node_up, node)

    def _node_up(self, node: int) -> None:
        self._is_up[node] = True
        self._idle.update((worker, None) for worker in self._workers_of(node) if self._is_free(worker))
        self._plan(self._rng.expovariate(1 / NODE_UP_SECONDS), self._node_down, node)

    def _workers_of(self, node: int) -> range:
        return range(node * self._per_node, (node + 1) * self._per_node)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


# Invariants


class Checks:
    """Asserts the invariants of a run at each event that its display receives.

    Attributes:
        driver, cluster: the current ones.
        told: finished trials in the order of their results.
        taken, refused: accepted and refused bad reports by kind.
        num_reports: number of all reports.
        num_promoted: continued trials.
        die_at: ascending numbers of reports after which the driver dies.
    """

    driver: Driver
    cluster: Cluster

    def __init__(self, die_at: list[int]) -> None:
        self.told: list[int] = []
        self.taken: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.num_reports = 0
        self.die_at = die_at
        self.num_events = 0
        self._attempts: list[int] = []  # by number
        self._finished: set[int] = set()
        self._paused: dict[int, Evaluation] = {}  # trials that their controller has paused
        self.num_promoted = 0
        self._trainings: set[tuple[str, str, int]] = set()
        self._known: set[tuple[Any, ...]] = set()  # accepted reports
        self._losses: Counter[tuple[int, FailureKind]] = Counter()
        self._shown: list[Event] = []

    # A display

    def begin(self, progress: object) -> AbstractContextManager[object]:
        return nullcontext()

    def note(self, text: str) -> None:
        pass

    def show(self, event: Event) -> None:
        """Check an event of the journal."""
        self.num_events += 1
        self._shown.append(event)
        match event:
            case Asked():
                proposal = event.proposal
                assert event.number == len(self._attempts), "numbers have no gaps"
                training = event.network_key, str(proposal["fidelity"]), proposal["replicate"]
                assert training not in self._trainings, "no training is asked for twice"
                self._trainings.add(training)
                self._attempts.append(0)
            case Started(number, attempt) | EpochDone(number, attempt):
                assert number not in self._finished
                assert attempt == self._attempts[number] == self.cluster_attempt(number)
            case Paused(number, attempt, evaluation):
                assert number not in self._finished
                assert number not in self._paused
                assert attempt == self._attempts[number]
                self._paused[number] = evaluation
            case Promoted(number, attempt, epoch):
                assert self._paused.pop(number).stopped_after == epoch, "a trial goes on where it paused"
                self._attempts[number] += 1
                assert attempt == self._attempts[number]
                self.num_promoted += 1
            case Finished(number, attempt, result):
                assert number not in self._finished, "a trial has one outcome"
                is_end = isinstance(result, Evaluation) and result.stopped_after is not None
                assert self._paused.pop(number, None) == (result if is_end else None)
                assert not (is_end and self.cluster.running), "paused trials end when nothing runs"
                assert 0 <= attempt <= self._attempts[number]
                self._finished.add(number)
                self.told.append(number)
            case Requeued(number, attempt):
                assert number not in self._finished
                self._attempts[number] += 1
                assert attempt == self._attempts[number]
            case Refused():
                assert event.reason

    def cluster_attempt(self, number: int) -> int | None:
        """Return the number of the attempt that runs at a trial or has just ended."""
        attempt = self.cluster.running.get(number)
        return None if attempt is None else attempt.job.attempt

    def submitted(self, job: Job) -> None:
        """Check a job that is about to run."""
        assert job.number not in self.cluster.running, "a trial is in flight once"
        assert job.number not in self._finished, "no finished trial is trained again"
        assert job.number not in self._paused, "a paused trial has no worker"
        assert job.attempt == self._attempts[job.number]

    def hand_over(self, report: Report, on_event: Callable[[WorkerEvent], None]) -> None:
        """Give the driver a report, and check its reaction."""
        self._shown.clear()
        on_event(report.event)
        event, shown = report.event, self._shown
        was_taken = bool(shown) and not isinstance(shown[0], Refused)
        assert len(shown) <= 1, "a report causes one event at most"
        assert shown or not isinstance(event, ENDS), "a result is accepted, or refused with a reason"
        if was_taken:
            self._take(event)
            if isinstance(event, Started):
                self.cluster.running[event.number].was_started = True
            elif isinstance(event, Paused):
                self.cluster.paused_after[event.number] = event.evaluation.stopped_after or 0
        if report.bad:
            (self.taken if was_taken else self.refused)[report.bad] += 1
            assert not was_taken or report.bad in MAY_BE_TRUE, f"a report {report.bad} is taken"
        num_open = len(self._attempts) - len(self._finished)
        assert len(self.driver._open) == num_open
        num_active = len(self.cluster.running) + len(self.driver._waiting)
        assert num_active + len(self._paused) == num_open, "a trial is lost"
        self.num_reports += 1
        if self.die_at and self.num_reports >= self.die_at[0]:
            del self.die_at[0]
            raise DriverDied

    def _take(self, event: WorkerEvent) -> None:
        # An attempt can end twice: its worker is reported lost, and a result arrives anyway.
        kind = event.result.kind if isinstance(event, Finished) and isinstance(event.result, Failure) else None
        known = type(event), event.number, event.attempt, getattr(event, "epoch", None), kind
        assert known not in self._known, f"{known} is taken once"
        self._known.add(known)
        is_over = event.number in self._finished
        if kind is not None:
            self._losses[event.number, kind] += 1
            count = self._losses[event.number, kind]
            if kind is FailureKind.PREEMPTED:
                assert not is_over, "lost machines do not make a trial fail"
            elif kind is FailureKind.WORKER_LOST:
                assert is_over == (count == MAX_ATTEMPTS), "a trial fails when its attempts are spent"
            elif kind is FailureKind.OUT_OF_MEMORY:
                assert is_over == (count == OUT_OF_MEMORY_RETRIES + 1), "a trial fails when its retries are spent"
            else:
                assert is_over
        else:
            assert is_over == isinstance(event, Finished)

    def agree_with(self, state: RunState) -> None:
        """Check that the journal agrees with the driver and with the observed events."""
        assert state.told == self.told
        assert [record.attempt for record in state.trials.values() if record.status not in FINISHED_STATUSES] == [
            attempt for number, attempt in enumerate(self._attempts) if number not in self._finished
        ]
        assert {
            record.number: (record.attempt, record.status, record.fidelity, record.seed) for record in state.unfinished
        } == {
            number: (trial.attempt, trial.status, trial.fidelity, trial.seed)
            for number, trial in self.driver._open.items()
        }
        assert state.paused == self._paused
        assert state.until == {n: trial.until for n, trial in self.driver._open.items() if trial.until is not None}
        assert all(trial.losses == state.losses.get(number, {}) for number, trial in self.driver._open.items())


FINISHED_STATUSES = (Status.COMPLETE, Status.PRUNED, Status.FAILED)


# The simulation


@dataclass
class LargeBatches(FakeTask):
    """A fake task with a batch size that can be halved several times."""

    @property
    def fidelity(self) -> Fidelity:
        return replace(super().fidelity, batch_size=16)


@dataclass(frozen=True)
class Outcome:
    """Result and cost of a simulation.

    Attributes:
        num_sessions: number of sessions of the driver.
        resident_growth_bytes: growth of the memory of this process, including the checks.
    """

    journal: Path
    checks: Checks
    state: RunState
    num_sessions: int
    virtual_hours: float
    seconds: float
    processor_seconds: float
    resident_growth_bytes: int

    @property
    def digest(self) -> str:
        """Digest of the whole journal, which is reproducible because its times are virtual."""
        return hashlib.sha256(self.journal.read_bytes()).hexdigest()


def configured(scale: Scale, seed: int) -> SearchConfig:
    executor = ExecutorConfig(
        workers=scale.num_nodes * scale.workers_per_node,
        ordered=scale.ordered,
        max_attempts=MAX_ATTEMPTS,
        out_of_memory_retries=OUT_OF_MEMORY_RETRIES,
        max_errors=10**9,
    )
    config = SearchConfig(budget=BudgetConfig(scale.num_trials), executor=executor, seed=seed)
    if scale.pauses:
        controller = ControllerConfig("freeze-thaw", freeze_thaw=FreezeThawOptions(num_candidates=10))
        task = TaskConfig(train=TrainConfig(epochs=scale.num_epochs))
        config = replace(config, controller=controller, task=task)
    return config.resolved()


def simulate(scale: Scale, seed: int, folder: Path) -> Outcome:
    """Search to the end through all deaths of the driver."""
    began, began_processor, resident_before = time.monotonic(), time.process_time(), resident()
    deaths = random.Random(f"deaths {seed}").sample(range(5 * scale.num_trials), scale.num_deaths)
    clock, checks = Clock(), Checks(sorted(deaths))
    checks.cluster = Cluster(scale, seed, clock, checks)
    config, run = configured(scale, seed), RunFolder(folder)
    with mock.patch("os.fsync"), mock.patch("spinenas.search.run.driver.now", clock.text):
        with Journal.create(run.journal_path) as journal:
            journal.append(RunStarted(SCHEMA, {}, at=clock.text()))
        num_sessions = 1
        while not session(config, run, clock, checks):
            num_sessions += 1
    seconds, processor_seconds = time.monotonic() - began, time.process_time() - began_processor
    resident_growth = resident() - resident_before
    state = fold(read_events(run.journal_path))
    assert sorted(state.told) == list(range(len(state.trials))), "each trial has a result"
    assert len(state.trials) > scale.num_trials if scale.pauses else len(state.trials) == scale.num_trials
    return Outcome(
        run.journal_path,
        checks,
        state,
        num_sessions,
        virtual_hours=clock.now / 3600,
        seconds=seconds,
        processor_seconds=processor_seconds,
        resident_growth_bytes=resident_growth,
    )


def session(config: SearchConfig, run: RunFolder, clock: Clock, checks: Checks) -> bool:
    """Start or resume a session; return False if the driver died before the search ended."""
    with Journal.open(run.journal_path) as journal:
        controller = loop.search_controller(config)
        task, window = LargeBatches(config.task.train.epochs), ordered_window(config.executor)
        checks.driver = Driver(
            config, run, journal, task, controller, checks.cluster, checks, window=window, clock=clock
        )
        state = fold(read_events(run.journal_path))
        if state.trials:
            checks.driver.record(Resumed({}))
            checks.driver.replay(state, {})
        del state
        try:
            checks.driver.run()
            is_over = True
        except DriverDied:
            checks.cluster.driver_died()
            is_over = False
    checks.agree_with(fold(read_events(run.journal_path)))
    return is_over


def resident() -> int:
    """Return the resident memory of this process in bytes; 0 where it is unknown, as on macOS."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


OPENING = """
import re, sys, time
from pathlib import Path
from spinenas.results.storage.journal import read_events
from spinenas.results.storage.run_state import fold
began, began_processor = time.perf_counter(), time.process_time()
state = fold(read_events(Path(sys.argv[1]), epochs=False))
print(len(state.trials), time.perf_counter() - began, time.process_time() - began_processor, end=" ")
# Not getrusage, whose peak may be that of the parent process.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def main() -> None:
    """Simulate and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--pausing", action="store_true", help="search with pauses, at a small scale")
    parser.add_argument("--ordered", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scale = replace(PAUSING if given.pausing else SMALL if given.small else WHOLE, ordered=given.ordered)
        outcome = simulate(scale, given.seed, Path(folder))
        checks = outcome.checks
        statuses = Counter(
            str(record.failure.kind) if record.failure else str(record.status)
            for record in outcome.state.trials.values()
        )
        print(f"{scale}, {outcome.num_sessions} sessions, {outcome.virtual_hours:.1f} virtual hours")
        print(f"{outcome.seconds:.0f} s, of a processor {outcome.processor_seconds:.0f} s")
        print(f"outcomes: {dict(statuses)}")
        print(
            f"{checks.num_reports} reports, {checks.num_events} events in the journal, "
            f"{checks.num_events / outcome.seconds:.0f} events/s"
        )
        print("bad reports:")
        for bad in sorted({*checks.taken, *checks.refused}):
            print(f"  {bad}: {checks.refused[bad]} refused, {checks.taken[bad]} taken")
        print(f"  {checks.taken.total() + checks.refused.total()} in all")
        growth = outcome.resident_growth_bytes
        print(f"{growth / scale.num_trials / 1000:.1f} kB of memory for each trial, {growth / 2**20:.0f} MB in all")
        if given.pausing:
            print(f"{checks.num_promoted} continued trainings")
        if not given.ordered:
            problems = list(not_recomputed(configured(scale, given.seed), lines_of(outcome.journal)))
            print(f"{len(problems)} steps differ from those recomputed in the order of the journal")
        opening = [sys.executable, "-c", OPENING, str(outcome.journal)]
        for _ in range(3):
            words = subprocess.run(opening, capture_output=True, text=True, check=True).stdout.split()
            print(
                f"{words[0]} trials open in {float(words[1]):.2f} s, of a processor {float(words[2]):.2f} s, "
                f"and {int(words[3]) / 1024:.0f} MB"
            )
        print(f"the journal has {outcome.journal.stat().st_size / 2**20:.1f} MB and the digest {outcome.digest[:16]}")


if __name__ == "__main__":
    main()
