"""Kill a search at each step and at many random moments; the resumed search must end like an uninterrupted one.

    python tests/crash_matrix.py [--sample] [CONFIGURATION ...]

A child process searches with a fake task and is killed by SIGKILL. The next child resumes, and may be killed as well.
The last one finishes. A step changes a file (creates, writes, truncates, renames or removes it), syncs it, or acts on
the journal: submits a job, tells the controller a result, or hands over an event. A child can die before a step, in its
middle (half of the bytes are written) and after it. After an action it can also die in a power failure, which loses
the unsynced lines of the journal. Steps are observed by wrapping functions of `os` and `io` in the child; the product
is unchanged.

Children are forks of one process that has imported everything. They all claim to be process 1, as in a container.
"""

from __future__ import annotations

import argparse
import builtins
import gc
import io
import itertools
import json
import logging
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar, get_args

from fake_task import FakeTask
from halving_reference import misjudged
from shuffled_executor import ShuffledExecutor

import spinenas.results.storage.ownership as ownership
import spinenas.search.executors.serial  # noqa: F401 (imported once, not in each child)
import spinenas.search.run.lifecycle as loop
from spinenas.controller.base import Continuation, Proposal
from spinenas.controller.predictor import gaussian_process
from spinenas.controller.predictor.freeze_thaw import FreezeThaw, FreezeThawOptions
from spinenas.controller.replicates import ReplicateLeaders
from spinenas.proxy_task.config import EvalConfig, TaskConfig, TrainConfig
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity
from spinenas.results.storage.events import Event
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig
from spinenas.search.executors.base import Executor, Job, WorkerEvent
from spinenas.search.monitoring.base import Display
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.run import Run
from spinenas.space.genotype import Genotype
from spinenas.space.search_space import space_by_name

T = TypeVar("T")

NUM_TRIALS = 14
NUM_HALVED_EPOCHS, NUM_PAUSED_EPOCHS = 3, 5
NUM_RANDOM_MOMENTS = 200
NUM_CHAINS = 20
COLUMNS = ("steps", "power", "twice", "chains", "moments")
LONGEST_CHAIN = 12
"""Number of consecutive kills after which a run may finish."""


# Configurations of searches


@dataclass(frozen=True)
class Configuration:
    """A search to kill.

    Attributes:
        controller: "random", "evolution", "replicates" (evolution whose last trials replicate the leaders), "halving"
            (the same with trials of three epochs and rungs after the first two) or "freeze-thaw" (which pauses,
            continues and replicates trials of five epochs).
        mode: "serial"; "ordered" or "free", with two workers.
    """

    controller: Literal["random", "evolution", "replicates", "halving", "freeze-thaw"]
    mode: Literal["serial", "ordered", "free"]

    @property
    def name(self) -> str:
        return f"{self.controller}-{self.mode}"

    @property
    def search(self) -> SearchConfig:
        budget = BudgetConfig(NUM_TRIALS, 0.3 if self.controller in ("replicates", "halving") else 0.0)
        controller = ControllerConfig("random" if self.controller == "random" else "evolution")
        if self.pauses:
            options = FreezeThawOptions(num_random=3, num_candidates=4, replicate_chance=0.9)
            budget, controller = BudgetConfig(8, 0.2), ControllerConfig("freeze-thaw", freeze_thaw=options)
        halving = (
            HalvingConfig((1, 2), reduction=2.0, min_results=2) if self.controller == "halving" else HalvingConfig()
        )
        executor = ExecutorConfig(
            kind="serial" if self.mode == "serial" else "ray",  # `make_executor` below replaces Ray
            workers=2,
            ordered=self.mode == "ordered",
            out_of_memory_retries=2,
        )
        # The configured task is not trained, but rungs must be epochs of it.
        num_epochs = NUM_PAUSED_EPOCHS if self.pauses else NUM_HALVED_EPOCHS
        task = TaskConfig(train=TrainConfig(epochs=num_epochs), eval=EvalConfig(every_epochs=1))
        parts: dict[str, Any] = {"controller": controller, "budget": budget, "executor": executor, "halving": halving}
        return SearchConfig(task=task, seed=5, **parts).resolved()

    @property
    def num_epochs(self) -> int:
        return {"halving": NUM_HALVED_EPOCHS, "freeze-thaw": NUM_PAUSED_EPOCHS}.get(self.controller, 1)

    @property
    def pauses(self) -> bool:
        """Whether the controller pauses trainings."""
        return self.controller == "freeze-thaw"


