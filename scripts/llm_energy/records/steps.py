"""What an engine did step by step, beside the measurement: when, for whom, and how many tokens."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from llm_energy.core.errors import RecordError
from llm_energy.core.files import parse_json, write_bytes
from llm_energy.core.serialize import to_dict
from llm_energy.records.files.storage import SCHEMA_VERSION, parse_record


class Run(NamedTuple):
    """What an engine did for one request in consecutive steps; see ``StepTable``."""

    request: int | None
    first_step: int
    steps: int
    prefill_tokens: int
    decode_tokens: int
    padding_tokens: int
    context_tokens: int
    context_padding: int


@dataclass(frozen=True)
class StepTable:
    """The steps of an engine in one window; each is one forward pass of the model for a batch.

    A step lasts from ``start_s`` until ``end_s``, when its tokens were on the host; steps come in
    order and never overlap. What was computed stands in runs, each of one request in ``steps``
    consecutive steps from ``first_step`` (the first of all is 0) on. ``request`` is the place of
    its row in the window's table of requests, None where that has no row of it.

    In each step of a run the same number of tokens is computed: ``prefill_tokens`` of the prompt,
    again after a preemption, or else ``decode_tokens``. Beside these, ``padding_tokens`` are
    computed for nobody: pads before a shorter prompt, or the row of a request that has ended while
    its batch goes on. Before the run, ``context_tokens`` of the request and ``context_padding``
    pads were in its cache; with each step its own tokens and its padding come to them.
    """

    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    request: tuple[int | None, ...]
    first_step: tuple[int, ...]
    steps: tuple[int, ...]
    prefill_tokens: tuple[int, ...]
    decode_tokens: tuple[int, ...]
    padding_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]
    context_padding: tuple[int, ...]

    def __post_init__(self) -> None:
        for names in (("start_s", "end_s"), Run._fields):
            if len({len(getattr(self, name)) for name in names}) > 1:
                raise RecordError(f"steps: columns of unequal length among {', '.join(names)}")
        edges_s = [time_s for span in self.spans for time_s in span]
        if any(earlier > later for earlier, later in pairwise(edges_s)):
            raise RecordError("steps: start_s and end_s do not ascend, or steps overlap")
        count = len(self.start_s)
        for run in self.runs:
            if run.first_step < 0 or run.steps < 1 or run.first_step + run.steps > count:
                raise RecordError(
                    f"steps: a run of {run.steps} steps from step {run.first_step} on, allowed "
                    f"are 1 or more within the {count} steps of the window"
                )

    @property
    def spans(self) -> Iterator[tuple[float, float]]:
        """Return begin and end of each step in s."""
        return zip(self.start_s, self.end_s, strict=True)

    @property
    def runs(self) -> Iterator[Run]:
        """Return the runs as rows, in their order."""
        return map(Run._make, zip(*(getattr(self, name) for name in Run._fields), strict=True))


@dataclass(frozen=True)
class StepFile:
    """The steps of one repeat, by workload; a window that gave no result has none."""

    schema_version: int = SCHEMA_VERSION
    windows: dict[str, StepTable] = field(default_factory=dict)


def write(path: Path, steps: StepFile) -> None:
    """Write the file atomically as compressed JSON; equal steps give equal bytes."""
    text = json.dumps(to_dict(steps), separators=(",", ":"), allow_nan=False)
    write_bytes(path, gzip.compress(text.encode("utf-8"), mtime=0))


def read(path: Path) -> StepFile:
    """Read the file; a RecordError names it where it is missing or holds no steps."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"{path}: not a file of steps ({error})") from None
    return parse_record(StepFile, parse_json(content, path), path)
