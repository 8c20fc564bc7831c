"""Note an engine's steps while it serves, for the price of one comparison a step."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise

from llm_energy.records.steps import Run, StepTable

Key = Hashable  # what an engine calls a request while it is in flight
FIRST_STEP, STEPS = (Run._fields.index(name) for name in ("first_step", "steps"))
Span = tuple[float, float]  # begin and end of a step in s


class StepLog:
    """The steps since the log was last taken, in the columns of ``StepTable``.

    A batch is mostly that of the step before, one token more for each of its requests. So a step
    costs two times of the clock and a comparison; only a request that comes, goes, is still at its
    prompt, or is given another number of tokens begins a run.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._numbered = 0
        self._start_s, self._end_s = array("d"), array("d")
        self._runs: list[list[int]] = []  # in the order of Run
        self._expected: dict[Key, int | None] = {}  # tokens by request if the batch goes on
        self._open: dict[Key, list[int]] = {}  # the run of each request of the last step

    def take(self) -> StepTable:
        """Return what was noted, and begin anew; ``request`` has the numbers that were given."""
        found = self._table()
        self._clear()
        return found

    def number(self, count: int) -> int:
        """Return the first of ``count`` numbers for the requests of a pass, in their order."""
        first, self._numbered = self._numbered, self._numbered + count
        return first

    def note(
        self,
        start_s: float,
        end_s: float,
        tokens: Mapping[Key, int],
        about: Callable[[Key], tuple[int, int, int]],
        steps: int = 1,
    ) -> None:
        """Note a step of continuous batching, or several equal ones that fill the time evenly.

        ``tokens`` are those computed for each request. ``about`` says of a request whose work is
        not as in the step before: its number, its prompt's tokens, and how many tokens its cache
        held before the step.
        """
        if tokens != self._expected:
            self._change(tokens, about)
        if steps == 1:
            self._start_s.append(start_s)
            self._end_s.append(end_s)
        else:
            self._add_steps(evenly(start_s, end_s, steps))

    def static_batch(
        self,
        numbers: Sequence[int],
        prompts: Sequence[int],
        outputs: Sequence[int],
        spans: Sequence[Span],
    ) -> None:
        """Note a whole static batch after it has ended: its prefill and a step for each token.

        ``prompts`` and ``outputs`` are the tokens of each row. Every prompt is padded to the
        longest, and every row goes on until the last step, whoever has ended before.
        """
        first, count, width = len(self._start_s), len(spans), max(prompts)
        self._close(self._open)
        self._expected = {}
        self._add_steps(spans)
        for number, prompt, output in zip(numbers, prompts, outputs, strict=True):
            pads = width - prompt
            self._runs.append([number, first, 1, prompt, 0, pads, 0, 0])
            if output > 1:
                self._runs.append([number, first + 1, output - 1, 0, 1, 0, prompt, pads])
            if count > output:
                held = prompt + output - 1
                self._runs.append([number, first + output, count - output, 0, 0, 1, held, pads])

    def _change(
        self, tokens: Mapping[Key, int], about: Callable[[Key], tuple[int, int, int]]
    ) -> None:
        """End and begin the runs of requests whose work is not as in the step before."""
        step, before = len(self._start_s), self._expected
        self._close([key for key in self._open if key not in tokens])
        self._expected = expected = dict(tokens)
        for key, count in tokens.items():
            if before.get(key) == count:
                continue
            self._close([key])
            number, prompt, context = about(key)
            prefills = context < prompt
            work = (count, 0) if prefills else (0, count)
            self._open[key] = run = [number, step, 0, *work, 0, context, 0]
            self._runs.append(run)
            if prefills:
                expected[key] = None  # a decoding step may be next, of as many tokens perhaps

    def _close(self, keys: Iterable[Key]) -> None:
        """Set the lengths of the runs of these requests."""
        for key in tuple(keys):
            if (run := self._open.pop(key, None)) is not None:
                run[STEPS] = len(self._start_s) - run[FIRST_STEP]

    def _add_steps(self, spans: Sequence[Span]) -> None:
        self._start_s.extend(start_s for start_s, _ in spans)
        self._end_s.extend(end_s for _, end_s in spans)

    def _table(self) -> StepTable:
        self._close(self._open)
        columns = zip(*self._runs, strict=True) if self._runs else ((),) * len(Run._fields)
        return StepTable(tuple(self._start_s), tuple(self._end_s), *columns)


def evenly(start_s: float, end_s: float, steps: int) -> list[Span]:
    """Cut a time into equal steps.

    >>> evenly(1.0, 2.0, 2)
    [(1.0, 1.5), (1.5, 2.0)]
    """
    length_s = (end_s - start_s) / steps
    edges_s = [start_s + k * length_s for k in range(steps)] + [end_s]
    return list(pairwise(edges_s))
