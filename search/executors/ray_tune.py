"""The Ray Tune executor, for Tune's loggers, callbacks and cluster features.

Tune's loop runs in a thread. Its searcher hands out the submitted jobs. Its callback hands over events and waits until
the driver has acted on them, so that the journal is always written first. Tune's own files (a
table and TensorBoard logs for each trial) are in the run's folder tune/, in one session-NNN per start; nothing is
restored from them. spinenas must be installed on every machine of a cluster.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, Stopper, Trainable, TuneConfig, Tuner
from ray.tune.search import Searcher

from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.results.storage.events import EpochDone, Finished
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.base import ENDS, Executor, Job, Message, Note, Remark, Task, WorkerEvent
from spinenas.search.executors.data_command import this_session
from spinenas.search.executors.raw_output import raw_output_in
from spinenas.search.executors.ray_session import accelerators_of, prepare_worker, ray_session, request_of
from spinenas.search.executors.storage_variables import StorageVariables, storage_variables
from spinenas.search.executors.worker import stream_job
from spinenas.space.errors import UserError


class TuneExecutor(Executor):
    """Runs jobs as trials of one Tune experiment that never ends by itself. Tune releases idle workers itself."""

    def __init__(self, task: Task, config: ExecutorConfig, folder: Path, note: Note):
        """Run trials of a prepared task; Ray starts when the executor is entered, Tune with the first job.

        Args:
            task: trains and measures genotypes.
            config: workers and their resources.
            folder: where Tune keeps its files, an absolute path; made with the first job.
            note: shows a message to the user.
        """
        self._task, self._config, self._folder, self._note = task, config, folder, note
        self._num_free = config.workers
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[WorkerEvent | BaseException] = queue.SimpleQueue()
        self._acted = threading.Semaphore(0)
        self._stopping = threading.Event()
        self._num_to_acknowledge = 0
        self._thread: threading.Thread | None = None

    def start(self, stack: ExitStack) -> None:
        self._settle_output = stack.enter_context(raw_output_in(self._folder.parent))
        self._gpus = stack.enter_context(ray_session(self._config, self._note))
        stack.callback(self._stop)

    @property
    def num_free(self) -> int:
        """Number of jobs that Tune accepts now; only Tune knows how many run."""
        return self._num_free

    def submit(self, job: Job) -> None:
        """Give the job to Tune."""
        self._settle_output()
        self._num_free -= 1
        self._jobs.put(job)
        if self._thread is None:  # not before: a run that cannot start leaves no files
            self._thread = threading.Thread(target=self._run_tune, daemon=True)
            self._thread.start()

    def cancel(self, number: int) -> None:
        """Do nothing: Tune runs the job to its end, and the driver refuses its reports."""

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        """Let Tune continue, and hand over the next event."""
        if self._num_to_acknowledge:
            self._num_to_acknowledge -= 1
            self._acted.release()
        try:
            event = self._events.get(timeout=timeout_seconds)
        except queue.Empty:
            return
        if isinstance(event, BaseException):
            raise event
        self._num_to_acknowledge += 1
        self._num_free += isinstance(event, ENDS)
        on_event(event)

    def _hand_over(self, event: Message | UserError) -> None:
        """Called in Tune's thread."""
        if isinstance(event, Remark):
            self._note(event.text)
        elif not self._stopping.is_set():
            self._events.put(event)
            self._acted.acquire()

    def _run_tune(self) -> None:
        try:
            self._tuner().fit()
        except BaseException as error:
            self._events.put(error)

    def _tuner(self) -> Tuner:
        # The newer reporter prints on stdout even when it is told to be silent.
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        session = sum(1 for _ in self._folder.glob("session-*"))
        trainable = tune.with_resources(
            tune.with_parameters(
                _TaskTrainable,
                task=self._task,
                gpus=self._gpus,
                config=self._config,
                session=this_session(),
                variables=storage_variables(),
            ),
            request_of(self._config, self._gpus),
        )
        return Tuner(
            trainable,
            tune_config=TuneConfig(
                search_alg=_JobSearcher(self._jobs),
                num_samples=-1,
                # Without a limit a custom searcher keeps a single trial pending.
                max_concurrent_trials=self._config.workers,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=RunConfig(
                name=f"session-{session:03d}",
                storage_path=str(self._folder),
                callbacks=[_EventCallback(self._hand_over)],
                stop=_StopAll(self._stopping),
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # trials have nothing to save
                failure_config=FailureConfig(max_failures=0),  # the driver decides about retries
                verbose=0,
            ),
        )

    def _stop(self) -> None:
        if self._thread is None:
            return
        self._stopping.set()
        self._acted.release()  # in case Tune's thread waits
        self._thread.join(timeout=STOP_SECONDS)


STOP_SECONDS = 10.0
"""How long Tune has to end its trials and write its files; it kills the rest."""


class _Unsaved:
    """Part of Tune's pickled state; empty, as nothing is restored from it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StopAll(_Unsaved, Stopper):
    """Ends all trials and the experiment when the executor is left."""

    def __init__(self, stopping: threading.Event):
        self._stopping = stopping

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stopping.is_set()


class _JobSearcher(_Unsaved, Searcher):
    """Suggests the submitted jobs."""

    def __init__(self, jobs: queue.SimpleQueue[Job]):
        super().__init__()
        self._jobs = jobs

    def suggest(self, trial_id: str) -> Any:
        try:
            return {"job": self._jobs.get_nowait()}
        except queue.Empty:
            return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the callback reports results."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: there is nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: there is nothing to restore."""


class _TaskTrainable(Trainable):
    """A long-lived worker: holds the task, runs one job after the other, and returns one event per step."""

    _events: Iterator[Message]

    def setup(  # type: ignore[override]
        self,
        tune_config: dict[str, Any],
        task: Task,
        gpus: float,
        config: ExecutorConfig,
        session: str,
        variables: StorageVariables,
    ) -> None:
        prepare_worker(config, gpus, session, variables)
        self._stream = partial(
            stream_job, task, accelerators=accelerators_of(config, gpus), seconds=config.trial_seconds
        )
        self.reset_config(tune_config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._events = self._stream(new_config["job"], f"tune-{self.trial_id}")
        return True

    def step(self) -> dict[str, Any]:
        event = next(self._events)
        figures: dict[str, Any] = {}
        if isinstance(event, EpochDone):
            figures = {"epoch": event.epoch, **event.metrics}
        elif isinstance(event, Finished) and isinstance(event.result, Evaluation):
            figures = {"objective": event.result.objective}
        return {"event": event, "done": isinstance(event, ENDS), **figures}


class _EventCallback(_Unsaved, Callback):
    """Hands events over to the driver, and waits until it has acted on them."""

    def __init__(self, hand_over: Callable[[Message | UserError], None]):
        self._hand_over = hand_over

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self._hand_over(result["event"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        job = trial.config["job"]
        # Tune passes on only the error's text, in a file; its get_error reads a copy that is written later.
        error = Path(trial.error_file).read_text(encoding="utf-8").partition("\n")[2].strip()
        if "in its creation task" in error:
            reason = error.splitlines()[-1]
            self._hand_over(
                UserError(
                    f"a worker of Tune cannot start ({reason}; see {trial.error_file}); "
                    "install spinenas and what the task needs on every machine of the cluster, and resume the run"
                )
            )
        else:
            self._hand_over(Finished(job.number, job.attempt, _loss(error)))


def _loss(error: str) -> Failure:
    """Classify the loss of a worker by Ray's text: out of memory, or its process or whole machine lost."""
    reason = next(iter(error.splitlines()), "unknown reason")
    if "low on memory" in error:
        return Failure(FailureKind.OUT_OF_MEMORY, f"the worker was ended, its machine ran out of memory: {reason}")
    # A lost machine does not answer; Ray knows that it is dead only some seconds later.
    if "is unavailable" in error or "its node has died" in error:
        return Failure(FailureKind.PREEMPTED, f"the machine of the worker was lost: {reason}")
    return Failure(FailureKind.WORKER_LOST, f"the worker died: {reason}", error)


def _trial_name(trial: Any) -> str:
    job = trial.config["job"]
    return f"{job.number:06d}-{job.attempt}"
