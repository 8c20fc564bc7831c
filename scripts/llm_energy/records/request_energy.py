"""What single requests took of the joules of their windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RequestGroup:
    """Requests of like lengths: their mean tokens, how many they are, and their mean joules."""

    prompt_tokens: float
    output_tokens: float
    requests: int
    energy_j: float


@dataclass(frozen=True)
class DearRequest:
    """One request among the dearest, by the id of its prompt, with the mean of its joules."""

    request_id: str
    prompt_tokens: int
    output_tokens: int
    energy_j: float


@dataclass(frozen=True)
class RequestEnergy:
    """The attributed joules of ``requests``: shares of a window's joules, never a measurement.

    ``mean_j`` and ``quantiles_j`` (``p50`` and so on) are over requests. ``groups`` are requests
    whose prompts and answers are of the same octave of tokens, ``dearest`` those that took most.
    ``power`` tells how the joules lie in time, ``assumptions`` what the shares take for granted.
    """

    requests: int
    mean_j: float
    quantiles_j: dict[str, float]
    groups: tuple[RequestGroup, ...]
    dearest: tuple[DearRequest, ...]
    power: Literal["power trace", "mean power"]
    assumptions: tuple[str, ...] = ()
