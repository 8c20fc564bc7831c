"""The engines: each loads a model, generates, and closes; none knows anything about energy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llm_energy.core.errors import BackendUnavailable
from llm_energy.records import Completion, Request, Spec, Workload
from llm_energy.records.registry.engines import REGISTRY
from llm_energy.records.steps import StepTable

MODULES = {id: engine.module for id, engine in REGISTRY.items()}

Mark = Callable[[str, int], None]
STEADY_BEGIN, STEADY_END = "steady_begin", "steady_end"


class Arrival(NamedTuple):
    """One request of timed traffic: its number, its prompt's place, and when it was due in s."""

    number: int
    prompt: int
    time_s: float


# Of what waits, the oldest first, and the time: how many make a batch now; if none, when to look
# again.
BatchRule = Callable[[Sequence[Arrival], float], tuple[int, float | None]]


class Queue(Protocol):
    """Where a backend gets the requests of timed traffic (see ``arrival_queue.py``)."""

    def take(self, most: int) -> list[Arrival]:
        """Return up to ``most`` requests that are due."""

    def next_batch(self, rule: BatchRule) -> Sequence[Arrival]:
        """Wait for the next batch; empty once all is served."""

    def step(self, ended: int = 0) -> None:
        """Note that a step is done and that so many requests ended in it."""

    def next_s(self) -> float | None:
        """Return when something is due next on the monotonic clock; None if nothing will be."""

    def wait(self) -> bool:
        """Sleep until something is due; False once nothing will come."""


# What says how much a model reads and multiplies for a token, by the names of Hugging Face's
# config.json.
ARCHITECTURE = (
    *("model_type", "hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window"),
    *("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"),
    *("moe_intermediate_size", "tie_word_embeddings"),
)


def architecture(config: Any) -> dict[str, Any]:
    """Take from a model's configuration what bounds its work."""
    found = {name: getattr(config, name, None) for name in ARCHITECTURE}
    return {name: value for name, value in found.items() if value is not None}


def no_mark(label: str, output_tokens: int) -> None:
    """Take a mark and do nothing."""


class Backend(Protocol):
    """What a backend module's ``Backend`` class must do.

    One instance serves one repeat: ``load`` once, then any number of ``prepare`` and ``generate``,
    then ``close``.
    """

    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Load the weights and return what the engine reports that it uses.

        The result holds at least ``device`` (``cpu``, ``cuda:0``, ...), ``device_uuids`` (of the
        GPUs in use, a list, empty on CPU), ``dtype``, ``weight_bytes`` (resident),
        ``engine_version``; with ``architecture`` the distance from the physical floor can be told.
        Raises Unsupported or OutOfMemory.
        """

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Do everything for a workload that is not its work: batching, padding, moving to device.

        Returns the effective generation settings; ``batching.strategy`` in them is ``static``,
        ``dynamic`` or ``continuous``. Called outside every window.
        """

    def generate(self, mark: Mark = no_mark) -> list[Completion]:
        """Serve all prepared requests once and return when all device work is done.

        This is the only code of a backend that runs inside a window. Under continuous batching it
        calls ``mark(STEADY_BEGIN, n)`` once ``batch_size`` requests have their first token and
        ``mark(STEADY_END, n)`` once all but ``batch_size + 1`` have ended, each at most once a call
        and with the output tokens of this call so far; a mark reads a clock and a few counters.
        Under static batching it calls neither. Raises OutOfMemory.
        """

    def events(self) -> dict[str, Any]:
        """Return what the engine counted since ``prepare``: preempted requests, cached tokens, ...

        Integers are counts that only grow, so two calls give what happened in between; other values
        are means since the last call, or states. Called before and after a window, never inside.
        """

    def close(self) -> None:
        """Free the model and the device's memory."""


class Server(Protocol):
    """What a ``Backend`` does besides if the matrix says that it serves timed traffic."""

    def serve(self, queue: Queue) -> list[Completion]:
        """Serve timed traffic until the queue has no more, and give its completions by number.

        Requests are taken from the queue when they are due, ``queue.step`` follows each step of the
        engine, and nothing spins: with nothing to do, ``queue.wait`` sleeps. A completion's arrival
        is when its request was due, and ``token_times_s`` and ``service_start_s`` are given. Raises
        OutOfMemory.
        """


class Scorer(Protocol):
    """What a ``Backend`` does besides if it can say how likely it finds a text."""

    def score(self, passages: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return, by passage, the log-probability of each id but the first, given those before it.

        Of the model's own distribution: no temperature, no penalty. Called once, after the last
        window and the last baseline, with one passage's logits in memory at a time.
        """


class Stepper(Protocol):
    """What a ``Backend`` does besides if it can tell of its steps; ``steps.py`` notes them."""

    def steps(self) -> StepTable | None:
        """Return the steps since the last call; None where this cell's engine cannot tell them.

        Requests are numbered from 0 on since then: of ``generate`` through all calls, in the order
        of the completions, and of ``serve`` as they arrived. Called around a window, never inside.
        """


def module_of(name: str, flow: str | None = None) -> str:
    """Return the module of a backend's ``Backend`` for one of its ways of running a model."""
    engine = REGISTRY.get(name)
    return (engine.flows.get(flow) if engine and flow else None) or MODULES[name]


def create(name: str, flow: str | None = None) -> Backend:
    """Import a backend's module and make its ``Backend``; BackendUnavailable names the remedy."""
    try:
        return importlib.import_module(module_of(name, flow)).Backend()
    except ImportError as error:
        raise BackendUnavailable(
            f"Backend '{name}' requires extra dependencies ({error}). "
            f"Install them with: make envs BACKENDS={name}"
        ) from error
