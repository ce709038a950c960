"""Asks the controller for trials within the budget, and tells it their results.

A step is one request of the controller: a new trial, or more epochs of one that it paused. Results reach the controller
when they arrive. In an ordered run they reach it in the order of their steps, and only as far as the next step needs
them.
"""

from __future__ import annotations

from spinenas.controller.base import BudgetSpent, Controller, EndsSearch, Proposal, SpaceExhausted, SpendsEpochs, Step
from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.run_state import ENDED, RunState
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.executors.base import Note
from spinenas.search.run.controller_replay import Result, replay_into


class Proposals:
    """The exchange of proposals and results with the controller of a run.

    Args:
        budget: the current budget.
        window: steps asked ahead in an ordered run; None for any other run.
        note: receives the reason when no further trial will be proposed.

    Attributes:
        num_asked: trials so far.
        num_told: results that the controller knows.

    A controller that counts epochs itself (`SpendsEpochs`) may propose more trials than the budget has.
    """

    def __init__(self, controller: Controller, budget: BudgetConfig, *, window: int | None, note: Note) -> None:
        self._controller, self._budget, self._window, self._note = controller, budget, window, note
        self.num_asked = self.num_told = 0
        self._num_steps = 0
        self._steps: dict[int, int] = {}  # by trial, its latest step
        self._untold: dict[int, tuple[int, Result]] = {}  # by step, trial and result that the controller does not know
        self._over = False  # nothing more will be proposed

    @property
    def is_all_asked(self) -> bool:
        """Whether the budget is spent or the controller has nothing left."""
        is_spent = self.num_asked >= self._budget.num_trials and not isinstance(self._controller, SpendsEpochs)
        return self._over or is_spent

    def replay(self, state: RunState) -> dict[int, Proposal]:
        """Restore the state of a fresh controller; return the proposals of trials without a result."""
        proposals, self._untold = replay_into(self._controller, state, ordered=self._window is not None)
        self.num_asked, self.num_told = len(state.trials), len(state.results) - len(self._untold)
        self._num_steps = len(state.steps)
        self._steps = {step.number: place for place, step in enumerate(state.steps)}
        self._over = state.is_ending
        last_end = max((place for place, step in enumerate(state.steps) if step.continues_until == ENDED), default=-1)
        while self.num_told <= last_end:  # the ends of trials are told at once, see `end`
            self._tell(self.num_told)
        return proposals

    def ask(self, taken: AcceleratorTime, *, now: str, num_open: int) -> Step | None:
        """Return the next step, or None while there is none. After further results there may be one.

        Args:
            taken: accelerator time so far.
            now: UTC, ISO 8601.
            num_open: trials that run or wait for a worker.
        """
        if self.is_all_asked or self._is_time_up(taken, now, num_open):
            return None
        if self._window is not None:
            while self.num_told <= self._num_steps - self._window:
                if self.num_told not in self._untold:
                    return None
                self._tell(self.num_told)
        try:
            step = self._controller.ask()
            while step is None and self.num_told in self._untold:
                self._tell(self.num_told)  # an ordered run: the controller needs one more result
                step = self._controller.ask()
        except SpaceExhausted as reason:
            self._over = True
            if not isinstance(reason, BudgetSpent):
                self._note(f"nothing is left to try after {self.num_asked} trials: {reason}")
            return None
        if isinstance(step, Proposal):
            assert step.number == self.num_asked, "a controller numbers its proposals 0, 1, 2, ..."
            self.num_asked += 1
        if step is not None:
            self._add_step(step.number)
        return step

    def finish(self, number: int, result: Result) -> None:
        """Store the result of a step. The controller is told now, or in an ordered run when it needs the result."""
        step = self._steps[number]
        self._untold[step] = number, result
        if self._window is None:
            self._tell(step)

    def end(self, number: int, result: Result) -> None:
        """Tell the controller that a trial that it paused has ended there; all results before are told first."""
        while self.num_told in self._untold:
            self._tell(self.num_told)
        self._add_step(number)
        self.finish(number, result)
        if self._window is not None:
            self._tell(self.num_told)

    def _add_step(self, number: int) -> None:
        self._steps[number] = self._num_steps
        self._num_steps += 1

    def _tell(self, step: int) -> None:
        number, result = self._untold.pop(step)
        self._controller.tell(number, result)
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
        if isinstance(self._controller, EndsSearch) and taken.hours(now) > search_hours:
            self._controller.end_search()
        return False
