"""A sample of the mutated annotation files. `python tests/annotation_fuzz.py` tries 5,000."""

from __future__ import annotations

from pathlib import Path

from annotation_fuzz import fuzz


def test_a_mutated_annotation_file_is_read_and_measured_right_or_refused_in_one_sentence(tmp_path: Path) -> None:
    counts, problems = fuzz(tmp_path, 400, seed=0)
    assert problems == []
    assert min(counts["accepted"], counts["refused"]) > 50, "otherwise the test shows little"
