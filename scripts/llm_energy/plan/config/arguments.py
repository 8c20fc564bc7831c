"""Check the engine's own arguments in entries of ``backends``, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_energy.backends.arguments import ARGUMENTS, DECIDED_BY, arguments_of
from llm_energy.plan.config.messages import Problem, did_you_mean, found

DRAFTED = "speculative_config"
BEHIND_A_SERVER = (
    "found speculative decoding with the flow server, allowed in process alone, where its drafts "
    "are counted; remove flow"
)


def argument_problems(backends: list[dict[str, Any]]) -> Iterator[Problem]:
    """Find arguments that an entry's engine does not take, or not with this value."""
    for backend in backends:
        engine, known = backend["engine"], arguments_of(backend["engine"])
        for name, value in backend.get("arguments", {}).items():
            at = (*backend["at"], "arguments", name)
            if name not in known:
                yield at, _unknown(str(name), engine)
            elif not known[name].takes(value):
                yield at, f"found {found(value)}, allowed {known[name].allowed}"
            elif name == DRAFTED and value["prompt_lookup_min"] > value["prompt_lookup_max"]:
                yield at, "found a prompt_lookup_min above prompt_lookup_max, allowed one up to it"
            elif name == DRAFTED and backend.get("flow") == "server":
                yield at, BEHIND_A_SERVER


def _unknown(name: str, engine: str) -> str:
    """Say who decides an argument that an engine's entry may not set, or whose it is."""
    if name in DECIDED_BY:
        return f"found an argument that '{DECIDED_BY[name]}' decides; remove it and set that key"
    names = list(arguments_of(engine))
    allowed = ", ".join(names) or f"none, '{engine}' has no argument that an entry may set"
    owners = [other for other, known in ARGUMENTS.items() if name in known]
    if owners:
        return f"found an argument of the engine '{owners[0]}', allowed {allowed}"
    return (
        f"unknown argument of the engine '{engine}', allowed {allowed}{did_you_mean(name, names)}"
    )
