"""What a result is worth to a controller that learns from numbers."""

from __future__ import annotations

from spinenas.results.record import Evaluation, Failure, FailureKind


def objective_of(result: Evaluation | Failure) -> float | None:
    """Return the objective; 0 for a network that diverged, and None for a failure that says nothing of its network.

    0 is the AP of a detector that finds nothing. A worker that was lost or ran out of time is not the network's fault.
    A training that was stopped early counts with what it had.
    """
    if isinstance(result, Evaluation):
        return result.objective
    return 0.0 if result.kind is FailureKind.DIVERGED else None
