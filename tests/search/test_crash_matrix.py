"""A sample of the crash matrix: each kind of step once. `python tests/crash_matrix.py` runs the whole matrix.

Each test starts its own interpreter, whose children are forks. The test process itself cannot be forked safely,
because earlier tests left threads and torch in it.
"""

from __future__ import annotations

import subprocess
import sys

import crash_matrix
import pytest

SAMPLED = [
    "random-free",
    "evolution-serial",
    "replicates-ordered",
    "replicates-free",
    "halving-serial",
    "halving-ordered",
    "halving-free",
    "freeze-thaw-serial",
    "freeze-thaw-ordered",
    "freeze-thaw-free",
]
"""Each controller and each mode."""


@pytest.mark.parametrize("name", SAMPLED)
def test_a_run_killed_at_any_step_ends_like_an_uninterrupted_one(name: str) -> None:
    done = subprocess.run(
        [sys.executable, crash_matrix.__file__, "--sample", name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" kills, 0 differences")
    num_kills = int(done.stdout.splitlines()[-1].split()[0])
    assert num_kills > 80, "otherwise the test shows nothing"
