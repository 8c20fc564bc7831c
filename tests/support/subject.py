"""A backend under test, asked in universal parameters and fed with prompt ids."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_energy.backends import base
from llm_energy.backends.compatibility import translate
from llm_energy.core.serialize import to_dict
from llm_energy.environments.registry import environment_name, interpreter, variant
from llm_energy.records import (
    SCHEMA_VERSION,
    Completion,
    MeterSettings,
    Protocol,
    Request,
    Sharding,
    Spec,
    Workload,
)
from llm_energy.records.registry.precisions import QUANTISED, quantization_of

ROOT = Path(__file__).resolve().parents[2]
PROMPT = tuple(range(20, 32))
QUANTISE = """
import pathlib, sys
from llm_energy.inputs.models.quantise import quantise_8bit
quantise_8bit(*map(pathlib.Path, sys.argv[1:]))
"""


def parameters(
    precision: str = "float32",
    max_output_tokens: int = 8,
    min_output_tokens: int | None = None,
    random_seed: int = 1,
    batch_size: int = 4,
    strategy: str = "static",
    max_batch_tokens: int | None = None,
    **decoder: Any,
) -> dict[str, Any]:
    """Return the complete universal parameters; the output length is forced unless a minimum is."""
    return {
        "model_name": "tiny",
        "fp_precision": "bfloat16" if precision in QUANTISED else precision,
        "max_output_tokens": max_output_tokens,
        "min_output_tokens": max_output_tokens if min_output_tokens is None else min_output_tokens,
        "random_seed": random_seed,
        "decoder": {
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
            "do_sample": False,
        }
        | decoder,
        "quantization": quantization_of(precision),
        "batching": {
            "batch_size": batch_size,
            "strategy": strategy,
            "max_batch_tokens": max_batch_tokens,
        },
        "sharding": {"strategy": "none", "num_devices": 1},
        "traffic_simulation": None,
    }


@dataclass
class Subject:
    """A backend under test with a model loaded.

    ``effective`` is what its load reported, ``loaded`` what it was given for that natively,
    ``passed`` what ``prepare`` last gave it, ``hints`` the parameters that the engine may do
    otherwise with.
    """

    name: str
    capabilities: frozenset[str]
    folder: Path
    engine: base.Backend
    sharding: Sharding = field(default_factory=Sharding)
    effective: dict[str, Any] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)
    passed: dict[str, Any] = field(default_factory=dict)
    hints: frozenset[str] = frozenset()
    flow: str | None = None

    def spec(self, precision: str = "float32", **asked: Any) -> Spec:
        """Return the spec that the plan stage would make for one precision."""
        universal = parameters(precision, **asked) | {"sharding": to_dict(self.sharding)}
        return Spec(
            schema_version=SCHEMA_VERSION,
            sweep="conformance",
            cell=f"tiny--{self.name}--{precision}",
            model="tiny",
            backend=self.name,
            precision=precision,
            repeat=1,
            seed=1,
            device="auto",
            engine=translate(universal, self.name, None, "auto", self.flow).load,
            workloads=(Workload("loaded", 0, universal, {}),),
            notes=(),
            protocol=Protocol(),
            meter=MeterSettings(),
            sharding=self.sharding,
        )

    def load(self, precision: str = "float32", **asked: Any) -> Subject:
        """Load the folder in one precision and keep what the engine reports."""
        spec = self.spec(precision, **asked)
        self.loaded = dict(spec.engine)
        if spec.engine.get("load_in_8bit"):
            quantise(self.folder)
        self.effective = self.engine.load(spec, self.folder)
        return self

    def prepare(
        self,
        prompts: Sequence[Sequence[int]],
        traffic: dict[str, Any] | None = None,
        lengths: Sequence[int | None] = (),
        **asked: Any,
    ) -> dict[str, Any]:
        """Prepare one request per prompt, ``r0`` onwards; give the effective settings.

        With ``traffic`` requests will be served as they arrive; ``lengths`` are their own ones.
        """
        universal = parameters(**asked) | {"traffic_simulation": traffic}
        translation = translate(universal, self.name, None, "auto", self.flow)
        native = translation.generate
        own = lengths or [None] * len(prompts)
        requests = [
            Request(f"r{i}", tuple(ids), length)
            for i, (ids, length) in enumerate(zip(prompts, own, strict=True))
        ]
        self.passed = native
        self.hints = frozenset(n.parameter for n in translation.notes if n.status == "hint")
        arrivals_sha256 = traffic and "a" * 64
        workload = Workload("w", len(requests), universal, native, arrivals_sha256)
        return self.engine.prepare(workload, requests)

    def serve(self, prompts: Sequence[Sequence[int]], **asked: Any) -> list[Completion]:
        """Prepare and serve the prompts once."""
        self.prepare(prompts, **asked)
        return self.engine.generate()

    def ids(self, prompts: Sequence[Sequence[int]], **asked: Any) -> list[tuple[int, ...]]:
        """Serve the prompts and give only the output ids."""
        return [completion.output_token_ids for completion in self.serve(prompts, **asked)]

    def needs(self, capability: str) -> None:
        """Skip the test unless the backend says that it has the capability."""
        import pytest  # here, since the benchmarks use this class in environments without it

        if capability not in self.capabilities:
            pytest.skip(f"backend {self.name} has no {capability}")


def quantise(folder: Path) -> None:
    """Make the folder of 8-bit weights beside a model's, as the models stage does and where."""
    out = folder.with_name(f"{folder.name}-int8")
    if not out.exists():
        python = interpreter(ROOT, environment_name("pytorch", variant()))
        command = [python, "-c", QUANTISE, folder, out]
        path = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
        subprocess.run(command, env=path, check=True, capture_output=True)
