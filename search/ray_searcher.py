"""Lets a controller lead a Ray Tune experiment of your own. It does not know what the trials do.

    controller = make_controller("evolution", SearchSpace.spinenet49(), seed=0)
    searcher = ControllerSearcher(controller, metric="AP")
    tune.TuneConfig(search_alg=searcher, num_samples=100, max_concurrent_trials=4)

The config of each trial has `genotype` (text for `Genotype.from_text`), `number` and `replicate`, besides the values of
param_space. The last report of a trial counts. Set max_concurrent_trials: without it, Tune keeps a single trial pending
for a custom searcher, and workers wait. A trainable class that saves no checkpoint needs
CheckpointConfig(checkpoint_at_end=False); otherwise each of its trials ends in an error after its result.

`Tuner.restore` continues from Tune's last snapshot. Tune writes one at most every 10 s, and less often if writing takes
more than a twentieth of the time. Trials that ended after the snapshot run again. Later proposals are made again; they
are the same if earlier results arrive in the same order. A snapshot consists of several files, and a crash may leave
some of them older than others: what Tune records about a trial counts. Tune restores no scheduler. The searcher's own
file, searcher-state-*.pkl, is JSON despite its name, but other files of Tune are pickles, so restore only experiments
that you trust. `run_search` keeps more: its journal has every result.

The searcher itself limits the number of concurrent trials, given by max_concurrent_trials or by a ConcurrencyLimiter
around it. The limiter's `batch` has no effect, because results count as they come. (Tune's own count would wait forever
for a trial that a crash made it forget.)
"""

from __future__ import annotations

import copy
import json
import logging
import math
from pathlib import Path
from typing import Any, Literal

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from ray.tune.utils import flatten_dict

from spinenas.controller.base import Controller, Proposal, SpaceExhausted, SpendsEpochs
from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.results.storage.atomic_write import write_text_atomically
from spinenas.space.errors import UserError

logger = logging.getLogger(__name__)

FORMAT = "spinenas-searcher/1"


