"""A sample of the crash matrix: each kind of step once; `python tests/crash_matrix.py` is the whole of it.

Each test is an interpreter of its own, whose children are forks of it: one that ran other tests has threads, and
torch, which a fork does not take well.
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
]
"""Each controller and each mode."""


@pytest.mark.parametrize("name", SAMPLED)
def test_a_run_that_is_killed_anywhere_comes_to_what_it_would_have(name: str) -> None:
    done = subprocess.run(
        [sys.executable, crash_matrix.__file__, "--sample", name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" kills, 0 differences")
    num_kills = int(done.stdout.splitlines()[-1].split()[0])
    assert num_kills > 80, "else nothing was shown"
