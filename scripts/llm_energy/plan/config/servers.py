"""Check the servers that entries of ``backends`` name, before anything is started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llm_energy.plan.config.messages import Problem, found

ENGINE = "openai"
PLACES = ("port", "host", "model", "name", "device", "dtype", "batch_size")
PLACES += ("tensor_parallel_size", "seed")
PLACE = re.compile(r"\{([a-z_]+)\}")
ONLY_THERE = ("gpus",)
ONLY_OURS = ("environment",)


def server_problems(backends: list[dict[str, Any]]) -> Iterator[Problem]:
    """Find entries whose server is missing, no business of theirs, or can't be reached."""
    for backend in backends:
        at, server = (*backend["at"], "server"), backend.get("server")
        if backend["engine"] != ENGINE:
            if server is not None:
                yield (
                    at,
                    f"found {found(server)}, allowed for the engine '{ENGINE}' only; remove it",
                )
        elif server is None:
            yield (
                at,
                f"missing, the engine '{ENGINE}' needs the server that it asks, such as server: "
                "{kind: vllm, url: 'http://127.0.0.1:8000'}; docs/served.md has ready entries",
            )
        else:
            yield from _one(server, at)


def _one(server: dict[str, Any], at: tuple[Any, ...]) -> Iterator[Problem]:
    command, url = server.get("command"), server.get("url")
    if (command is None) == (url is None):
        both = "both" if command else "neither"
        yield at, f"found {both} of 'command' and 'url', allowed one: start a server, or name one"
        return
    for key in ONLY_THERE if command else ONLY_OURS:
        if key in server:
            other = "url" if command else "command"
            yield (
                (*at, key),
                f"found {found(server[key])}, allowed beside '{other}' only; remove it",
            )
    if not command:
        return
    known = (*PLACES, "python")
    used = {name for argument in command for name in PLACE.findall(argument)}
    if "port" not in used:
        yield (*at, "command"), "found no {port}, allowed a command that listens where it is told"
    if "python" in used and "environment" not in server:
        yield (
            (*at, "command"),
            "found {python} without 'environment', allowed beside the engine whose Python it is, "
            "such as environment: vllm",
        )
    for name in sorted(used - set(known)):
        places = ", ".join(f"{{{one}}}" for one in known)
        yield (*at, "command"), f"found the place {{{name}}}, allowed {places}"
