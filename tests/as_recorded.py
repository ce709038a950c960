"""Returns a proposal in the form that a resumed run reads from the journal."""

from __future__ import annotations

import json

from spinenas.controller.base import Proposal
from spinenas.results.record import TrialRecord
from spinenas.results.storage.events import Asked, event_from_json
from spinenas.results.storage.trial_moves import asked_fields


def as_recorded(proposal: Proposal) -> Proposal:
    event = event_from_json(json.loads(json.dumps(Asked(proposal.to_json(), "", 0, "", 0).to_json())))
    assert isinstance(event, Asked)
    return Proposal.of_record(TrialRecord(**asked_fields(event)))
