"""Derive the seeds of what is drawn anew for each block."""

from __future__ import annotations

import hashlib


def block_seed(seed: int, block: int) -> int:
    """Return the seed of one block: a hash of the config's seed and the block's number.

    It is below 2^32, which every engine takes, and the same for all cells of the block, so that
    what is paired has the same draw.

    >>> block_seed(0, 1) != block_seed(0, 2) != block_seed(1, 2)
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{block}".encode()).digest()[:4], "big")
