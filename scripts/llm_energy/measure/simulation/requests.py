"""What each request of a simulated engine truly drew, since the engine knows its own time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence


class TrueWork:
    """For whom the engine worked when, and for how long for each of them."""

    def __init__(self) -> None:
        self._stretches: list[tuple[float, float, Mapping[int, float]]] = []

    def add(self, begin_s: float, end_s: float, seconds: Mapping[int, float]) -> None:
        """Note a stretch and how its time falls to requests, by their numbers, in any unit."""
        self._stretches.append((begin_s, end_s, seconds))

    def energy_j(
        self, energy_j: Callable[[float, float], float], begin_s: float, end_s: float
    ) -> dict[int, float]:
        """Return the joules of each request between two times, from those of the host."""
        found: dict[int, float] = defaultdict(float)
        for start_s, stop_s, seconds in self._stretches:
            start_s, stop_s = max(start_s, begin_s), min(stop_s, end_s)
            if start_s < stop_s:
                each_j = energy_j(start_s, stop_s) / sum(seconds.values())
                for number, share_s in seconds.items():
                    found[number] += each_j * share_s
        return dict(found)


def prefill_seconds(prompts: Mapping[int, int], token_s: float, step_s: float) -> dict[int, float]:
    """Return the time of each prompt of a batch that is padded to the longest.

    The pads of a prompt are for the sake of the longer ones, by how much longer they are.
    """
    width = max(prompts.values())
    found = {number: prompt * token_s + step_s / len(prompts) for number, prompt in prompts.items()}
    for prompt in prompts.values():
        longer = {n: other - prompt for n, other in prompts.items() if other > prompt}
        for number, by in longer.items():
            found[number] += (width - prompt) * token_s * by / sum(longer.values())
    return found


def mixed_seconds(
    joining: Mapping[int, int],
    decoding: Sequence[int],
    token_s: float,
    step_s: float,
    read_s: float,
    sequence_s: float,
) -> dict[int, float]:
    """Return the time of each request in a step in which some join and the others decode."""
    found = {number: prompt * token_s + step_s / len(joining) for number, prompt in joining.items()}
    each_s = (step_s + read_s) / len(decoding) + sequence_s if decoding else 0.0
    return found | dict.fromkeys(decoding, each_s)
