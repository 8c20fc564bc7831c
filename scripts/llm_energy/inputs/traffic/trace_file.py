"""Read a file of requests that a real service got: when each came, and how long it was."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from llm_energy.core.errors import LlmEnergyError

MOST_TOKENS = 100_000_000  # ten times the longest context that is sold


class TraceRow(NamedTuple):
    """One request: its time in s from some beginning, and its numbers of tokens."""

    time_s: float
    prompt_tokens: int
    output_tokens: int


class Layout(NamedTuple):
    """Which columns of a CSV hold the time, the prompt's tokens and the output's."""

    name: str
    columns: tuple[str, str, str]
    seconds: Callable[[str], float]


def _utc_s(text: str) -> float:
    """Return the seconds of a date and time, taken as UTC where it names no zone."""
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


# BurstGPT: https://github.com/HPMLL/BurstGPT. Azure, the LLM inference traces of 2023 and 2024:
# https://github.com/Azure/AzurePublicDataset. Other columns of a file are not looked at.
LAYOUTS = (
    Layout("own", ("arrival_s", "prompt_tokens", "output_tokens"), float),
    Layout("BurstGPT", ("Timestamp", "Request tokens", "Response tokens"), float),
    Layout("Azure", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _utc_s),
)


def read_trace(path: Path) -> Iterator[TraceRow]:
    """Yield the requests of a trace as they are read, so that a long file is not read to its end.

    The header tells the layout. Requests without prompt or output tokens, as BurstGPT lists those
    that failed, are left out. Raises LlmEnergyError with the line for everything that cannot be
    read, and for times that go backwards.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _rows(path, csv.DictReader(stream))
    except OSError as error:
        raise LlmEnergyError(f"{path}: cannot read the trace ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise LlmEnergyError(f"{path}: the trace is no CSV in UTF-8 ({error})") from None


def _rows(path: Path, reader: csv.DictReader) -> Iterator[TraceRow]:
    names = reader.fieldnames or []
    layout = next((one for one in LAYOUTS if set(one.columns) <= set(names)), None)
    if layout is None:
        known = "; ".join(f"{', '.join(one.columns)} ({one.name})" for one in LAYOUTS)
        raise LlmEnergyError(
            f"{path}: line 1: found the columns {', '.join(names) or 'none'}, allowed {known}"
        )
    last_s = float("-inf")
    for cells in reader:
        where = f"{path}: line {reader.line_num}"
        texts = [cells[name] or "" for name in layout.columns]
        try:
            time_s, prompt, output = layout.seconds(texts[0]), int(texts[1]), int(texts[2])
            if not math.isfinite(time_s):
                raise ValueError(texts[0])
        except (ValueError, OverflowError):
            raise LlmEnergyError(
                f"{where}: found {', '.join(map(repr, texts)):.80}, allowed a time and two whole "
                f"numbers of tokens in {', '.join(layout.columns)}"
            ) from None
        if max(prompt, output) > MOST_TOKENS:
            raise LlmEnergyError(
                f"{where}: found {texts!s:.80}, allowed at most {MOST_TOKENS} tokens"
            )
        if time_s < last_s:
            raise LlmEnergyError(
                f"{where}: found the time {texts[0]!r} after a later one, allowed times that do "
                "not go backwards; sort the file"
            )
        last_s = time_s
        if prompt > 0 and output > 0:
            yield TraceRow(time_s, prompt, output)
