"""A Ray Tune experiment of a user's own, led by one of our controllers; nothing of what its trials do.

    controller = make_controller("evolution", SearchSpace.spinenet49(), seed=0)
    searcher = ControllerSearcher(controller, metric="AP")
    tune.TuneConfig(search_alg=searcher, num_samples=100, max_concurrent_trials=4)

Each trial's config has `genotype` (the text that `Genotype.from_text` reads), `number` and `replicate`, beside what
param_space holds; its last report counts. Without max_concurrent_trials Tune keeps a single trial pending for a
searcher that is not its own, and workers wait. A class of yours that saves nothing needs
CheckpointConfig(checkpoint_at_end=False), or each of its trials ends in an error after its result.

`Tuner.restore` goes on from Tune's last snapshot. One is written every 10 s at most, and less often if writing takes
more than a twentieth of the time. Trials that ended after it are run again, and those proposed after it are proposed
again: the same ones, as far as the results before them come in the same order. A snapshot is several files, and a crash
may leave some of them older than others: what Tune says of a trial counts. Tune restores no scheduler. The searcher's
own file there, searcher-state-*.pkl, is JSON whatever its name says, but Tune's others are pickles, so restore no
experiment that you do not trust. A search of ours keeps more: its journal has every result.

It limits the number of trials itself, by max_concurrent_trials or by a ConcurrencyLimiter around it, whose `batch` has
no effect: results count as they come. (Tune's own count waits for ever for a trial that a crash made it forget.)
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

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.results.storage.atomic_write import write_text_atomically
from spinenas.space.errors import UserError

logger = logging.getLogger(__name__)

FORMAT = "spinenas-searcher/1"


class ControllerSearcher(Searcher):
    """Suggests what a controller proposes, and tells it each result once.

    What it has done is a list of events, each with Tune's id of the trial: what was asked, as `Proposal.to_json`, and
    what was told, an objective or a failure. Saving writes the list, restoring replays it into the controller.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        metric: str,
        mode: Literal["max", "min"] = "max",
        num_samples: int | None = None,
    ):
        """Lead an experiment. Raises UserError.

        Args:
            controller: who proposes; from now on nobody else asks or tells it.
            metric: what trials report and the controller shall improve; nested as "val/AP", as Tune writes it.
            mode: whether more or less of it is better.
            num_samples: proposals in all; None for as many as Tune wants, which has a num_samples of its own.
        """
        if mode not in ("max", "min"):
            raise UserError(f"mode is {mode!r}; it is 'max' or 'min'")
        # The metric is kept from Tune, which would end the whole experiment at the first report without it.
        super().__init__()
        self._fresh = copy.deepcopy(controller)  # what a restored history is replayed into
        self._controller = controller
        self._objective, self._better = metric, mode
        self._num_samples = num_samples
        self._events: list[dict[str, Any]] = []
        self._open: dict[str, int] = {}  # numbers of proposals without a result, by trial id
        self._num_asked = 0
        self._max_concurrent: int | None = None
        self._running: set[str] = set()  # of the open ones, those of the experiment that runs now

    def suggest(self, trial_id: str) -> Any:
        """Return the config of a new trial, None while results are awaited, FINISHED when no more will come."""
        if self._num_samples is not None and self._num_asked >= self._num_samples:
            return Searcher.FINISHED
        if self._max_concurrent is not None and len(self._running) >= self._max_concurrent:
            return None
        try:
            proposal = self._controller.ask()
        except SpaceExhausted as reason:
            logger.info("nothing is left to try after %d proposals: %s", self._num_asked, reason)
            return Searcher.FINISHED
        if proposal is None:
            return None
        self._events.append({"trial_id": trial_id, "asked": proposal.to_json()})
        self._open[trial_id] = proposal.number
        self._running.add(trial_id)
        self._num_asked += 1
        return {"genotype": proposal.genotype.text, "number": proposal.number, "replicate": proposal.replicate}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the controller how a trial ended; of one that is unknown or was told before nothing is taken."""
        self._end(trial_id, self._outcome(result, error))

    def _end(self, trial_id: str, outcome: Evaluation | Failure) -> None:
        self._running.discard(trial_id)
        number = self._open.pop(trial_id, None)
        if number is None:
            return
        said = {"objective": outcome.objective} if isinstance(outcome, Evaluation) else {"failure": outcome.to_json()}
        self._events.append({"trial_id": trial_id, **said})
        self._controller.tell(number, outcome)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Limit the trials from now on, which Tune asks for when an experiment begins; return that this does it."""
        self._max_concurrent = max_concurrent
        self._running = set()  # what another experiment has left open takes no place in this one
        return True

    def save(self, checkpoint_path: str) -> None:
        """Write what has been asked and told as JSON."""
        data = {"format": FORMAT, "metric": self._objective, "mode": self._better, "events": self._events}
        write_text_atomically(Path(checkpoint_path), json.dumps(data, allow_nan=False))

    def restore(self, checkpoint_path: str) -> None:
        """Become what wrote the file, if made with an equal controller. Raises UserError, and is as before."""
        controller = copy.deepcopy(self._fresh)
        try:
            data = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
            about = tuple(data[key] for key in ("format", "metric", "mode"))
            open_ = _replay(data["events"], controller)
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{checkpoint_path} is not what a ControllerSearcher has saved ({reason})") from error
        expected = (FORMAT, self._objective, self._better)
        if about != expected:
            raise UserError(
                f"{checkpoint_path} has format, metric and mode {about}, this searcher {expected}; make both the same"
            )
        self._controller, self._events, self._open = controller, data["events"], open_
        self._running = set(open_)
        self._num_asked = sum("asked" in event for event in self._events)

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Become what Tune has saved in a folder, trials as Tune's own file there has them. Raises UserError."""
        super().restore_from_dir(checkpoint_dir)
        snapshots = list(Path(checkpoint_dir).glob(TuneController.CKPT_FILE_TMPL.format("*")))
        if not snapshots:
            return
        trials = _trials(max(snapshots))
        for trial_id in list(self._open):
            if trial_id not in trials:
                self._end(trial_id, Failure(FailureKind.WORKER_LOST, "the snapshot of Tune is older than this trial"))
                continue
            status, last_result = trials[trial_id]
            if status in (Trial.TERMINATED, Trial.ERROR):
                self.on_trial_complete(trial_id, last_result, error=status == Trial.ERROR)

    def _outcome(self, result: dict[str, Any] | None, error: bool) -> Evaluation | Failure:
        if error:
            return Failure(FailureKind.BUG, "the trial ended with an error, which its error.txt has")
        value = (result or {}).get(self._objective)
        try:
            value = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return Failure(FailureKind.BUG, f"{self._objective} of the last report is {value!r}, which is no number")
        if not math.isfinite(value):
            return Failure(FailureKind.DIVERGED, f"{self._objective} is {value}")
        return Evaluation(objective=value if self._better == "max" else -value)


def _trials(snapshot: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Read status and last report of each trial from Tune's file, by trial id."""
    trials = {}
    for trial_json, metadata_json in json.loads(snapshot.read_text(encoding="utf-8"))["trial_data"]:
        trial, metadata = json.loads(trial_json), json.loads(metadata_json)
        trials[trial["trial_id"]] = trial["status"], flatten_dict(metadata["last_result"])
    return trials


def _replay(events: list[dict[str, Any]], controller: Controller) -> dict[str, int]:
    """Ask and tell a fresh controller the same again; return the numbers that have no result, by trial id."""
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