CONFIGURATIONS = [
    Configuration(controller, mode)
    for mode, controller in itertools.product(
        ("serial", "ordered", "free"), ("random", "evolution", "replicates", "halving", "freeze-thaw")
    )
]


@dataclass
class LoggingTask(FakeTask):
    """Logs its trainings. Trial 4 diverges, trial 3 needs batches of 4, and trial 6 needs batches of 1.

    Attributes:
        log: writes a line to the log.
    """

    num_epochs: int = 1
    log: Callable[..., None] = print

    @property
    def fidelity(self) -> Fidelity:
        return replace(super().fidelity, batch_size=8)

    def evaluate(self, genotype: Genotype, **how: Any) -> Evaluation | Failure:
        number = int(how["folder"].name)
        self.log("trained", number=number, attempt=how["attempt"])
        fidelity = how["fidelity"] or self.fidelity
        if number == 4:
            return Failure(FailureKind.DIVERGED, "trial 4 diverges")
        if fidelity.batch_size > {3: 4, 6: 1}.get(number, 8):
            return Failure(FailureKind.OUT_OF_MEMORY, f"batches of {fidelity.batch_size} are too large")
        result = super().evaluate(genotype, **how)
        assert isinstance(result, Evaluation)
        return replace(result, metrics={"AP50": fidelity.batch_size / 100})


# Places to die


Phase = Literal["before", "middle", "after", "power"]


class Kill(NamedTuple):
    """A place to die: the number of a step, from 0, and a phase of it."""

    step: int
    phase: Phase


class Step(NamedTuple):
    """A step of a child. Some steps have a middle, and some act on the journal."""

    name: str
    has_middle: bool
    acts: bool

    def phases(self) -> Iterator[Phase]:
        yield "before"
        if self.has_middle:
            yield "middle"
        yield "after"
        if self.acts:
            yield "power"


_getpid, _write = os.getpid, os.write  # the functions before a child wraps them


def die() -> None:
    """Kill this process, like the kernel when it is out of memory."""
    os.kill(_getpid(), signal.SIGKILL)


