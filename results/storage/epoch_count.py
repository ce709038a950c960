"""Epochs that the trainings of a run have seen, and those that were asked for, counted from its events."""

from __future__ import annotations

from dataclasses import dataclass, field

from spinenas.results.record import Evaluation, Failure, Fidelity
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Paused, Promoted, Requeued, Skipped
from spinenas.results.storage.run_state import ENDED, NEW, RunState


@dataclass(slots=True)
class _Training:
    """Epochs of one training.

    Attributes:
        whole: of its schedule; 0 if unknown.
        granted: epochs that were asked for.
        done: last epoch that it has reached.
    """

    whole: int
    granted: int
    done: int = 0


@dataclass(slots=True)
class EpochCount:
    """Epochs of a run, each counted once although lost attempts may repeat it.

    A failed training counts with all epochs that were asked for, as it does for the controller.

    Attributes:
        whole: epochs of a complete training of the task; 0 if unknown.
        done: epochs that trainings have seen.
        granted: epochs that were asked for, the seen ones included.
        pauses: whether the controller lets trainings pause.
    """

    whole: int = 0
    done: int = 0
    granted: int = 0
    pauses: bool = False
    _trainings: dict[int, _Training] = field(default_factory=dict)

    @classmethod
    def of_state(cls, state: RunState, whole: int) -> EpochCount:
        """Return the count of a run that is read from its journal.

        Epochs after the last pause of an unfinished training are left out.
        """
        count = cls(whole)
        continued = {
            step.number: step.continues_until for step in state.steps if step.continues_until not in (NEW, ENDED)
        }
        for number, record in state.trials.items():
            count.pauses |= record.until is not None
            training = count._ask(number, continued.get(number, record.until), record.fidelity)
            count._reach(training, state.passed.get(number, 0))
            if number in state.paused:
                count._reach(training, state.paused[number].stopped_after or 0)
            if (result := record.failure or record.evaluation) is not None:
                count._finish(training, result)
        return count

    def add(self, event: Event | Skipped) -> None:
        """Take the next event of the journal; one of an unknown trial, as in a damaged journal, changes nothing."""
        if isinstance(event, Asked):
            fidelity, until = event.proposal["fidelity"], event.proposal.get("until")
            self.pauses |= until is not None
            self._ask(event.proposal["number"], until, None if fidelity is None else Fidelity.from_json(fidelity))
            return
        training = self._trainings.get(getattr(event, "number", -1))
        if training is None:
            return
        match event:
            case EpochDone():
                self._reach(training, event.epoch)
            case Paused():
                self._reach(training, event.evaluation.stopped_after or 0)
            case Promoted() if event.num_told is not None:
                self._grant(training, event.until or training.whole)
            case Requeued() if event.fidelity is not None:
                training.whole = event.fidelity.epochs
            case Finished():
                self._finish(training, event.result)

    def _ask(self, number: int, until: int | None, fidelity: Fidelity | None) -> _Training:
        whole = self.whole if fidelity is None else fidelity.epochs
        training = self._trainings[number] = _Training(whole, 0)
        self._grant(training, until or whole)
        return training

    def _grant(self, training: _Training, until: int) -> None:
        self.granted += until - training.granted
        training.granted = until

    def _reach(self, training: _Training, epoch: int) -> None:
        self.done += max(0, epoch - training.done)
        training.done = max(training.done, epoch)

    def _finish(self, training: _Training, result: Evaluation | Failure) -> None:
        stopped_after = result.stopped_after if isinstance(result, Evaluation) else None
        self._reach(training, stopped_after or training.granted)


def trainings_words(epochs: float, whole: int) -> str:
    """Return a number of epochs as a number of complete trainings, such as "12.4"."""
    return f"{epochs / whole:.1f}".removesuffix(".0")
