"""A proposal as a resumed run has it, from the journal."""

from __future__ import annotations

import json

from spinenas.controller.base import Proposal
from spinenas.results.record import TrialRecord
from spinenas.results.storage.run_state import _asked


def as_recorded(proposal: Proposal) -> Proposal:
    event = {"event": "asked", "at": "", "proposal": proposal.to_json(), "network_key": "", "seed": 0, "task_key": ""}
    return Proposal.of_record(TrialRecord(**_asked(json.loads(json.dumps(event)))))
