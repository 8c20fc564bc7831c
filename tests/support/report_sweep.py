"""A sweep as the report gets it: two backends, three precisions, and everything that can go wrong.

``pytorch`` has a GPU whose joules are measured, ``vllm`` a host without any sensor, so that its
joules are estimated. One cell is unsupported, one repeat ran out of memory, and a model's name, a
prompt's id and a reason hold what must never become markup.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from support import builders
from support.simulated_runs import with_step_file

from llm_energy.analysis.aggregate import aggregate, planned_batch_sizes
from llm_energy.analysis.compare.stage import comparisons
from llm_energy.analysis.normalise import normalise
from llm_energy.analysis.validate import validate
from llm_energy.backends.steps import StepLog, evenly
from llm_energy.core.files import sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.publish.report import Sources
from llm_energy.records import SCHEMA_VERSION, Measurement, PromptSet, write_record
from llm_energy.records.comparison import Comparisons
from llm_energy.records.files import paths

HOSTILE = "</script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"
POWER_W = {"float32": 100.0, "int8": 82.0, "int4": 75.0}
WORKLOADS = ("b1", "b8")
REPEATS = 3


def measurements() -> Iterator[Measurement]:
    """Return the repeats of both backends, each with a little scatter."""
    chance, start_s = random.Random(1), 0.0
    for repeat in range(1, REPEATS + 1):
        for backend in ("pytorch", "vllm"):
            for precision, power_w in POWER_W.items():
                if (backend, precision) != ("vllm", "int4"):
                    start_s += 1000.0  # one at a time on the host
                    watts = power_w * chance.gauss(1, 0.01)
                    yield _repeat(backend, precision, repeat, watts, start_s)


def _repeat(
    backend: str, precision: str, repeat: int, power_w: float, start_s: float
) -> Measurement:
    asked = [builders.workload(name, model_name=f"example/{HOSTILE}") for name in WORKLOADS]
    spec = builders.spec(precision, repeat, backend, workloads=asked)
    healthy = builders.measurement(spec, start_s)
    windows = []
    for window in healthy.windows:
        # The larger batch is done sooner, so it takes less energy at the same power.
        duration_s = builders.WINDOW_S * (1 if window.workload == "b1" else 0.8)
        energy = builders.energy if backend == "pytorch" else builders.estimated_only
        begin_s, parts = window.interval.start_s, energy(duration_s, power_w)
        requests = builders.request_table(begin_s, duration_s)
        ids = {HOSTILE: window.output_token_ids["q0"], "q1": window.output_token_ids["q1"]}
        windows.append(
            replace(
                window,
                interval=builders.interval("window", begin_s, duration_s, parts),
                requests=replace(requests, request_id=tuple(ids) * builders.PASSES),
                output_token_ids=ids,
            )
        )
    if (backend, precision, repeat) == ("pytorch", "int8", 3):
        windows[1] = replace(
            windows[1],
            outcome="oom",
            reason=f"out of memory {HOSTILE}",
            interval=None,
            requests=None,
        )
    found = replace(healthy, windows=tuple(windows), prompts_sha256=_prompts().sha256)
    return found if backend == "pytorch" else _without_gpus(found)


def _without_gpus(measurement: Measurement) -> Measurement:
    """Return the measurement of a host without a GPU, whose energy is a model's."""
    idle = builders.estimated_only(builders.IDLE_S, 10.0)
    return replace(
        measurement,
        baselines=tuple(
            replace(b, energy=idle, boards=(), trace=()) for b in measurement.baselines
        ),
        effective={"dtype": "float32", "weight_bytes": 4000, "device_uuids": []},
        host=builders.host(gpus=()),
        meter=builders.meter_report(
            counter_tick_s={}, trace=None, trace_sha256=None, trace_reason="there is no GPU"
        ),
    )


def _prompts() -> PromptSet:
    healthy = builders.prompt_set("m", WORKLOADS)
    first, second = healthy.requests[WORKLOADS[0]]
    requests = (replace(first, id=HOSTILE), second)
    return replace(
        healthy,
        requests=dict.fromkeys(WORKLOADS, requests),
        sha256=dict.fromkeys(WORKLOADS, sha256_json(to_dict(requests))),
    )


def _with_steps(measurement: Measurement, root: Path) -> Measurement:
    """Write the steps of static batches beside where a measurement of ``pytorch`` will be."""
    spec = measurement.spec
    if spec.backend != "pytorch":
        return measurement
    found = {}
    for window in (window for window in measurement.windows if window.requests):
        log, table, interval = StepLog(), window.requests, window.interval
        each = len(table.request_id) // window.passes
        for number, span in enumerate(evenly(interval.start_s, interval.end_s, window.passes)):
            rows = range(each * number, each * (number + 1))
            prompts, outputs = (
                [column[row] for row in rows]
                for column in (table.prompt_tokens, table.output_tokens)
            )
            log.static_batch(rows, prompts, outputs, evenly(*span, max(outputs)))
        found[window.workload] = log.take()
    sweep, name = root / "results" / "test", paths.repeat_name(spec.repeat)
    place = paths.measurement(sweep, spec.backend, spec.cell, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    return with_step_file(measurement, found, place)


def nothing_compared(sweep: str = "test") -> Comparisons:
    """Return the record of a compare stage that found nothing to compare."""
    lists = ("findings", "held_fixed", "families", "comparisons", "crossovers", "rankings")
    empty = dict.fromkeys((*lists, "pareto", "limits", "recommendations"), ())
    return Comparisons(schema_version=SCHEMA_VERSION, sweep=sweep, simulated=False, **empty)


def two_lengths(swept: Sources) -> Comparisons:
    """Compare a sweep as if ``b8`` had asked for longer outputs than ``b1``: for other work."""
    lengths = {"b1": "128", "b8": "1024"}
    tables = [
        replace(
            table,
            rows=tuple(replace(r, conditions=f"{r.conditions} {r.workload}") for r in table.rows),
            conditions={
                f"{key} {workload}": known | {"output_lengths": length}
                for key, known in table.conditions.items()
                for workload, length in lengths.items()
            },
        )
        for table in swept.metrics
    ]
    return comparisons(tables, swept.aggregates, swept.plan)


def sources(root: Path, compared: Comparisons | None = None) -> Sources:
    """Run the stages from validate to aggregate over the sweep, written below ``root``."""
    found = [_with_steps(one, root) for one in measurements()]
    grid = builders.plan(
        [(b, p) for b in ("pytorch", "vllm") for p in ("float32", "int8", "int4")],
        REPEATS,
        WORKLOADS,
    )
    refused = builders.planned_cell(
        ("m", "vllm", "int4"), (), WORKLOADS, f"no kernel for {HOSTILE}"
    )
    grid = replace(grid, cells=(*grid.cells[:-1], refused))
    plan_path = builders.write_sweep(root, found, grid)
    write_record(root / "results" / "test" / "prompts" / "m.json", _prompts())
    verdicts = [validate("test", backend, plan_path) for backend in ("pytorch", "vllm")]
    metrics = [normalise(one) for one in verdicts]
    sizes = planned_batch_sizes(grid, metrics)
    return Sources(
        plan=grid,
        aggregates=[aggregate([one], grid, sizes) for one in metrics],
        metrics=metrics,
        verdicts=verdicts,
        comparisons=compared or nothing_compared(),
        root=root,
    )
