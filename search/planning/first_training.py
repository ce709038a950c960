"""Trains one network as a search would, and judges by it whether a search can learn anything."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spinenas.results.learnt import LEARNT_AP, REMEDY
from spinenas.results.record import Evaluation, Failure
from spinenas.search.executors.base import Task
from spinenas.space.genotype import Genotype


@dataclass(frozen=True, slots=True)
class FirstTraining:
    """What one training says about a task.

    Attributes:
        sentence: the judgement with its reasons and what to change.
        finding: the same in a few words.
        has_learnt: whether the network learnt something that can be measured.
        seconds: wall-clock time of the training.
    """

    sentence: str
    finding: str
    has_learnt: bool
    seconds: float


def first_training(task: Task, genotype: Genotype) -> FirstTraining:
    """Train a genotype once and judge the task by it."""
    losses: list[float] = []

    def report(epoch: int, metrics: dict[str, float]) -> None:
        if "loss" in metrics:
            losses.append(metrics["loss"])

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="spinenas-preflight-") as folder:
        trial = Path(folder) / "0"
        trial.mkdir()
        result = task.evaluate(genotype, seed=0, fidelity=None, attempt=0, folder=trial, report=report, until=None)
    seconds = time.perf_counter() - begin
    if isinstance(result, Failure):
        return FirstTraining(judgement(result, losses), f"failed ({result.kind})", False, seconds)
    has_learnt = result.objective >= LEARNT_AP
    finding = f"reached AP {result.objective:.4f}" if has_learnt else f"learnt nothing (AP {result.objective:.4f})"
    return FirstTraining(judgement(result, losses), finding, has_learnt, seconds)


def judgement(result: Evaluation | Failure, losses: Sequence[float]) -> str:
    """Judge a task by one training.

    Args:
        result: of the training.
        losses: mean loss of each epoch.
    """
    if isinstance(result, Failure):
        return f"WARNING: one training failed ({result.kind}): {result.message}"
    fell = losses[-1] < losses[0] if len(losses) > 1 else None
    course = ""
    if fell is not None:
        course = f"the loss {'fell' if fell else 'did not fall'} ({losses[0]:.3g} to {losses[-1]:.3g})"
    if result.objective >= LEARNT_AP:
        words = f"one training reached AP {result.objective:.4f}"
        if fell is None:
            return words
        return f"{words} and {course}" + ("" if fell else "; a lower task.train.learning_rate may train better")
    words = f"WARNING: one training learnt nothing that can be measured (AP {result.objective:.4f})"
    if fell is False:
        return f"{words}, and {course}; lower task.train.learning_rate, and check that the boxes are right"
    return f"{words}{f', although {course}' if fell else ''}; a search would have nothing to rank: {REMEDY}"
