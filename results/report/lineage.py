"""Traces a network back to its first ancestor and describes each change on the way."""

from __future__ import annotations

from collections.abc import Iterable

from spinenas.results.record import TrialRecord
from spinenas.results.report.facts import RunFacts
from spinenas.space.genotype import Genotype


def lineage(facts: RunFacts, number: int) -> list[TrialRecord]:
    """Return a trial, its parent, and so on to the first ancestor; a circle in a damaged journal ends the list."""
    records = facts.by_number
    found: list[TrialRecord] = []
    seen: set[int] = set()
    current: int | None = number
    while current is not None and current in records and current not in seen:
        seen.add(current)
        found.append(records[current])
        current = records[current].parent
    return found


def changes(child: Genotype, parent: Genotype) -> str:
    """Describe how a network differs from its parent, block by block."""
    if len(child.blocks) != len(parent.blocks) or child.stem != parent.stem:
        return f"{len(parent.blocks)} blocks became {len(child.blocks)}"
    words = []
    for index, (new, old) in enumerate(zip(child.blocks, parent.blocks, strict=True), start=len(child.stem)):
        found = []
        if new.level != old.level:
            found.append(f"level {old.level} to {new.level}")
        if new.kind != old.kind:
            found.append(f"{old.kind} to {new.kind}")
        if new.parents != old.parents:
            found.append(f"inputs {_listed(old.parents)} to {_listed(new.parents)}")
        if new.is_output != old.is_output:
            found.append("now an output" if new.is_output else "no longer an output")
        if found:
            words.append(f"block {index}: {', '.join(found)}")
    if len(words) > 4:
        return f"{len(words)} blocks differ"
    return "; ".join(words) or "the same blocks"


def _listed(numbers: Iterable[int]) -> str:
    return "+".join(map(str, numbers))
