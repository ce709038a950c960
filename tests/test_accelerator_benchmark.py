"""`benchmarks/accelerator.py` must work where an accelerator is at hand for minutes; its small form goes the same way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from shared_fixtures import REPOSITORY


def test_the_whole_path_runs_and_nothing_is_left_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "accelerator.py"), "--small", "--device", "cpu"]
        + ["--json", str(tmp_path / "figures.json")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert "failed" not in figures, figures["failed"]
    assert figures["skipped"] == []
    assert figures["spinenet_49"].keys() == {"off", "blocks", "whole"}
    assert figures["spinenet_49"]["blocks"]["compile_seconds"] > figures["spinenet_49"]["off"]["compile_seconds"] == 0
    assert len(figures["random_genotypes"]) == 1
    assert figures["ratio_to_plain"] > 0
    assert figures["trials"].keys() == {"paper's proxy, 5 epochs", "half width, 12 epochs"}
    for trial in figures["trials"].values():
        assert 0 < trial["utilisation"]["matrix product"] < 2
    assert "Fastest against straightforward" in done.stdout
