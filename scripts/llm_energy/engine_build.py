"""Compile the engine of a cell before it is measured, once for all cells that need the same one.

Only TensorRT-LLM's flow ``compiled`` needs it. What it takes is metered and reported apart: no
window and no load has it in it.
"""

from __future__ import annotations

import shutil
import socket
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llm_energy.backends import tensorrt_engine
from llm_energy.errors import LlmEnergyError, OutOfMemory, Unsupported
from llm_energy.files import sha256_json
from llm_energy.locks import exclusive_file, exclusive_host
from llm_energy.meter import open_meter
from llm_energy.outcomes import outcome
from llm_energy.records import (
    SCHEMA_VERSION,
    Clock,
    Interval,
    ModelManifest,
    Outcome,
    PromptSet,
    Spec,
    read_record,
    write_record,
)

KEY_LENGTH = 16  # hexadecimal digits
# The engine takes at most so many tokens in one step, unless a prompt needs more: its own default.
STEP_TOKENS = 8192


@dataclass(frozen=True)
class EngineBuild:
    """What came of compiling an engine, and what it took.

    ``sweep`` and ``cell`` are those that it was first built for; others with the same ``inputs``
    get a copy of this record. ``key`` is made from ``inputs`` and names the engine's folder; None,
    with a reason, where they could not be told. ``build`` is None unless the outcome is ``ok``.
    """

    schema_version: int
    sweep: str
    cell: str
    outcome: Outcome
    reason: str | None
    key: str | None
    inputs: dict[str, Any]
    hostname: str
    clock: Clock
    engine_bytes: int | None
    build: Interval | None


def engine_build_path(sweep: str, backend: str, cell: str) -> str:
    """Give the path of the record of a cell's compiled engine."""
    return f"results/{sweep}/{backend}/engines/{cell}.json"


def limits(spec: Spec, prompts: PromptSet) -> dict[str, int]:
    """Give the lengths in tokens that an engine must hold for all workloads of a spec."""
    longest, whole = 0, 0
    for workload in spec.workloads:
        for request in prompts.requests[workload.id]:
            prompt = len(request.prompt_token_ids)
            longest = max(longest, prompt)
            output = request.output_tokens or workload.parameters["max_output_tokens"]
            whole = max(whole, prompt + output)
    return {
        "max_input_len": longest,
        "max_seq_len": whole,
        "max_num_tokens": max(STEP_TOKENS, longest),
    }


def build(spec_path: Path, manifest_path: Path, prompts_path: Path, out: Path) -> EngineBuild:
    """Give the cell of ``spec_path`` its engine: build it, or take the one that is there.

    Engines lie in ``engines/`` beside the manifest. What fails is an outcome of the record that is
    written to ``out``, and each of the cell's measurements then says so.
    """
    spec = read_record(Spec, spec_path)
    manifest = read_record(ModelManifest, manifest_path)
    prompts = read_record(PromptSet, prompts_path)
    with exclusive_host():
        record = EngineBuild(
            schema_version=SCHEMA_VERSION,
            sweep=spec.sweep,
            cell=spec.cell,
            outcome="ok",
            reason=None,
            key=None,
            inputs={},
            hostname=socket.gethostname(),
            clock=Clock(time.monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds")),
            engine_bytes=None,
            build=None,
        )
        with outcome() as result:
            inputs = {
                "weights_sha256": manifest.weights_sha256,
                "config_sha256": manifest.files.get("config.json"),
                **{name: spec.engine[name] for name in tensorrt_engine.BUILT_IN},
                **limits(spec, prompts),
                **_builder(),
            }
            record = replace(record, inputs=inputs, key=sha256_json(inputs)[:KEY_LENGTH])
            folder = manifest_path.parent / "engines" / str(record.key)
            with exclusive_file(folder.with_name(f".{folder.name}.lock")):
                if (folder / "build.json").exists():
                    record = read_record(EngineBuild, folder / "build.json")
                else:
                    record = _metered(record, spec, manifest_path.parent / "files", folder)
        record = replace(record, outcome=result.outcome, reason=result.reason)
        write_record(out, record)
    return record


def built_engine(spec: Spec, model_folder: Path) -> Path:
    """Give the folder of the engine that was built for a cell.

    Raises Unsupported, OutOfMemory or LlmEnergyError with the reason where the build failed.
    """
    path = model_folder.parents[3] / engine_build_path(spec.sweep, spec.backend, spec.cell)
    record = read_record(EngineBuild, path)
    if record.outcome != "ok":
        kinds = {"unsupported": Unsupported, "oom": OutOfMemory}
        raise kinds.get(record.outcome, LlmEnergyError)(
            f"its engine could not be built: {record.reason}"
        )
    folder = model_folder.parent / "engines" / str(record.key)
    again = f"delete {path} and run the workflow again"
    if not (folder / "config.json").exists():
        raise LlmEnergyError(f"the engine {folder} is gone: {again}")
    for name, here in _builder().items():
        if record.inputs[name] != here:
            raise LlmEnergyError(
                f"the engine was built with {name} {record.inputs[name]}, here is {here}: {again}"
            )
    return folder


def _builder() -> dict[str, Any]:
    try:
        return tensorrt_engine.describe_builder()
    except ImportError as error:
        raise Unsupported(f"TensorRT-LLM is not installed here ({error})") from error


def _metered(record: EngineBuild, spec: Spec, model_folder: Path, folder: Path) -> EngineBuild:
    """Compile into ``folder``, which appears whole or not at all, under the meter."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    meter = open_meter(replace(spec.meter, sampling_period_s=None))
    try:
        meter.restrict(tensorrt_engine.board_uuids(record.inputs["tensor_parallel_size"]))
        with meter.interval("build") as interval:
            tensorrt_engine.compile_engine(model_folder, partial, record.inputs)
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        record = replace(record, build=interval.record, engine_bytes=size)
        write_record(partial / "build.json", record)
        shutil.rmtree(folder, ignore_errors=True)  # half an engine, without its record
        partial.rename(folder)
    finally:
        meter.close()
        shutil.rmtree(partial, ignore_errors=True)
    return record
