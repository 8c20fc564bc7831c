"""A backend for ranks without an engine: it answers, fails, ends or gets stuck as it is told.

    python tests/support/fake_rank.py

starts two ranks, prints their process ids and waits for its own end.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from llm_energy.backends.distributed.ranks import Ranks
from llm_energy.core.errors import OutOfMemory, Unsupported
from llm_energy.records import Completion

ERRORS = {"oom": OutOfMemory("full"), "unsupported": Unsupported("no"), "failed": KeyError("x")}


class Backend:
    """Serve each request with its own prompt, reversed."""

    def load(self, spec, model_folder):
        if spec.model == "odd" and os.environ["RANK"] == "1":
            return self._report(spec) | {"dtype": "float16"}
        return self._report(spec)

    def prepare(self, workload, requests):
        self.requests = requests
        self.batch_size = workload.batch_size
        sizes = [min(self.batch_size, len(requests) - at) for at in self._batches()]
        batching = {"strategy": "static", "batch_sizes": sizes, "padding_tokens": len(requests)}
        return {"generation": {}, "batching": batching}

    def generate(self):
        begin_s = time.monotonic()
        if os.environ.get("RANK_STAND_IN_DIES") == os.environ["RANK"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return [
            Completion(
                r.id, len(r.prompt_token_ids), 0, 0, r.prompt_token_ids[::-1], "length",
                begin_s, time.monotonic(), time.monotonic(),
            )
            for r in self.requests
        ]  # fmt: skip

    def events(self):
        return {"steps": len(self.requests), "mean_running_requests": float(self.batch_size)}

    def steps(self):
        return f"of rank {os.environ['RANK']}"

    def score(self, passages):
        return [[-1.0] * (len(passage) - 1) for passage in passages]

    def close(self):
        pass

    def do(self, what):
        """Do as a test says."""
        if what in ERRORS:
            raise ERRORS[what]
        if what == "stuck":
            signal.pause()
        if what == "exit":
            os._exit(3)
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "collecting":
            return gc.isenabled()
        return os.environ.get(what, what), os.getpid(), sorted(os.sched_getaffinity(0))

    def _batches(self):
        return range(0, len(self.requests), self.batch_size)

    def _report(self, spec):
        return {
            "device": "cpu",
            "device_uuids": [f"GPU-{os.environ.get('CUDA_VISIBLE_DEVICES')}", "GPU-shared"],
            "dtype": "float32",
            "weight_bytes": 100,
            "weight_bytes_by_dtype": {"float32": 90, "int8": 10},
            "num_threads": 1,
            "engine_version": "1",
        }


if __name__ == "__main__":
    ranks = Ranks("support.fake_rank", 2, together=True)
    print(*[answer[1] for answer in ranks.call("do", [("here",)] * 2)], flush=True)
    signal.pause()
