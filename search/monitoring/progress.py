"""The progress of a search, computed from its events."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from spinenas.controller.base import Proposal
from spinenas.results.leaderboard import NetworkRuns, ScalarizedObjective, leader
from spinenas.results.part_trained import PartTrained, part_trained
from spinenas.results.record import Failure, Fidelity, Status, TrialRecord
from spinenas.results.storage.epoch_count import EpochCount, trainings_words
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Paused, Requeued, Started
from spinenas.results.storage.run_state import RunState, with_pauses
from spinenas.results.storage.trial_moves import FINISHED, asked_fields
from spinenas.search.monitoring.forecast import Workload


@dataclass(slots=True)
class Running:
    """A running trial.

    Attributes:
        worker: name of its worker.
        epochs: number of its epochs; None if unknown.
        epoch: last epoch done.
        loss: mean loss of that epoch; None before the first, or if it was not reported.
    """

    worker: str
    epochs: int | None
    epoch: int = 0
    loss: float | None = None

    def words(self) -> str:
        """Describe the trial, such as "epoch 2 of 5, loss 0.312, worker-1"."""
        of = "" if self.epochs is None else f" of {self.epochs}"
        loss = "" if self.loss is None else f", loss {self.loss:.3g}"
        return f"epoch {self.epoch}{of}{loss}, {self.worker}"


@dataclass(slots=True)
class Progress:
    """Progress of a search, computed from its events.

    Attributes:
        num_trials: the budget.
        running: running trials by number.
        scalarize: the objective by which networks are compared; None for AP itself.
        num_failed: failed trials.
        num_complete: trials with a complete training.
        num_stopped: trials that halving has stopped.
        num_timed: trials finished in this session, which determine its pace.
        began: start of this session, in seconds of the monotonic clock.
        workload: predicted work, for the time left; None without a prediction, when all trials count the same.
        is_resumed: whether earlier sessions are counted.
        epochs: of a search that pauses trainings, its epochs so far, by which it is measured; None for any other.
        num_epochs: budget in epochs of such a search.
    """

    num_trials: int
    running: dict[int, Running] = field(default_factory=dict)
    scalarize: ScalarizedObjective | None = None
    num_complete: int = 0
    num_failed: int = 0
    num_stopped: int = 0
    num_timed: int = 0
    began: float = field(default_factory=time.monotonic)
    workload: Workload | None = None
    is_resumed: bool = False
    epochs: EpochCount | None = None
    num_epochs: int = 0
    _done_before: int = 0  # epochs of earlier sessions
    _paused: dict[int, TrialRecord] = field(default_factory=dict)  # with the result of their latest pause
    _trials: dict[int, TrialRecord] = field(default_factory=dict)  # without a result
    _networks: dict[tuple[str, Fidelity | None], NetworkRuns] = field(default_factory=dict)
    _best_single: NetworkRuns | None = None
    _replicated: dict[tuple[str, Fidelity | None], NetworkRuns] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take the next event of the journal."""
        if self.workload is not None:
            self.workload.add(event)
        if self.epochs is not None:
            self.epochs.add(event)
        match event:
            case Asked():
                self._trials[event.number] = TrialRecord(**asked_fields(event))
            case Started(number):
                self.running[number] = Running(event.worker, self._epochs_of(number))
            case EpochDone(number):
                if (running := self.running.get(number)) is not None:
                    running.epoch, running.loss = event.epoch, event.metrics.get("loss")
            case Requeued(number) | Paused(number):
                self.running.pop(number, None)
                if isinstance(event, Requeued) and event.fidelity is not None:
                    self._trials[number] = replace(self._trials[number], fidelity=event.fidelity)
                if isinstance(event, Paused) and self.epochs is not None:
                    self._paused[number] = replace(self._trials[number], evaluation=event.evaluation)
            case Finished(number, _, result):
                self.running.pop(number, None)
                self.num_timed += 1
                trial = self._trials.pop(number)
                if isinstance(result, Failure):
                    self._paused.pop(number, None)
                    self.num_failed += 1
                elif result.stopped_after is not None:
                    self.num_stopped += 1
                else:
                    self._paused.pop(number, None)
                    self._count(trial, result.objective)

    @property
    def num_done(self) -> int:
        """Complete, stopped and failed trials together."""
        return self.num_complete + self.num_stopped + self.num_failed

    def resume(self, past: RunState) -> None:
        """Count the trials of earlier sessions; none of them counts for the pace."""
        self.is_resumed = True
        if self.epochs is not None:
            self.epochs = EpochCount.of_state(past, self.epochs.whole)
            self._done_before = self.epochs.done
            self._paused = {
                record.number: record
                for record in with_pauses(past).trials.values()
                if record.evaluation is not None and record.evaluation.stopped_after is not None
            }
        for record in past.trials.values():
            if record.evaluation and record.status is Status.COMPLETE:
                self._count(record, record.evaluation.objective)
            elif record.status not in FINISHED:
                self._trials[record.number] = record
                if self.workload is not None:
                    proposal = Proposal.of_record(record)
                    done = 0
                    if self.epochs is not None:
                        proposal = replace(proposal, until=past.until.get(record.number))
                        paused = past.paused.get(record.number)
                        done = (paused.stopped_after or 0) if paused else past.passed.get(record.number, 0)
                    self.workload.ask(proposal, is_resumed=True, done=done)
            self.num_stopped += record.status is Status.PRUNED
            self.num_failed += record.failure is not None

    def network_of(self, number: int) -> str | None:
        """Network key of a trial without a result; None if it has one."""
        trial = self._trials.get(number)
        return None if trial is None else trial.network_key

    def _epochs_of(self, number: int) -> int | None:
        trial = self._trials.get(number)
        if trial is not None and trial.fidelity is not None:
            return trial.fidelity.epochs
        return None if self.workload is None else self.workload.forecast.epochs

    def best(self) -> str:
        """Mean AP of the network that would win now, with its spread where there is one."""
        network = self.leader()
        if network is None:
            return "none yet"
        objectives = network.objectives
        if len(objectives) == 1:
            return f"{objectives[0]:.4f} (one run)"
        return f"{network.mean:.4f} ± {statistics.stdev(objectives):.4f} (n={len(objectives)})"

    def ahead(self) -> str | None:
        """Say which network leads while no training is complete; None before the first pause, and afterwards."""
        if self.epochs is None or self._networks:
            return None
        first = next(iter(self._parts().items()), None)
        return None if first is None else f"trial {first[0]} leads with {first[1].words(self.epochs.whole)}"

    def leader(self) -> NetworkRuns | None:
        """The network that would win now; None before the first result."""
        return leader(self._replicated.values(), self.scalarize) if self._replicated else self._best_single

    def _count(self, trial: TrialRecord, objective: float) -> None:
        """Count a complete trial. A long run has too many networks to compare all of them each time."""
        self.num_complete += 1
        key = trial.network_key, trial.fidelity
        network = self._networks.setdefault(key, NetworkRuns(trial.number, trial.genotype))
        network.number = min(network.number, trial.number)
        network.objectives.append(objective)
        if len(network.objectives) > 1:
            self._replicated[key] = network
        elif not self._replicated:
            self._best_single = leader(filter(None, (self._best_single, network)), self.scalarize)

    def done_words(self) -> str:
        """Describe how much of the budget is used, such as "12 of 40"; in complete trainings if trainings pause."""
        if self.epochs is None:
            return f"{self.num_done} of {self.num_trials}"
        whole = self.epochs.whole
        used, budget = trainings_words(self.epochs.done, whole), trainings_words(self.num_epochs, whole)
        return f"{used} of {budget} trainings' worth"

    def networks_words(self) -> str:
        """Describe how far the networks were trained, such as "31 networks, 20 at epoch 1, 9 at epoch 3, 2 whole"."""
        counts = sorted(Counter(part.epochs for part in self._parts().values()).items())
        total, num_whole = sum(count for _, count in counts) + len(self._networks), len(self._networks)
        words = [f"{total} network{'' if total == 1 else 's'}"]
        words += [f"{count} at epoch {epochs}" for epochs, count in counts]
        return ", ".join([*words, f"{num_whole or 'none'} whole"])

    def _parts(self) -> dict[int, PartTrained]:
        """Networks without a complete training, the one that is ahead first."""
        groups: dict[tuple[str, Fidelity | None], list[TrialRecord]] = {}
        for record in self._paused.values():
            if (key := (record.network_key, record.fidelity)) not in self._networks:
                groups.setdefault(key, []).append(record)
        return part_trained(list(groups.values()))

    def trials_per_hour(self) -> float | None:
        """The pace of this session, in complete trainings if trainings pause; None before its first result."""
        seconds = time.monotonic() - self.began
        if self.epochs is not None:
            done = (self.epochs.done - self._done_before) / self.epochs.whole
            return 3600 * done / seconds if done and seconds > 0 else None
        return 3600 * self.num_timed / seconds if self.num_timed and seconds > 0 else None

    def time_left(self) -> str:
        """Hours, minutes and seconds left at the present pace; before there is one the prediction, or "unknown"."""
        num_left: float = self.num_trials - self.num_done
        if self.epochs is not None and self.workload is not None:
            num_left = self.workload.num_open + max(0, self.num_epochs - self.epochs.granted) / self.epochs.whole
        if self.workload is not None:
            seconds = self.workload.seconds_left(num_left, time.monotonic() - self.began)
        else:
            pace = self.trials_per_hour()
            seconds = None if pace is None else 3600 * num_left / pace
        if seconds is None:
            return "unknown"
        whole = round(seconds)
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
