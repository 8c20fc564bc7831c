"""What ``vllm serve`` is given of ours: an address that says what the engine uses, for us alone.

Nothing of it runs when tokens are made. It is loaded by ``--middleware`` and
``--worker-extension-cls`` (https://docs.vllm.ai/en/stable/cli/serve/).
"""

from __future__ import annotations

import json
import os
import secrets
from typing import Any

from llm_energy.backends.vllm.report import describe_engine
from llm_energy.backends.vllm.weights import describe_rank

PATH = "/llm-energy/engine"
KEY_NAME = "VLLM_API_KEY"
OPEN_PATHS = ("/health",)


class Front:
    """Answer at PATH, and ask for the key at all addresses: vLLM itself does at some only."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._right = f"Bearer {os.environ[KEY_NAME]}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection (https://asgi.readthedocs.io/en/latest/specs/main.html)."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not secrets.compare_digest(given, self._right):
                return await _reply(send, 401, {"error": "Unauthorized"})
            if scope["path"] == PATH:
                return await _reply(send, 200, await self._describe(scope["app"].state))
        return await self._app(scope, receive, send)

    async def _describe(self, state: Any) -> dict[str, Any]:
        ranks = await state.engine_client.collective_rpc("llm_energy_describe")
        config = state.vllm_config
        vocabulary = config.model_config.get_vocab_size()
        return describe_engine(config, ranks) | {"vocabulary_tokens": vocabulary}


class Rank:
    """A method that vLLM adds to each of its workers."""

    def llm_energy_describe(self) -> dict[str, Any]:
        """Say what this worker's part of the model is."""
        found = describe_rank(self.get_model())
        return found | {"weight_bytes": dict(found["weight_bytes"])}


async def _reply(send: Any, status: int, content: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
