"""`benchmarks/accelerator.py` has to work on the first try on a bare machine; its small form goes the same way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from shared_fixtures import REPOSITORY


def test_the_whole_path_runs_and_nothing_is_left_out(tmp_path: Path) -> None:
    script, out = REPOSITORY / "benchmarks" / "accelerator.py", tmp_path / "figures.json"
    command = [sys.executable, str(script), "--small", "--device", "cpu", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
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