class ControllerSearcher(Searcher):
    """A Tune searcher that suggests the proposals of a controller, and tells it each result once.

    Its state is a list of events, each with Tune's id of the trial: a proposal (`Proposal.to_json`), an objective or a
    failure. Saving writes the list; restoring replays it into the controller.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        metric: str,
        mode: Literal["max", "min"] = "max",
        num_samples: int | None = None,
    ):
        """Make a searcher. Raises UserError.

        Args:
            controller: the search algorithm; nothing else may ask or tell it from now on.
            metric: the reported value to improve; nested values are written as "val/AP", as in Tune.
            mode: whether to maximize or minimize it.
            num_samples: number of proposals in total; None for no limit besides that of Tune.
        """
        if mode not in ("max", "min"):
            raise UserError(f"mode is {mode!r}; it is 'max' or 'min'")
        if isinstance(controller, SpendsEpochs):
            raise UserError(
                "this controller pauses and continues trainings, which Ray Tune's searchers cannot; give another, such "
                "as predictor-guided, or run it by `spinenas search`"
            )
        # Tune is not told the metric: it would end the whole experiment at the first report without it.
        super().__init__()
        self._fresh = copy.deepcopy(controller)  # restored histories are replayed into copies of it
        self._controller = controller
        self._objective, self._better = metric, mode
        self._num_samples = num_samples
        self._events: list[dict[str, Any]] = []
        self._open: dict[str, int] = {}  # numbers of proposals without a result, by trial id
        self._num_asked = 0
        self._max_concurrent: int | None = None
        self._running: set[str] = set()  # open trials of the current experiment

    def suggest(self, trial_id: str) -> Any:
        """Return the config of a new trial, None while results are awaited, or FINISHED after the last one."""
        if self._num_samples is not None and self._num_asked >= self._num_samples:
            return Searcher.FINISHED
        if self._max_concurrent is not None and len(self._running) >= self._max_concurrent:
            return None
        try:
            proposal = self._controller.ask()
        except SpaceExhausted as reason:
            logger.info("the search space is exhausted after %d proposals: %s", self._num_asked, reason)
            return Searcher.FINISHED
        if proposal is None:
            return None
        assert isinstance(proposal, Proposal), "the constructor refuses controllers that pause trainings"
        self._events.append({"trial_id": trial_id, "asked": proposal.to_json()})
        self._open[trial_id] = proposal.number
        self._running.add(trial_id)
        self._num_asked += 1
        return {"genotype": proposal.genotype.text, "number": proposal.number, "replicate": proposal.replicate}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the controller how a trial ended. Unknown and completed trials are ignored."""
        self._end(trial_id, self._outcome(result, error))

    def _end(self, trial_id: str, outcome: Evaluation | Failure) -> None:
        self._running.discard(trial_id)
        number = self._open.pop(trial_id, None)
        if number is None:
            return
        event = {"objective": outcome.objective} if isinstance(outcome, Evaluation) else {"failure": outcome.to_json()}
        self._events.append({"trial_id": trial_id, **event})
        self._controller.tell(number, outcome)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Limit concurrent trials, and return True because the limit is supported. Tune calls it at the start."""
        self._max_concurrent = max_concurrent
        self._running = set()  # open trials of an earlier experiment do not count
        return True

    def save(self, checkpoint_path: str) -> None:
        """Write the events as JSON."""
        data = {"format": FORMAT, "metric": self._objective, "mode": self._better, "events": self._events}
        write_text_atomically(Path(checkpoint_path), json.dumps(data, allow_nan=False))

    def restore(self, checkpoint_path: str) -> None:
        """Restore the state from a file of a searcher with an equal controller. A UserError leaves it unchanged."""
        controller = copy.deepcopy(self._fresh)
        try:
            data = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
            found = tuple(data[key] for key in ("format", "metric", "mode"))
            open_ = _replay(data["events"], controller)
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{checkpoint_path} is not a file of a ControllerSearcher ({reason})") from error
        expected = (FORMAT, self._objective, self._better)
        if found != expected:
            raise UserError(
                f"{checkpoint_path} has format, metric and mode {found}, but this searcher has {expected}; "
                "make both the same"
            )
        self._controller, self._events, self._open = controller, data["events"], open_
        self._running = set(open_)
        self._num_asked = sum("asked" in event for event in self._events)

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Restore the state from a folder of Tune, with the trials that Tune's own file records. Raises UserError."""
        super().restore_from_dir(checkpoint_dir)
        snapshots = list(Path(checkpoint_dir).glob(TuneController.CKPT_FILE_TMPL.format("*")))
        if not snapshots:
            return
        trials = _trials(max(snapshots))
        for trial_id in list(self._open):
            if trial_id not in trials:
                self._end(trial_id, Failure(FailureKind.WORKER_LOST, "Tune's snapshot is older than this trial"))
                continue
            status, last_result = trials[trial_id]
            if status in (Trial.TERMINATED, Trial.ERROR):
                self.on_trial_complete(trial_id, last_result, error=status == Trial.ERROR)

    def _outcome(self, result: dict[str, Any] | None, error: bool) -> Evaluation | Failure:
        if error:
            return Failure(FailureKind.BUG, "the trial ended with an error; its error.txt has the traceback")
        value = (result or {}).get(self._objective)
        try:
            value = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return Failure(FailureKind.BUG, f"{self._objective} of the last report is {value!r}, which is not a number")
        if not math.isfinite(value):
            return Failure(FailureKind.DIVERGED, f"{self._objective} is {value}")
        return Evaluation(objective=value if self._better == "max" else -value)


def _trials(snapshot: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Read the status and last report of each trial from Tune's file, by trial id."""
    trials = {}
    for trial_json, metadata_json in json.loads(snapshot.read_text(encoding="utf-8"))["trial_data"]:
        trial, metadata = json.loads(trial_json), json.loads(metadata_json)
        trials[trial["trial_id"]] = trial["status"], flatten_dict(metadata["last_result"])
    return trials


def _replay(events: list[dict[str, Any]], controller: Controller) -> dict[str, int]:
    """Replay events into a fresh controller; return the numbers of proposals without a result, by trial id."""
    numbers: dict[str, int] = {}
    for event in events:
        trial_id = event["trial_id"]
        if "asked" in event:
            proposal = Proposal.from_json(event["asked"])
            controller.replay_ask(proposal)
            numbers[trial_id] = proposal.number
        elif "failure" in event:
            controller.tell(numbers.pop(trial_id), Failure.from_json(event["failure"]))
        else:
            controller.tell(numbers.pop(trial_id), Evaluation(objective=event["objective"]))
    return numbers
