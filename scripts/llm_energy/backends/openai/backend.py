"""Measure any server that speaks the OpenAI completions API: one of the job's own, or one at a URL.

The entry of the config says what the server is (``server``), ``kinds.py`` how servers differ. The
command is run as it stands, by no shell, and only to measure.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llm_energy.backends.openai import gpus
from llm_energy.backends.openai.kinds import KINDS
from llm_energy.backends.openai.prompts import text_of, tokenizer_of
from llm_energy.backends.served.backend import Asked, ServedBackend
from llm_energy.backends.served.failures import load_failure
from llm_energy.backends.served.server import HOST, Elsewhere, Server, ServerFailure
from llm_energy.core.errors import Unsupported
from llm_energy.core.files import sha256_file
from llm_energy.records import Request, Spec, Workload
from llm_energy.records.files.paths import ROOT

CAPABILITIES = frozenset({"continuous_batching", "timed_traffic", "token_times"})
MODEL = "measured"  # the name by which the server is told to know the model
START_S = 1800.0
KEY_VARIABLE = "LLM_ENERGY_SERVER_KEY"  # for a server that is told to look there, or looks nowhere
KEY_THERE = "OPENAI_API_KEY"  # where a key lies for a server that is already there
LOOPBACK = (HOST, "localhost", "::1")
HEALTH = "/health"


class Backend(ServedBackend):
    """Serve one model through a server's HTTP API, at most a batch size of requests at a time."""

    def __init__(self) -> None:
        for module in ("aiohttp", "psutil", "tokenizers"):
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        super().__init__()
        self._kind = KINDS["plain"]
        self._model = MODEL
        self._tokenizer: Any = None

    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Start the server, or find it at its URL, and report what is known of it."""
        asked = spec.engine["server"]
        self._kind = KINDS[asked["kind"]]
        self.COUNTERS, self.GAUGES, self.CACHE = (
            self._kind.counters,
            self._kind.gauges,
            self._kind.cache,
        )
        self.GIVES_IDS, self.SAYS_DONE = self._kind.gives_ids, self._kind.says_done
        if not self._kind.takes_ids:
            self._tokenizer = tokenizer_of(model_folder)
        found = self._find(asked) if asked.get("url") else self._start(spec, asked, model_folder)
        return found | {
            "in_process": False,
            "device": "cuda" if found["device_uuids"] else "cpu",
            "weight_bytes": None,  # which no server tells
            "engine_version": self._version(asked),
            "token_source": self._token_source,
            "server_kind": asked["kind"],
        }

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Write the bodies that will be sent; Unsupported where the server can't be asked so."""
        ready = []
        for request in requests:
            asked = dict(workload.engine)
            if (own := request.output_tokens) is not None:
                asked |= {"max_tokens": own, "min_tokens": own, "ignore_eos": True}
            prompt = (
                text_of(request, self._tokenizer)
                if self._tokenizer
                else list(request.prompt_token_ids)
            )
            body = self._kind.body(asked, self._model, prompt)
            ready.append(Asked(body, asked["min_tokens"], asked["max_tokens"]))
        self._expect(workload, requests, ready, workload.batch_size)
        return {
            "generation": dict(workload.engine),
            "seed": workload.engine.get("seed"),
            "batching": {"strategy": "continuous", "max_requests_in_flight": self._at_once},
            "token_source": self._token_source,
        }

    @property
    def _token_source(self) -> str:
        return "ids" if self._kind.gives_ids else "usage"

    def _start(self, spec: Spec, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Start the command of the entry and wait until it is ready."""
        from llm_energy.backends.served.client import Client

        variables, uuids = {"HF_HUB_OFFLINE": "1"}, []
        if spec.device == "cuda":
            uuids = gpus.visible_uuids(spec.sharding.num_devices)
            variables |= {"CUDA_VISIBLE_DEVICES": ",".join(uuids)}
        # Known by the name of its folder where the command gives it no other.
        self._model = MODEL if _uses(asked, "{name}") else asked.get("name") or str(folder)
        words = {
            "{python}": str(ROOT / asked["python"]) if "python" in asked else "{python}",
            "{host}": HOST,
            "{model}": str(folder),
            "{name}": MODEL,
            "{device}": spec.device,
            "{dtype}": str(spec.engine["dtype"]),
            "{batch_size}": str(spec.engine["max_num_seqs"]),
            "{tensor_parallel_size}": str(spec.engine["tensor_parallel_size"]),
            "{seed}": str(spec.engine["seed"]),
        }
        command = [fill(argument, words) for argument in asked["command"]]
        if shutil.which(command[0]) is None:
            raise Unsupported(
                f"server.command: found the program {command[0]!r}, allowed one that can be run "
                "here; there is none of this name, so install it or write its path"
            )
        key_variable = asked.get("key_variable") or self._kind.key_variable or KEY_VARIABLE
        try:
            self._server = Server(command, variables, key_variable)
            self._client = Client(self._server, reuse=self._kind.reuse)
            health = asked.get("health", HEALTH)
            self._server.wait_ready(lambda: self._client.healthy(health), START_S)
        except ServerFailure as error:
            said = self._server.output()
            raise load_failure(error, said, folder, f"the server {command[0]}") from None
        environment = asked.get("environment")
        return {
            "device_uuids": uuids,
            "dtype": spec.engine["dtype"] if _uses(asked, "{dtype}") else None,
            "server_started_by": "this job",
            "server_command": list(asked["command"]),
            "server_environment": environment,
            "server_lock_sha256": environment and sha256_file(_lock(environment)),
            "serves_the_models_folder": _uses(asked, "{model}"),
        }

    def _find(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Look whether the server at the entry's URL is healthy, and which model it has."""
        from llm_energy.backends.served.client import Client

        key = os.environ.get(asked.get("key_variable") or KEY_THERE, "none")
        self._there = Elsewhere(asked["url"].rstrip("/"), key)
        self._client = Client(self._there, reuse=self._kind.reuse)
        try:
            self._client.get(asked.get("health", HEALTH))
            self._model = asked.get("name") or self._only_model()
        except ServerFailure as error:
            raise Unsupported(f"no server to measure at {asked['url']}: {error}") from None
        local = urlsplit(asked["url"]).hostname in LOOPBACK
        return {
            "device_uuids": list(asked.get("gpus", ())),
            "dtype": None,
            "server_started_by": "somebody else",
            "server_host": "this host" if local else "another host",
            "serves_the_models_folder": False,
        }

    def _only_model(self) -> str:
        """Return the name of the one model that the server has."""
        try:
            names = [model["id"] for model in json.loads(self._client.get("/v1/models"))["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ServerFailure(f"/v1/models has no list of models ({error})") from None
        if len(names) != 1:
            raise ServerFailure(f"it has the models {', '.join(names)}; give one as server.name")
        return names[0]

    def _version(self, asked: dict[str, Any]) -> str | None:
        """Return the kind of server and its version, by itself or by its lock; None for neither."""
        kind, environment, found = self._kind, asked.get("environment"), None
        if kind.version_path:
            with contextlib.suppress(ServerFailure, ValueError, AttributeError):
                found = json.loads(self._client.get(kind.version_path)).get("version")
        elif kind.package and environment:
            lock = _lock(environment).read_text(encoding="utf-8")
            found = re.search(rf"^{re.escape(kind.package)}==(\S+)", lock, re.M)[1]
        return f"{asked['kind']} {found}" if found else None


def fill(argument: str, words: dict[str, str]) -> str:
    """Put values into the places of an argument; what is no known place stays as it is.

    >>> fill("--port={port}", {"{host}": "127.0.0.1"}), fill("{host}", {"{host}": "127.0.0.1"})
    ('--port={port}', '127.0.0.1')
    """
    for place, value in words.items():
        argument = argument.replace(place, value)
    return argument


def _uses(asked: dict[str, Any], place: str) -> bool:
    return any(place in argument for argument in asked["command"])


def _lock(environment: str) -> Path:
    return ROOT / "envs" / f"{environment}.txt"
