"""The PyTorch backend's flow ``compiled``: decoding steps by torch.compile, over fixed caches.

Step by step, a GPU waits for the host, which queues some thousand small operations for each token.
A compiled step is one CUDA graph, which the host starts once. That needs key-value caches that keep
their sizes and addresses, so each size of batch has one, kept from pass to pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_energy.errors import Unsupported


class CompiledSteps:
    """What ``model.generate`` needs so that it compiles its decoding steps, and what it compiled.

    ``config`` is the ``compile_config`` for a GenerationConfig. Each new shape is compiled anew,
    unless another config says otherwise.
    """

    def __init__(self, torch: Any, model: Any, config: Any = None) -> None:
        from torch._dynamo.utils import counters
        from transformers import CompileConfig

        self._torch, self._model, self._counters = torch, model, counters
        self.config = config or CompileConfig(dynamic=False)
        self._caches: dict[int, Any] = {}
        # Else a shape too many would quietly run uncompiled.
        torch._dynamo.config.fail_on_recompile_limit_hit = True

    def prepare(self, batch_sizes: Iterable[int], length: int) -> None:
        """Forget the last workload's graphs; make caches of ``length`` tokens for this one's."""
        from transformers import StaticCache

        self.forget()
        text = self._model.config.get_text_config()
        self._caches = {size: StaticCache(text, max_cache_len=length) for size in set(batch_sizes)}

    def cache(self, batch_size: int) -> Any:
        """Give the emptied cache for a batch."""
        cache = self._caches[batch_size]
        cache.reset()
        return cache

    def check(self) -> None:
        """Raise Unsupported if ``generate`` has compiled nothing: it only warns of that."""
        if not self.compilations():
            raise Unsupported(
                f"transformers does not compile {type(self._model).__name__} with these settings; "
                "use the flow eager"
            )

    def compilations(self) -> int:
        """Give how many graphs have been compiled so far for this workload."""
        return int(self._counters["stats"]["unique_graphs"])

    def forget(self) -> None:
        """Drop the graphs and the caches, and the memory that they hold."""
        self._caches = {}
        self._model.__dict__.pop("_compiled_call", None)
        self._torch.compiler.reset()
        self._counters.clear()
