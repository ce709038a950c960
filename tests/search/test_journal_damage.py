"""A sample of the damages to a journal. `python tests/journal_damage.py` checks all of them."""

from __future__ import annotations

from pathlib import Path

import journal_damage
import pytest


@pytest.mark.usefixtures("no_fsync")
def test_a_damaged_journal_loses_nothing_that_is_valid_and_no_original_byte(tmp_path: Path) -> None:
    damage = journal_damage.check_all(tmp_path, sample=True)
    assert damage.problems == []
    assert damage.counts.total() > 150, "otherwise the test shows nothing"
