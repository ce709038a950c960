"""Moves of a trial from status to status, and the fields of its record that an event changes."""

from __future__ import annotations

from typing import Any

from spinenas.results.record import Failure, Fidelity, Stage, Status
from spinenas.results.storage.events import Asked, EpochDone, Finished, Paused, Promoted, Requeued, Started
from spinenas.space.baseline import architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

FINISHED = (Status.COMPLETE, Status.PRUNED, Status.FAILED)


_TrialEvent = Asked | Started | EpochDone | Paused | Promoted | Finished | Requeued

_MOVES: dict[tuple[Status | None, type[_TrialEvent]], tuple[Status, ...]] = {
    (None, Asked): (Status.ASKED,),
    (Status.ASKED, Started): (Status.RUNNING,),
    (Status.RUNNING, EpochDone): (Status.RUNNING,),
    (Status.RUNNING, Finished): FINISHED,
    (Status.RUNNING, Requeued): (Status.ASKED,),
    (Status.RUNNING, Paused): (Status.PAUSED,),
    (Status.PAUSED, Promoted): (Status.ASKED,),
    (Status.PAUSED, Finished): FINISHED,
    # A worker can be lost before its start is seen, and an abandoned attempt can still deliver its result.
    (Status.ASKED, Requeued): (Status.ASKED,),
    (Status.ASKED, Paused): (Status.PAUSED,),
    (Status.ASKED, Finished): FINISHED,
}


def next_status(current: Status | None, event: _TrialEvent) -> Status:
    """Return the status of a trial after an event; this alone decides which moves are legal. Raises UserError.

    Args:
        current: status before the event; None for a trial that does not exist yet.
        event: an event of the trial.
    """
    targets = _MOVES.get((current, type(event)), ())
    target = event.status if isinstance(event, Finished) else next(iter(targets), None)
    if target is None or target not in targets:
        word = f"{event.kind} {target}" if target else event.kind
        raise UserError(f"a trial that is {current or 'unknown'} cannot be {word}")
    return target


def asked_fields(event: Asked) -> dict[str, Any]:
    """Return the fields of the TrialRecord that an asked event begins."""
    proposal = event.proposal
    fidelity = proposal["fidelity"]
    architecture = architecture_from_text(proposal["genotype"])
    is_genotype = isinstance(architecture, Genotype)
    return {
        "genotype": architecture if is_genotype else None,
        "network_key": event.network_key,
        "status": next_status(None, event),
        "architecture": "genotype" if is_genotype else architecture.text,
        "fidelity": None if fidelity is None else Fidelity.from_json(fidelity),
        **{name: proposal[name] for name in ("number", "replicate", "parent", "origin", "info")},
        "until": proposal.get("until"),  # journals before 0.2 have none
        "stage": Stage(proposal["stage"]),
        "seed": event.seed,
        "attempt": 0,
        "task_key": event.task_key,
        "asked_at": event.at,
    }


def advance(trial: dict[str, Any], event: Started | EpochDone | Paused | Promoted | Finished | Requeued) -> None:
    """Apply an event to the fields of its trial."""
    attempt = event.attempt
    status = next_status(trial.get("status"), event)
    late = isinstance(event, Finished) and 0 <= attempt < trial["attempt"]
    if not late and attempt != trial["attempt"] + isinstance(event, (Requeued, Promoted)):
        raise UserError(f"trial {trial['number']} is in attempt {trial['attempt']}, {event.kind} names {attempt}")
    trial["status"], trial["attempt"] = status, attempt
    match event:
        case Started():
            trial.update(started_at=event.at, worker=event.worker, device=event.device, dtype=event.dtype)
        case Requeued() if event.fidelity is not None:
            trial["fidelity"] = event.fidelity
        case Finished():
            trial["finished_at"] = event.at
            trial["failure" if isinstance(event.result, Failure) else "evaluation"] = event.result
