"""Trains one network as a search would, and judges by it whether a search can learn anything."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from spinenas.results.learnt import LEARNT_AP, REMEDY
from spinenas.results.record import Evaluation, Failure
from spinenas.search.executors.base import Task
from spinenas.space.genotype import Genotype


def first_training(task: Task, genotype: Genotype) -> str:
    """Train a genotype once and return the judgement in one sentence."""
    losses: list[float] = []

    def report(epoch: int, metrics: dict[str, float]) -> None:
        if "loss" in metrics:
            losses.append(metrics["loss"])

    with tempfile.TemporaryDirectory(prefix="spinenas-preflight-") as folder:
        trial = Path(folder) / "0"
        trial.mkdir()
        result = task.evaluate(genotype, seed=0, fidelity=None, attempt=0, folder=trial, report=report, until=None)
    return judgement(result, losses)


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
