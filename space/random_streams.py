"""Random streams derived from (run seed, stream name, number), without any state.

Every random decision of a run has its own stream, so the draws of a trial or proposal never depend on which worker
ran first. The derivation uses SHA-256, not `hash()`, so it is the same in every process.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, stream: str, number: int = 0) -> int:
    """Return the 63-bit seed of one stream."""
    digest = hashlib.sha256(f"spinenas/{seed}/{stream}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, stream: str, number: int = 0) -> np.random.Generator:
    """Return a new numpy generator at the start of one stream."""
    return np.random.default_rng(seed_for(seed, stream, number))
