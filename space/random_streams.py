"""Random streams derived from (run seed, stream name, number); nothing here has state of its own.

Every random decision of a run draws from a stream of its own, so that what one trial or one proposal draws never
depends on which worker ran first. The derivation is SHA-256, never `hash()`, so it is the same in every process.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, stream: str, number: int = 0) -> int:
    """Return the 63-bit seed of one stream."""
    digest = hashlib.sha256(f"spinenas/{seed}/{stream}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, stream: str, number: int = 0) -> np.random.Generator:
    """Return a fresh numpy generator at the start of one stream."""
    return np.random.default_rng(seed_for(seed, stream, number))
