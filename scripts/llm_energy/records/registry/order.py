"""The order in which cells and workloads are planned to be measured."""

from __future__ import annotations

import hashlib


def block_rank(order_seed: int, repeat: str, cell: str) -> int:
    """Return a cell's place in its block: a seeded random number that no other cell influences.

    Blocks come one after the other, and the cells of one block in the order of a hash, so a cell
    added later joins each block without reordering the rest.
    """
    digest = hashlib.sha256(f"{order_seed}/{repeat}/{cell}".encode()).digest()
    return int(repeat[1:]) * 2**32 + int.from_bytes(digest[:4], "big")
