"""Put aside what an earlier attempt at a measurement left; nothing that was measured is lost."""

from __future__ import annotations

import filecmp
from itertools import count
from pathlib import Path

from llm_energy.records.files import paths


def put_aside(out: Path) -> None:
    """Rename what is there of an earlier attempt at ``out``, and drop what it half wrote.

    What an interrupted one had finished becomes ``<repeat>.interrupted-1.json`` and so on, what was
    measured before ``<repeat>.superseded-1.json``, with its power trace and its steps.
    No stage reads them, a person may. Snakemake puts back what a job that died had put aside: that
    is there already.
    """
    earlier = out.parent.glob(f"{out.stem}.superseded-*.json")
    if out.exists() and any(filecmp.cmp(out, path, shallow=False) for path in earlier):
        out.unlink()
    for found, why in ((paths.partial(out), "interrupted"), (out, "superseded")):
        if found.exists():
            names = (paths.put_aside(out, why, number) for number in count(1))
            name = next(name for name in names if not name.exists())
            found.rename(name)
            for beside in paths.BESIDE if found == out else ():
                if beside(out).exists():
                    beside(out).rename(beside(name))
    for half_written in out.parent.glob(f".{out.stem}.*.tmp"):
        half_written.unlink()