class Steps:
    """The steps of a process, and the step at which it dies."""

    def __init__(self, kill: Kill | None) -> None:
        self.taken: list[Step] = []
        self._kill = kill
        self._journal: WatchedFile | None = None
        self._num_synced = 0  # bytes of the journal that are synced

    def take(
        self, name: str, act: Callable[[], T], half: Callable[[], object] | None = None, *, acts: bool = False
    ) -> T:
        """Do a step; `half` does half of it, for a death in the middle."""
        index = len(self.taken)
        self.taken.append(Step(name, half is not None, acts))
        phase = self._kill.phase if self._kill is not None and self._kill.step == index else None
        if phase == "middle" and half is not None:
            half()
        if phase in ("before", "middle"):
            die()
        try:
            return act()
        finally:  # a failed action, such as creating an existing folder, is a step too
            if phase == "power" and self._journal is not None and not self._journal.closed:
                length = min(self._num_synced, os.fstat(self._journal.fileno()).st_size)
                io.FileIO.truncate(self._journal, length)
            if phase in ("after", "power"):
                die()

    def watch_files(self) -> None:
        """Count all later changes of files by this process as steps."""
        for name in ("mkdir", "unlink", "replace", "rename"):
            self._wrap(name)
        os.fsync = lambda descriptor: self.take("fsync", lambda: self._sync(descriptor))
        self._wrap("write", half=lambda write, descriptor, data: write(descriptor, data[: len(data) // 2]))
        self._wrap("pwrite", half=lambda pwrite, to, data, offset: pwrite(to, data[: len(data) // 2], offset))
        self._wrap("ftruncate", half=lambda truncate, of, length: truncate(of, (os.fstat(of).st_size + length) // 2))
        os_open, builtin_open, steps = os.open, builtins.open, self

        def open_descriptor(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            def act() -> int:
                return os_open(path, flags, *rest, **options)

            return steps.take("create", act) if flags & os.O_CREAT else act()

        def open_file(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if mode == "wb":
                return io.BufferedWriter(steps.take("create", lambda: WatchedFile(file, mode, steps=steps)))
            return builtin_open(file, mode, *rest, **options)

        def open_raw(descriptor: int, mode: str, buffering: int) -> io.FileIO:
            assert buffering == 0, "only journals are opened like this"
            if mode == "rb":
                return io.FileIO(descriptor, mode)
            self._journal = WatchedFile(descriptor, mode, steps=steps)
            self._num_synced = os.fstat(descriptor).st_size  # earlier sessions are synced
            return self._journal

        os.open, builtins.open, os.fdopen = open_descriptor, open_file, open_raw  # type: ignore[assignment]

    def _sync(self, descriptor: int) -> None:
        """Note what is synced, without waiting. Data of a killed process survive anyway, unless the power fails."""
        if self._journal is not None and not self._journal.closed and descriptor == self._journal.fileno():
            self._num_synced = os.fstat(descriptor).st_size

    def _wrap(self, name: str, half: Callable[..., object] | None = None) -> None:
        plain = getattr(os, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            cut_short = None if half is None else lambda: half(plain, *args)
            return self.take(name, lambda: plain(*args, **options), cut_short)

        setattr(os, name, wrapped)


class WatchedFile(io.FileIO):
    """A file whose writes and truncations are steps."""

    def __init__(self, file: Any, mode: str, *, steps: Steps) -> None:
        super().__init__(file, mode)
        self._steps = steps

    def write(self, data: Any) -> int:
        data = bytes(data)
        is_line = data.startswith(b'{"event":') and data.find(b"\n") == len(data) - 1  # not a copy of a journal
        name = f"write {json.loads(data)['event']}" if is_line else "write"
        write = super().write
        return self._steps.take(name, lambda: write(data), lambda: write(data[: len(data) // 2])) or 0

    def truncate(self, size: int | None = None) -> int:
        assert size is not None
        truncate, now = super().truncate, os.fstat(self.fileno()).st_size
        return self._steps.take("truncate", lambda: truncate(size), lambda: truncate((now + size) // 2))


class WatchedExecutor:
    """An executor whose submissions and events are steps."""

    note: Callable[[str], None] | None = None

    def __init__(self, executor: Executor, steps: Steps, log: Callable[..., None]) -> None:
        self._executor, self._steps, self._log = executor, steps, log

    @property
    def num_free(self) -> int:
        return self._executor.num_free

    def submit(self, job: Job) -> None:
        self._log("submitted", number=job.number, attempt=job.attempt)
        self._steps.take("submit", lambda: self._executor.submit(job), acts=True)

    def cancel(self, number: int) -> None:
        self._executor.cancel(number)

    def release_idle(self) -> None:
        self._executor.release_idle()

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        def hand_over(event: WorkerEvent) -> None:
            self._steps.take(f"hand over {type(event).__name__}", lambda: on_event(event), acts=True)

        self._executor.wait(hand_over, timeout_seconds)

    def __enter__(self) -> Self:
        self._executor.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._executor.__exit__(kind, error, where)


# A child


class LoggingDisplay(Display):
    """Logs each event that it shows."""

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log

    def show(self, event: Event) -> None:
        self._log("shown", event=event.to_json())


def search_or_resume(configuration: Configuration, place: Path, *, session: int, seed: int, kill: Kill | None) -> None:
    """Search or resume in a child, which may be killed.

    The child logs to `log.jsonl`, which survives a kill. A child that finishes writes its steps to `steps.json`.
    """
    log_file = os.open(place / "log.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _write(log_file, b"\n")  # a kill can cut a write at a page boundary, so that a new line starts here

    def log(what: str, **about: Any) -> None:
        _write(log_file, json.dumps({"what": what, "session": session, **about}).encode() + b"\n")

    steps = Steps(kill)
    serial = loop.make_executor

    def make_executor(task: Any, config: ExecutorConfig, run: Path, note: Any) -> Executor:
        if config.kind == "serial":
            return WatchedExecutor(serial(task, config, run, note), steps, log)
        lost = {(2, 0): FailureKind.WORKER_LOST}
        mixed = random.Random(f"{seed} {session}").getrandbits(32)
        return WatchedExecutor(ShuffledExecutor(task, config.workers, mixed, lost), steps, log)

    def tell(controller: Any, number: int, result: Evaluation | Failure) -> bool:
        log("told", number=number, result=result.to_json())
        return steps.take("tell", lambda: plain_tell(controller, number, result), acts=True)

    told = FreezeThaw if configuration.pauses else ReplicateLeaders
    plain_tell = told.tell
    told.tell = tell  # type: ignore[method-assign]
    loop.make_executor = make_executor
    ownership.EXPIRY_SECONDS = 0.05  # for an owner that died before it recorded its host
    os.getpid = lambda: 1
    steps.watch_files()
    task = LoggingTask(num_epochs=configuration.num_epochs, measures_ap=configuration.pauses, log=log)
    display = LoggingDisplay(log)
    run = place / "run"
    if run.exists():
        resume(run, task=task, display=display)
    else:
        run_search(configuration.search, out=run, task=task, display=display)
    (place / "steps.json").write_text(json.dumps(steps.taken))


def in_child(act: Callable[[], None], *, seconds: float | None = None) -> int:
    """Run a function in a fork, which is killed after this time; return the status of os.waitpid."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


# Invariants


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a file of JSON lines; a line that a kill has cut is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


@dataclass
class Life:
    """A run from start to end, over any number of sessions.

    Attributes:
        place: folder of the run and of the logs of its children.
        seed: seed of the order in which workers finish.
        num_kills: number of killed children.
        problems: violated invariants.
    """

    configuration: Configuration
    place: Path
    seed: int = 0
    num_kills: int = 0
    problems: list[str] = field(default_factory=list)
    _num_sessions: int = 0

    @property
    def journal(self) -> Path:
        return self.place / "run" / "journal.jsonl"

    def session(self, kill: Kill | None = None, *, seconds: float | None = None) -> bool:
        """Search or resume in a child; return whether it finished."""
        begun, number = lines_of(self.journal), self._num_sessions
        if self.journal.exists() and not begun:
            # Follow the advice in the message of `spinenas resume`.
            shutil.rmtree(self.place / "run")
        status = in_child(
            lambda: search_or_resume(self.configuration, self.place, session=number, seed=self.seed, kill=kill),
            seconds=seconds,
        )
        self._num_sessions += 1
        self.num_kills += os.WIFSIGNALED(status)
        if status not in (0, signal.SIGKILL):
            self.problems.append(f"session {number} ended with status {status}")
        logged = [line for line in lines_of(self.place / "log.jsonl") if line["session"] == number]
        self.problems += unwritten(logged, lines_of(self.journal))
        self.problems += trained_again(logged, begun)
        return status == 0

    def finish(self) -> None:
        """Resume without a kill, and check the results."""
        if not self.session():
            self.problems.append("the run does not finish")
            return
        events = lines_of(self.journal)
        self.problems += unwritten(lines_of(self.place / "log.jsonl"), events)
        self.problems += fences(events)
        search = self.configuration.search
        if self.configuration.mode != "ordered":
            self.problems += not_recomputed(search, events)
        if self.configuration.pauses:
            self.problems += unpaused(events, num_epochs=search.num_epochs)
            if self.configuration.mode != "free" and not num_replicates(events):  # a free run differs after each kill
                self.problems.append("the search replicated no trial")
        else:
            self.problems += misjudged(events, search.halving, by_number=self.configuration.mode == "ordered")

    @cached_property
    def outcome(self) -> list[Any]:
        """Trials and results in the order of their numbers."""
        records = Run.open(self.place / "run").records()
        return [
            (record.number, record.genotype and record.genotype.key, record.seed, record.evaluation, record.failure)
            for record in records
        ]

    def steps(self) -> list[Step]:
        """The steps of the last session, which finished."""
        return [Step(*step) for step in json.loads((self.place / "steps.json").read_text())]


def unwritten(logged: list[dict[str, Any]], events: list[dict[str, Any]]) -> Iterator[str]:
    """Yield each action or shown event that is not in the journal."""
    asked = {event["proposal"]["number"] for event in events if event["event"] == "asked"}
    told = {event["number"]: event for event in events if event["event"] == "told"}
    results: dict[int, list[Any]] = {}
    for event in events:
        if event["event"] in ("told", "paused"):
            results.setdefault(event["number"], []).append(result_of(event))
    for line in logged:
        number = line.get("number")
        if line["what"] == "submitted" and number not in asked:
            yield f"trial {number} was submitted and is not in the journal"
        elif line["what"] == "told" and line["result"] not in results.get(number, []):
            yield f"the result of trial {number} was told to the controller and is not in the journal"
        elif line["what"] == "shown" and line["event"]["event"] == "told":
            event = line["event"]
            if not event.items() <= told.get(event["number"], {}).items():
                yield f"the result of trial {event['number']} was shown and is not in the journal"


def result_of(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a told or paused event in the form of `to_json`."""
    evaluation = event.get("evaluation")
    return event.get("failure") if evaluation is None else {**evaluation, "curve": []}


def trained_again(logged: list[dict[str, Any]], begun: list[dict[str, Any]]) -> Iterator[str]:
    """Yield each training of a session that was finished or had paused before, or that ran twice."""
    finished = {event["number"] for event in begun if event["event"] == "told"}
    reached = {(event["number"], event["attempt"]) for event in begun if event["event"] == "paused"}
    trained = Counter((line["number"], line["attempt"]) for line in logged if line["what"] == "trained")
    for (number, attempt), count in trained.items():
        if number in finished or (number, attempt) in reached or count > 1:
            yield f"trial {number} was trained again in attempt {attempt}"


def fences(events: list[dict[str, Any]]) -> Iterator[str]:
    """Yield each line without the fencing number of its session, which is above those of earlier sessions."""
    for before, event in itertools.pairwise(events):
        last, fence = before.get("fence", 0), event.get("fence", 0)
        if fence <= last if event["event"] == "resumed" else fence != last:
            yield f"{event['event']} has fence {fence} after {last}"


def unpaused(events: list[dict[str, Any]], *, num_epochs: int) -> Iterator[str]:
    """Yield what a finished run whose controller pauses trainings did wrong with its pauses and epochs."""
    until: dict[int, int | None] = {}
    paused: dict[int, dict[str, Any]] = {}
    spent = 0
    for event in events:
        number = event["proposal"]["number"] if event["event"] == "asked" else event.get("number")
        if event["event"] == "asked":
            until[number] = event["proposal"]["until"]
            spent += until[number] or NUM_PAUSED_EPOCHS
        elif event["event"] == "paused":
            paused[number] = event["evaluation"]
            if event["evaluation"]["stopped_after"] != until[number]:
                yield f"trial {number} is paused at another epoch than {until[number]}"
        elif event["event"] == "promoted":
            until[number] = event["until"]
            if event["epoch"] != paused.pop(number)["stopped_after"]:
                yield f"trial {number} goes on from another epoch than that of its pause"
            spent += (until[number] or NUM_PAUSED_EPOCHS) - event["epoch"]
        elif event["event"] == "told" and event.get("status") == "pruned" and event["evaluation"] != paused.pop(number):
            yield f"trial {number} has ended with another result than that of its pause"
    kinds = {event["event"] for event in events} | {event.get("status") for event in events}
    if not {"promoted", "paused", "pruned", "complete"} <= kinds:
        yield "the search did not pause, continue, end and complete trials"
    if paused:
        yield f"trials {sorted(paused)} are paused for ever"
    if not 0.8 * num_epochs < spent <= num_epochs:
        yield f"{spent} of {num_epochs} epochs were asked for"


def num_replicates(events: list[dict[str, Any]]) -> int:
    """Return how many trials train a network again."""
    return sum(event["proposal"]["replicate"] > 0 for event in events if event["event"] == "asked")


def not_recomputed(config: SearchConfig, events: list[dict[str, Any]]) -> Iterator[str]:
    """Yield each step that a fresh controller does not repeat when called in the order of the journal."""
    controller = loop.search_controller(config)
    for event in events:
        number = event["proposal"]["number"] if event["event"] == "asked" else event.get("number")
        if event["event"] == "asked":
            step = controller.ask()
            if not isinstance(step, Proposal) or step.to_json() != event["proposal"]:
                yield f"trial {number} is not what its controller proposes"
        elif event["event"] == "promoted" and "num_told" in event:
            if controller.ask() != Continuation(number, event["until"]):
                yield f"trial {number} is not what its controller continues"
        elif event["event"] == "told" or (event["event"] == "paused" and config.pauses_trainings):
            failure = event.get("failure")
            result = Failure.from_json(failure) if failure else Evaluation.from_json(event["evaluation"])
            if not controller.tell(number, result):
                yield f"trial {number} was told twice"


# The matrix


class Matrix:
    """All lives of one configuration, each in a temporary folder.

    Attributes:
        steps: steps of the uninterrupted run.
        kills: number of killed children by column of the table.
        problems: violated invariants, each with the place of the kill.
    """

    def __init__(self, configuration: Configuration, folder: Path) -> None:
        self.configuration, self._folder = configuration, folder
        self.kills: Counter[str] = Counter()
        self.problems: list[str] = []
        began = time.monotonic()
        with self._life() as whole:
            whole.finish()
            self._seconds = time.monotonic() - began
            self.problems += whole.problems
            self.steps, self._expected = whole.steps(), whole.outcome

    def at_steps(self, kills: Iterable[Kill]) -> None:
        """Kill one run at each of these places."""
        for kill in kills:
            with self._life() as life:
                self._die(life, kill)
                self._conclude(
                    life, "power" if kill.phase == "power" else "steps", f"{kill} {self.steps[kill.step].name}"
                )

    def twice(self, first: Kill, *, choose: Callable[[list[Step]], Iterable[Kill]]) -> None:
        """Kill runs at `first`, and the resuming session at each chosen step."""
        with self._life() as life:
            self._die(life, first)
            life.session()
            steps = life.steps()
        for kill in choose(steps):
            with self._life() as life:
                self._die(life, first)
                self._die(life, kill)
                self._conclude(life, "twice", f"{first}, then {kill} {steps[kill.step].name}")

    def chain(self, seed: int) -> None:
        """Kill a run repeatedly, soon after each resumption."""
        rng = random.Random(f"chain {seed}")
        with self._life(seed) as life:
            for _ in range(LONGEST_CHAIN):
                if life.session(Kill(rng.randrange(100), rng.choice(get_args(Phase)))):
                    break
            self._conclude(life, "chains", f"chain {seed}")

    def at_moments(self, num_moments: int) -> None:
        """Kill runs at random moments, and half of the resumptions as well."""
        rng = random.Random(f"moments of {self.configuration.name}")
        for seed in itertools.count():
            if self.kills["moments"] >= num_moments:
                return
            with self._life(seed) as life:
                life.session(seconds=rng.uniform(0, self._seconds))
                if rng.random() < 0.5:
                    life.session(seconds=rng.uniform(0, self._seconds))
                self._conclude(life, "moments", f"random moment {seed}")

    @contextmanager
    def _life(self, seed: int = 0) -> Iterator[Life]:
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            yield Life(self.configuration, Path(place), seed)

    def _die(self, life: Life, kill: Kill) -> None:
        if life.session(kill):
            life.problems.append(f"{kill} was never reached")

    def _conclude(self, life: Life, column: str, where: str) -> None:
        self.kills[column] += life.num_kills
        life.finish()
        if not life.problems and self.configuration.mode != "free" and life.outcome != self._expected:
            life.problems.append("the results differ from those of the uninterrupted run")
        self.problems += [f"{self.configuration.name}, {where}: {problem}" for problem in life.problems]


def every_kill(steps: Sequence[Step]) -> list[Kill]:
    """Return all places to die."""
    return [Kill(index, phase) for index, step in enumerate(steps) for phase in step.phases()]


def one_of_each(steps: Sequence[Step], rng: random.Random) -> list[Kill]:
    """Return one place to die for each kind of step and each of its phases."""
    places: dict[tuple[str, str], list[Kill]] = {}
    for kill in every_kill(steps):
        places.setdefault((steps[kill.step].name, kill.phase), []).append(kill)
    return [rng.choice(kills) for kills in places.values()]


def until_it_searches(steps: Sequence[Step]) -> list[Kill]:
    """Return all places to die in a resumption, from the lease to the first job."""
    length = next((index for index, step in enumerate(steps) if step.name == "submit"), len(steps))
    return every_kill(steps[: length + 1])


def interesting_starts(steps: Sequence[Step]) -> list[Kill]:
    """Return places for the first of two kills: with half a line written, and with trials running."""

    def nth(name: str, n: int, phase: Phase) -> Kill:
        return Kill([index for index, step in enumerate(steps) if step.name == name][n], phase)

    starts = [
        nth("write told", 5, "middle"),
        nth("write epoch", 7, "after"),
        nth("write requeued", 1, "middle"),
        nth("write asked", 8, "after"),
    ]
    if any(step.name == "write paused" for step in steps):
        starts += [nth("write paused", 9, "after"), nth("write promoted", 4, "middle")]
    return starts


def prepare() -> None:
    """Make forks cheap: no heavy package is loaded, and versions are looked up once."""
    assert not {"torch", "ray", "pandas"} & set(sys.modules), "a light parent makes cheap children"
    platform.platform()
    versions = loop.versions()
    loop.versions = lambda: versions
    gaussian_process.Features = cache(gaussian_process.Features)  # type: ignore[assignment, misc]
    gaussian_process.Features(space_by_name(SearchConfig().space.name))
    logging.getLogger("spinenas").setLevel(logging.ERROR)  # hides the warnings about half-written lines
    gc.collect()
    gc.freeze()


def whole_matrix(matrix: Matrix) -> None:
    """Run all kills, which takes minutes per configuration."""
    matrix.at_steps(every_kill(matrix.steps))
    for first in interesting_starts(matrix.steps):
        matrix.twice(first, choose=until_it_searches)
    for seed in range(NUM_CHAINS):
        matrix.chain(seed)
    matrix.at_moments(NUM_RANDOM_MOMENTS)


def sample_of_it(matrix: Matrix) -> None:
    """Run each kind of step once and a few of the other kills, which takes seconds per configuration."""
    rng = random.Random(f"sample of {matrix.configuration.name}")
    matrix.at_steps(one_of_each(matrix.steps, rng))
    first = rng.choice(interesting_starts(matrix.steps))
    matrix.twice(first, choose=lambda steps: rng.sample(until_it_searches(steps), 12))
    matrix.chain(rng.randrange(NUM_CHAINS))
    matrix.at_moments(10)


def main() -> int:
    """Print a table of kills and differences, then the differences; return their number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="run each kind of step once, and few of the other kills")
    parser.add_argument(
        "names", nargs="*", metavar="CONFIGURATION", help=", ".join(each.name for each in CONFIGURATIONS)
    )
    given = parser.parse_args()
    prepare()
    print(f"| configuration | steps | kills {' | '.join(COLUMNS)} | differences | seconds |")
    print("|---|" + "---|" * (len(COLUMNS) + 3))
    kills: Counter[str] = Counter()
    problems: list[str] = []
    for configuration in CONFIGURATIONS:
        if given.names and configuration.name not in given.names:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            matrix = Matrix(configuration, Path(folder))
            (sample_of_it if given.sample else whole_matrix)(matrix)
        counts = " | ".join(str(matrix.kills[column]) for column in COLUMNS)
        seconds = time.monotonic() - began
        print(f"| {configuration.name} | {len(matrix.steps)} | {counts} | {len(matrix.problems)} | {seconds:.0f} |")
        sys.stdout.flush()
        kills += matrix.kills
        problems += matrix.problems
    print(*problems, sep="\n", end="\n" if problems else "")
    print(f"{kills.total()} kills, {len(problems)} differences")
    return len(problems)


if __name__ == "__main__":
    sys.exit(min(1, main()))
