"""Reads a run from its folder: configuration, trials, leaderboard and winner."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spinenas.controller.replicates import confirming_budget
from spinenas.results import leaderboard
from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.results.record import TrialRecord
from spinenas.results.storage.epoch_count import EpochCount, trainings_words
from spinenas.results.storage.journal import read_events
from spinenas.results.storage.lease import is_owned
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import RunState, fold, with_pauses, without_driver
from spinenas.search.config.loading import stored_config, with_changes
from spinenas.space.limits import CostTarget

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk.

    Attributes:
        folder: its files.
    """

    folder: RunFolder

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open the folder of a run, finished or not. Raises UserError."""
        return cls(RunFolder.open(Path(path)))

    def state(self) -> RunState:
        """Read the journal. Trials are running only if a process works on the run.

        The record of an unfinished trial that has paused holds its result there.
        """
        owned = self.is_owned()  # asked first: a search that ends in between still counts as running
        path = self.folder.journal_path
        state = with_pauses(fold(read_events(path, epochs=False), source=path))
        return state if owned else without_driver(state)

    def is_owned(self) -> bool:
        """Whether a process works on the run."""
        return is_owned(self.folder.path / "lease")

    def records(self) -> list[TrialRecord]:
        """All trials in the order of their numbers."""
        return list(self.state().trials.values())

    def leaderboard(self, top: int | None = None) -> pandas.DataFrame:
        """Return the networks, best mean first."""
        return leaderboard.leaderboard(self.records(), top)

    def scalarized_objective(self) -> ScalarizedObjective | None:
        """Return how AP and cost become one number; None for a run for AP alone, or for a front."""
        return stored_config(self.folder.config()).scalarized_objective()

    def cost_target(self) -> CostTarget | None:
        """Return the detector that costs are counted in; None for the one that is trained."""
        return stored_config(self.folder.config()).cost_target()

    def whole_epochs(self) -> int:
        """Return the epochs of a complete training."""
        return stored_config(self.folder.config()).task.train.epochs

    def used_words(self, state: RunState) -> str | None:
        """Return how much of its budget a search that pauses trainings has used; None for any other."""
        config = with_changes(stored_config(self.folder.config()), state.resumes)
        if not config.pauses_trainings:
            return None
        whole = config.task.train.epochs
        used = trainings_words(EpochCount.of_state(state, whole).done, whole)
        return f"{used} of {trainings_words(config.num_epochs, whole)} trainings' worth of epochs are used"

    def unfinished(self, state: RunState) -> str | None:
        """Return a sentence about what is not finished yet, and how to continue; None if nothing is left to do.

        That is trials without a result, or a search that has no complete training at all.
        """
        config = with_changes(stored_config(self.folder.config()), state.resumes)
        folder = shlex.quote(str(self.folder.path))
        if not state.unfinished:
            results = [record.evaluation for record in state.trials.values() if record.evaluation is not None]
            if not config.pauses_trainings or any(result.stopped_after is None for result in results) or not results:
                return None
            return (
                "no training is complete, and the budget is spent; extend it (--epochs, --max-accelerator-hours) with: "
                f"spinenas resume {folder}"
            )
        finished = self.used_words(state) or f"{len(state.told)} of {config.budget.num_trials} trials are finished"
        if self.is_owned():
            return f"{finished}; the search is running"
        return f"{finished}; continue the search with: spinenas resume {folder}"

    def how_to_confirm(self, state: RunState) -> str | None:
        """Return the command that trains an unconfirmed winner again; None if there is none."""
        config = with_changes(stored_config(self.folder.config()), state.resumes)
        row = leaderboard.winner(state.trials.values(), config.scalarized_objective())
        if row is None or row["n"] > 1 or config.controller.name == "plan":
            return None
        folder = shlex.quote(str(self.folder.path))
        num_trials = confirming_budget(config.budget.num_trials, config.budget.replicate_share)
        if num_trials is None:
            return f"train it again with: spinenas validate {folder}"
        return f"train it again with: spinenas resume {folder} --trials {num_trials}"

    def winner(self) -> TrialRecord | None:
        """Return the first trial of the best network; None without a complete trial, or if nothing names a winner."""
        records = self.records()
        row = leaderboard.winner(records, self.scalarized_objective())
        return None if row is None else records[row["number"]]

    def winner_words(self) -> tuple[str, ...]:
        """Say which network is the winner and how certain that is, or why none is; nothing before the first result."""
        return leaderboard.winner_words(self.records(), self.scalarized_objective(), whole=self.whole_epochs())

    def no_winner(self) -> str:
        """Return a sentence why `winner` is None."""
        state = self.state()
        words = leaderboard.no_winner_words(state.trials.values(), self.scalarized_objective())
        if words is None and (leading := self.winner_words()):
            words = "; ".join(filter(None, (*leading, self.unfinished(state))))
        return words or "no trial is complete yet; wait for one, or resume the run"
