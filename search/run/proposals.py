"""Asks the controller for trials within the budget, and tells it their results.

Results reach the controller when they arrive. In an ordered run they reach it in the order of their numbers, and only
as far as the next proposal needs them.
"""

from __future__ import annotations

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.controller.replicates import ReplicateLeaders
from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.run_state import RunState
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.executors.base import Note
from spinenas.search.run.controller_replay import Result, replay_into


class Proposals:
    """The exchange of proposals and results with the controller of a run.

    Args:
        budget: the current budget.
        window: trials asked ahead in an ordered run; None for any other run.
        note: receives the reason when no further trial will be proposed.

    Attributes:
        num_asked: trials so far.
        num_told: results that the controller knows.
    """

    def __init__(self, controller: Controller, budget: BudgetConfig, *, window: int | None, note: Note) -> None:
        self._controller, self._budget, self._window, self._note = controller, budget, window, note
        self.num_asked = self.num_told = 0
        self._untold: dict[int, Result] = {}  # results that the controller does not know yet
        self._over = False  # nothing more will be proposed

    @property
    def is_all_asked(self) -> bool:
        """Whether the budget is spent or the controller has nothing left."""
        return self._over or self.num_asked >= self._budget.num_trials

    def replay(self, state: RunState) -> dict[int, Proposal]:
        """Restore the state of a fresh controller; return the proposals of trials without a result."""
        proposals, self._untold = replay_into(self._controller, state, ordered=self._window is not None)
        self.num_asked, self.num_told = len(state.trials), len(state.told) - len(self._untold)
        return proposals

    def ask(self, taken: AcceleratorTime, *, now: str, num_open: int) -> Proposal | None:
        """Return a new proposal, or None while there is none. After further results there may be one.

        Args:
            taken: accelerator time so far.
            now: UTC, ISO 8601.
            num_open: trials without a result.
        """
        if self.is_all_asked or self._is_time_up(taken, now, num_open):
            return None
        if self._window is not None:
            while self.num_told <= self.num_asked - self._window:
                if self.num_told not in self._untold:
                    return None
                self._tell(self.num_told)
        try:
            proposal = self._controller.ask()
            while proposal is None and self.num_told in self._untold:
                self._tell(self.num_told)  # an ordered run: the controller needs one more result
                proposal = self._controller.ask()
        except SpaceExhausted as reason:
            self._over = True
            self._note(f"nothing is left to try after {self.num_asked} trials: {reason}")
            return None
        if proposal is not None:
            assert proposal.number == self.num_asked, "a controller numbers its proposals 0, 1, 2, ..."
            self.num_asked += 1
        return proposal

    def finish(self, number: int, result: Result) -> None:
        """Store the result of a trial. The controller is told now, or in an ordered run when it needs the result."""
        self._untold[number] = result
        if self._window is None:
            self._tell(number)

    def _tell(self, number: int) -> None:
        self._controller.tell(number, self._untold.pop(number))
        self.num_told += 1

    def _is_time_up(self, taken: AcceleratorTime, now: str, num_open: int) -> bool:
        """Whether another trial would exceed the limit of accelerator time. The last share is for replicates."""
        limit = self._budget.max_accelerator_hours
        if limit is None:
            return False
        num_others = num_open - taken.num_running + 1  # trials that have not started, and the new one
        if taken.hours_with_others(now, num_others) > limit:
            self._over = True
            self._note(
                f"no further trial: {taken.hours(now):.2f} of the {limit:g} hours of budget.max_accelerator_hours are "
                "spent, and another trial would exceed the limit"
            )
            return True
        search_hours = (1 - self._budget.replicate_share) * limit
        if isinstance(self._controller, ReplicateLeaders) and taken.hours(now) > search_hours:
            self._controller.end_search()
        return False
