"""A fault and its healthy twin for each check of the engine, the workload and the pipeline.

The form of a pair stands in ``test_catalogue.py``.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from support import builders
from support.check_cases import EXPECTED, case, column, traces, traffic

from llm_energy.analysis.checks import (
    Expected,
    FileState,
    RepeatCounts,
    WindowEvidence,
    WindowSummary,
    summary_of,
)
from llm_energy.records import ComponentEnergy, Condition, Preflight, Spec, TraceSummary

REPORTED = builders.measurement().effective


def counted(**changes) -> WindowEvidence:
    """Return a window of an engine behind a server, whose counters and the client's agree."""
    tokens = {"prompt_tokens": 16, "output_tokens": 32}
    events = {f"{side}_{name}": n for name, n in tokens.items() for side in ("server", "returned")}
    return case({"events": events | changes})


def reported(
    spec=None, window: dict | None = None, expected=EXPECTED, host=None, **more
) -> WindowEvidence:
    """Return a case whose engine reports more of what it loaded."""
    changes = {"host": host} if host else {}
    return case(window, expected=expected, spec=spec, effective=REPORTED | more, **changes)


def generation(passed: dict, used: dict, **window_effective) -> WindowEvidence:
    """Return a case of generation arguments passed and reported."""
    workload = replace(builders.workload(), engine=passed)
    return case(
        {"effective": {"generation": used} | window_effective},
        spec=builders.spec(workloads=(workload,)),
    )


def asked(**engine) -> Spec:
    """Return the spec of a cell with these load arguments."""
    return builders.spec(engine={"dtype": "float32"} | engine)


# the engine


def quantised(weight_bytes: int, *, bits8: bool = True, **changes) -> WindowEvidence:
    asked = {"quantization": {"load_in_8bit": bits8, "load_in_4bit": False}}
    spec = builders.spec(workloads=(builders.workload(**asked),))
    effective = {"dtype": "float32", "weight_bytes": weight_bytes} | changes.pop("effective", {})
    return case(spec=spec, effective=effective, **changes)


def utilised(percent: float | None, device: str = "cuda:0") -> WindowEvidence:
    summary = TraceSummary("GPU-1", 400, 0.1, 4000.0, 100.0, 60.0, 0, percent)
    interval = replace(builders.interval("window", 1020.0, 40.0), trace=(summary,))
    return reported(window={"interval": interval}, device=device)


ON_GPU = {"device": "cuda:0"}
OFFLOADED = {"hf_device_map": {"model.layers.0": "cuda:0", "model.layers.1": "cpu"}}
WHOLE = {"hf_device_map": {"model.layers.0": "0", "model.layers.1": "0"}}
NO_GPUS = builders.host(gpus=())
HALF_EMBEDDED = {"architecture": {"vocab_size": 50, "hidden_size": 10, "tie_word_embeddings": True}}
LINEAR8 = {"effective": {"quantization": {"Linear8bitLt": 7}}}


ENGINE = {
    "E36": [
        (counted(server_output_tokens=33), "invalid", counted()),
        (counted(returned_prompt_tokens=12), "invalid", case()),
    ],
    "E37": [
        (
            reported(builders.spec(arguments={"block_size": 64}), arguments={"block_size": 32}),
            "invalid",
            reported(builders.spec(arguments={"block_size": 64}), arguments={"block_size": 64}),
        ),
        (
            reported(builders.spec(arguments={"block_size": 64})),
            "invalid",
            reported(arguments={"block_size": 32}),
        ),
    ],
    "E38": [
        (
            reported(server_started_by="somebody else", server_host="this host"),
            "warning",
            reported(server_started_by="this job", serves_the_models_folder=True),
        ),
        (
            reported(
                server_started_by="somebody else", server_host="another host", device_uuids=[]
            ),
            "invalid",
            reported(),
        ),
        (
            reported(server_started_by="this job", serves_the_models_folder=False),
            "warning",
            case(),
        ),
    ],
    "E01": [
        (reported(**ON_GPU, **OFFLOADED), "invalid", reported(**ON_GPU, **WHOLE)),
        (
            reported(**ON_GPU, hf_device_map={"": "disk"}),
            "invalid",
            reported(device="cpu", hf_device_map={"": "cpu"}),
        ),
        (
            reported(**ON_GPU, offloaded_weight_gib=4.0),
            "invalid",
            reported(**ON_GPU, offloaded_weight_gib=0),
        ),
    ],
    "E02": [
        (
            reported(builders.spec(device="cuda"), device="cpu"),
            "invalid",
            reported(builders.spec(device="cuda"), **ON_GPU),
        ),
        (
            reported(builders.spec(device="auto"), device="cpu"),
            "warning",
            reported(builders.spec(device="auto"), host=NO_GPUS, device="cpu"),
        ),
        (
            reported(builders.spec(device="auto"), device="cpu"),
            "warning",
            reported(builders.spec(device="cpu"), device="cpu"),
        ),
        (utilised(0.0), "invalid", utilised(60.0)),
        (
            utilised(0.0),
            "invalid",
            traffic(interval=utilised(0.0).window.interval, effective=REPORTED | ON_GPU),
        ),
        (utilised(0.4), "invalid", utilised(None)),
    ],
    "E03": [
        (case(effective={"dtype": "bfloat16"}), "invalid", case()),
        (case(effective={"dtype": 7}), "invalid", case(effective={"dtype": "torch.float32"})),
        (case(effective={}), "warning", case(spec=builders.spec(engine={}), effective={})),
        (reported(kv_cache_dtype="fp8_e4m3"), "warning", reported(kv_cache_dtype="auto")),
        (
            reported(kv_cache_dtype="fp8"),
            "warning",
            reported(asked(kv_cache_dtype="fp8"), kv_cache_dtype="fp8"),
        ),
        (
            reported(asked(kv_cache_dtype="fp8"), kv_cache_dtype="auto"),
            "invalid",
            reported(asked(kv_cache_dtype="fp8"), kv_cache_dtype="fp8_e4m3"),
        ),
    ],
    "E04": [
        (quantised(4000), "invalid", quantised(3000)),
        (quantised(2000, bits8=False), "warning", quantised(4100, bits8=False)),
        # A checkpoint in 8 bits, of which nothing was asked.
        (
            quantised(2000, bits8=False),
            "warning",
            quantised(2000, bits8=False, effective={"quantization": "fp8"}),
        ),
        (quantised(4000), "invalid", quantised(4000, expected=Expected())),
        # Half of its weights are embeddings, so that 8 bits of the rest make 2,625 bytes at most.
        (
            quantised(2700, effective=HALF_EMBEDDED),
            "invalid",
            quantised(2600, effective=HALF_EMBEDDED),
        ),
        # A checkpoint is as large in memory as in its files, else it was dequantised.
        (
            quantised(2000, bits8=False, effective={"checkpoint": {"weight_bytes": 1000}}),
            "invalid",
            quantised(1100, bits8=False, effective={"checkpoint": {"weight_bytes": 1000}}),
        ),
    ],
    "E05": [
        (quantised(3000, **LINEAR8), "note", quantised(3000, bits8=False, **LINEAR8)),
        (
            quantised(3000, effective={"quantization": "bitsandbytes"}),
            "note",
            quantised(3000, effective={"quantization": "fp8"}),
        ),
    ],
    "E10": [
        (reported(kv_offloading_gib=8.0), "warning", reported(kv_offloading_gib=None)),
        (
            generation({}, {"cache_implementation": "offloaded_static"}),
            "warning",
            generation({}, {"cache_implementation": "static"}),
        ),
    ],
    "E16": [
        (
            generation({"do_sample": False}, {"do_sample": True, "temperature": 0.6}),
            "warning",
            generation({"do_sample": False}, {"do_sample": False, "temperature": 0.6}),
        ),
        (
            generation({"temperature": 0.0}, {"temperature": 0.7, "top_k": 20}),
            "warning",
            generation({"temperature": 0.0}, {"temperature": 0.0, "top_k": 0, "seed": 3}),
        ),
        (
            generation({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 50}),
            "warning",
            generation({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": -1}),
        ),
        (
            generation({"do_sample": False}, {"do_sample": False, "repetition_penalty": 1.1}),
            "warning",
            generation({"do_sample": False}, {"do_sample": False, "repetition_penalty": None}),
        ),
        (
            generation({"max_new_tokens": 8}, {"max_new_tokens": 20}),
            "warning",
            generation({"max_new_tokens": 8}, {}),
        ),
        (
            generation({"temperature": 1.0, "seed": 1}, {"temperature": 1.0}, seed=2),
            "warning",
            generation({"temperature": 1.0, "seed": 1}, {"temperature": 1.0}, seed=1),
        ),
        (
            reported(asked(enable_prefix_caching=False), enable_prefix_caching=True),
            "warning",
            reported(asked(enable_prefix_caching=False), enable_prefix_caching=False),
        ),
        (
            reported(asked(max_num_seqs=32), max_num_seqs=16),
            "warning",
            reported(asked(max_model_len=-1, seed=None), max_model_len=8192, seed=0),
        ),
    ],
    "E21": [
        (
            reported(attn_implementation="eager"),
            "warning",
            reported(asked(attn_implementation="eager"), attn_implementation="eager"),
        ),
        (reported(attn_implementation="eager"), "warning", reported(attn_implementation="sdpa")),
    ],
    "E32": [
        (
            reported(engine_version="1.3.0rc26+stand.in"),
            "invalid",
            reported(engine_version="1.3.0rc26"),
        ),
    ],
    "E22": [
        (
            reported(speculative_method="ngram"),
            "warning",
            reported(asked(speculative_config={"method": "ngram"}), speculative_method="ngram"),
        ),
        # Two passes of eight tokens, one request at a time: at least 32 steps.
        (case({"events": {"steps": 20}}), "warning", case({"events": {"steps": 32}})),
        (
            reported(enable_chunked_prefill=True),
            "note",
            reported(asked(enable_chunked_prefill=True), enable_chunked_prefill=True),
        ),
    ],
}


# how it ran


def passes(*durations_s: float, warmup_s: float = 10.0) -> WindowEvidence:
    """Return a window of passes that took these times."""
    ends_s = tuple(1020.0 + total for total in accumulate(durations_s))
    interval = builders.interval("window", 1020.0, sum(durations_s))
    changes = {"interval": interval, "pass_ends_s": ends_s, "passes": len(durations_s)}
    return case(changes | {"warmup_durations_s": (warmup_s,) * 3})


def continuous(first_s: tuple, last_s: tuple, batch_size: int = 2, **events) -> WindowEvidence:
    """Return one pass with continuous batching whose requests all arrived at its start."""
    rows = len(first_s)
    table = builders.request_table(1020.0)
    table = replace(
        table,
        **{name: getattr(table, name)[:1] * rows for name in vars(table)},
    )
    table = replace(
        table,
        request_id=tuple(f"q{k}" for k in range(rows)),
        first_token_s=tuple(t and 1020.0 + t for t in first_s),
        last_token_s=tuple(1020.0 + t for t in last_s),
    )
    batching = {"batch_size": batch_size, "strategy": "static", "max_batch_tokens": None}
    workload = replace(builders.workload(batching=batching), requests=rows)
    window = {"requests": table, "events": events, "passes": 1}
    window["effective"] = {"batching": {"strategy": "continuous"}}
    return case(window, spec=builders.spec(workloads=(workload,)))


def powers(*powers_w: float, strategy: str = "tensor_parallel") -> WindowEvidence:
    parts = tuple(
        ComponentEnergy("gpu", f"GPU-{k}", "measured", "counter", 40.0 * power_w)
        for k, power_w in enumerate(powers_w, 1)
    )
    sharding = {"strategy": strategy, "num_devices": len(powers_w)}
    spec = builders.spec(workloads=(builders.workload(sharding=sharding),))
    return case({"interval": builders.interval("window", 1020.0, 40.0, parts)}, spec=spec)


def memory_at_preflight(ok: bool) -> WindowEvidence:
    found = Condition("board_memory", ok, "GPU-1: 9000 MiB", "below 200 MiB")
    return case(preflight=Preflight(60.0, (Condition("disk", False, "", ""), found)))


CACHED = {"requests": builders.request_table(1020.0, cached_prompt_tokens=(0, 0, 4, 4))}
CACHING = asked(enable_prefix_caching=True)
UNHURRIED = tuple(1.0 + 0.02 * (k % 3) for k in range(15))
DRIFTING = tuple(1.0 + 0.02 * (k % 3) + 0.02 * k for k in range(15))

RUNNING = {
    "E06": [
        (case(CACHED), "invalid", case()),
        (case(CACHED, spec=CACHING), "note", case(spec=CACHING)),
        (
            case({"events": {"cached_prompt_tokens": 16}}),
            "invalid",
            case({"events": {"cached_prompt_tokens": 0}}),
        ),
    ],
    "E07": [
        (passes(40.0, 10.0, 10.0), "invalid", passes(20.0, 10.0, 10.0)),
        (passes(40.0), "invalid", passes(11.0)),
        (passes(40.0, 10.0), "invalid", passes(0.1, *(0.02,) * 2000)),
        (case({"events": {"graph_captures": 2}}), "invalid", case({"events": {"compilations": 0}})),
    ],
    "E08": [
        (
            case({"events": {"preempted_requests": 1}}),
            "invalid",
            case({"events": {"preempted_requests": 0}}),
        ),
        (
            continuous((0.1,) * 200, (40.0,) * 200, preempted_requests=2),
            "warning",
            continuous((0.1,) * 200, (40.0,) * 200, preempted_requests=None),
        ),
    ],
    "E09": [
        (
            continuous((1.0,) * 4, (40.0,) * 4, mean_running_requests=1.5),
            "warning",
            continuous((1.0,) * 4, (40.0,) * 4, mean_running_requests=1.6),
        ),
        # Of three requests the last one is alone, which is no fault of the engine.
        (
            continuous((1.0,) * 3, (40.0,) * 3, mean_running_requests=1.5),
            "note",
            continuous((1.0,) * 3, (40.0,) * 3, mean_running_requests=1.6),
        ),
        (
            continuous((1.0,) * 3, (40.0,) * 3, mean_running_requests=1.1),
            "warning",
            continuous((1.0,) * 3, (40.0,) * 3, batch_size=1, mean_running_requests=1.0),
        ),
        # One after the other, though two at a time were asked for; and then two and two.
        (
            continuous((0.1, 10.0, 20.0, 30.0), (10.0, 20.0, 30.0, 40.0)),
            "warning",
            continuous((0.1, 0.1, 20.0, 20.0), (20.0, 20.0, 40.0, 40.0)),
        ),
        # Times say little where prefill takes long, and nothing where there are none.
        (
            continuous((0.1, 10.0, 20.0, 30.0), (10.0, 20.0, 30.0, 40.0)),
            "warning",
            continuous((8.0, 16.0, 24.0, 32.0), (40.0, 40.0, 40.0, 40.0), batch_size=4),
        ),
        (
            continuous((0.1, 10.0, 20.0, 30.0), (10.0, 20.0, 30.0, 40.0)),
            "warning",
            continuous((None, 10.0, 20.0, 30.0), (10.0, 20.0, 30.0, 40.0)),
        ),
    ],
    "E24": [
        (
            case(load=builders.interval("load", 1000.0, 25.0)),
            "invalid",
            case(load=builders.interval("load", 1000.0, 10.0)),
        )
    ],
    "E27": [
        (powers(300.0, 100.0), "warning", powers(300.0, 270.0)),
        (powers(300.0, 100.0), "warning", powers(300.0, 100.0, strategy="device_map")),
        (powers(300.0, 310.0, 60.0), "warning", powers(60.0)),
    ],
    "E28": [
        (traffic(arrived=100, started=90), "warning", traffic(arrived=100, started=98)),
        (traffic(arrived=100, started=90), "warning", traffic(arrived=100, started=101)),
        # So many requests may wait for their batch to fill.
        (traffic(started=5), "warning", traffic(started=5, batch_size=8)),
        (traffic(started=5), "warning", traffic(started=5, mode="closed_loop")),
        (traffic(started=5), "warning", case()),
    ],
    "E29": [
        (case({"warmup_converged": False}), "warning", case({"warmup_converged": None})),
        (
            case({"warmup_durations_s": (), "warmup_converged": None}),
            "warning",
            case({"warmup_durations_s": (20.0,), "warmup_converged": None}),
        ),
        (passes(*DRIFTING), "warning", passes(*UNHURRIED)),
        (passes(*reversed(DRIFTING)), "warning", passes(*DRIFTING[:14])),
    ],
    "E33": [
        (traffic("trace", arrived=9), "warning", traffic("trace")),
        (traffic("trace", arrived=9), "warning", traffic("constant", arrived=9)),
        (
            traffic("trace", arrived=101, requested_rate_per_s=1.0),
            "warning",
            traffic("trace", arrived=45, requested_rate_per_s=1.0),
        ),
        (
            traffic("trace", arrived=101, requested_rate_per_s=1.0),
            "warning",
            traffic("trace", arrived=101, requested_rate_per_s=None),
        ),
        # The draw of a Poisson process is the rate that was asked for.
        (
            traffic("trace", arrived=101, requested_rate_per_s=1.0),
            "warning",
            traffic("poisson", arrived=101, requested_rate_per_s=1.0),
        ),
    ],
    "E34": [
        (traffic(ramp_s=0.1), "warning", traffic()),
        (traffic(ramp_s=0.1), "warning", case()),
    ],
    "E35": [
        (traffic(in_flight=(0, 12)), "warning", traffic(in_flight=(12, 12))),
        (traffic(in_flight=(0, 1)), "note", traffic(in_flight=(1, 1))),
        (traffic(in_flight=(12, 0)), "warning", case()),
    ],
    "E30": [(memory_at_preflight(False), "invalid", memory_at_preflight(True))],
}


# the work


def answers(*ids: tuple, spec=None, window=None, **effective) -> WindowEvidence:
    """Return a window whose requests were answered with these ids."""
    kept = {"output_token_ids": {f"q{k}": tuple(i) for k, i in enumerate(ids)}}
    return reported(spec, kept | (window or {}), **effective)


def static_lengths(*output_tokens: int) -> WindowEvidence:
    """Return one pass of four requests in one static batch."""
    batching = {"batch_size": 4, "strategy": "static", "max_batch_tokens": None}
    workload = builders.workload(batching=batching, min_output_tokens=1)
    spec = builders.spec(workloads=(replace(workload, requests=4),))
    return column(spec, output_tokens=output_tokens)


WITHOUT_TOKENS = {"output_token_ids": {"q0": (1,), "q1": tuple(range(8))}}
FREE = builders.spec(workloads=(builders.workload(min_output_tokens=1),))
ENDS = {"effective": {"eos_token_ids": [2]}}
TEXT = tuple(range(5, 25))
# What a small model does when it decodes greedily: it says the same again and again.
LOOP = (5, 6, 7, *(8, 9) * 20)
VOCABULARY = {"architecture": {"vocab_size": 100}}
BOTH = {1: "invalid", 2: "invalid"}

WORKLOAD = {
    "E11": [
        (column(output_tokens=(8, 8, 8, 7)), "invalid", column(output_tokens=(8,) * 4)),
        (column(output_tokens=(8, 8, 8, 9)), "invalid", case(spec=FREE)),
    ],
    "E12": [
        (
            column(finish_reason=("stop", *("length",) * 3)),
            "invalid",
            column(FREE, finish_reason=("stop",) * 4),
        )
    ],
    "E13": [
        (
            column(FREE, finish_reason=("length", "length", "stop", "stop")),
            "warning",
            column(FREE, finish_reason=("length", "stop", "stop", "stop")),
        ),
        (case(spec=FREE), "warning", case()),
    ],
    "E14": [
        (column(prompt_tokens=(4, 4, 4, 3)), "invalid", case()),
        (case(expected=Expected(prompt_tokens={"q0": 4})), "invalid", case(expected=Expected())),
        (reported(max_model_len=11), "invalid", reported(max_model_len=12)),
    ],
    "E15": [
        (traces({}, {"weights_sha256": "x"}), BOTH, traces({}, {})),
        (
            traces({}, {"prompts_sha256": {"b1": "x"}}),
            BOTH,
            traces({"resampled": True}, {"resampled": True, "prompts_sha256": {"b1": "x"}}),
        ),
        (
            traces({}, {"repeat": 1, "arrivals_sha256": {"b1": "x"}}),
            {1: "invalid"},
            traces({}, {"arrivals_sha256": {"b1": "x"}}),
        ),
    ],
    "E17": [
        (column(padding_tokens=(0, 0, 0, 20)), "note", column(padding_tokens=(0, 0, 0, 2))),
        (static_lengths(8, 1, 1, 1), "note", static_lengths(8, 6, 8, 6)),
        (
            answers((7, 2, 0, 0), (7, 8, 9, 2), spec=FREE, window=ENDS, pad_token_id=0),
            "invalid",
            answers((7, 8, 0, 2), (7, 8, 9, 9), spec=FREE, window=ENDS, pad_token_id=0),
        ),
        (
            answers((7, 2, 2, 2), spec=FREE, window=ENDS, pad_token_id=2),
            "invalid",
            answers((7, 2, 2, 2), window=ENDS, pad_token_id=2),
        ),
    ],
    "E18": [
        (case(WITHOUT_TOKENS), "invalid", case()),
        (case({"output_token_ids": {}}), "invalid", column(output_tokens=(8, 8, 7, 6))),
        (
            case({"output_token_ids": {}, "effective": {"token_source": "usage"}}),
            "note",
            case({"effective": {"token_source": "ids"}}),
        ),
    ],
    "E19": [
        (column(finish_reason=("abort", *("length",) * 3)), "invalid", case()),
        (column(output_tokens=(8, 8, 8, 0)), "invalid", case()),
        (case({"passes": 3}), "invalid", case()),
    ],
    "E20": [
        (answers((3,) * 20, (4,) * 20), "warning", answers(LOOP, LOOP)),
        (answers((3,) * 20, (4,) * 20, TEXT), "warning", answers((3,) * 20, TEXT)),
        (answers((3,) * 16), "warning", answers((3,) * 15)),
        (answers((0,) * 8, (0,) * 8), "warning", answers((0,) * 8, (0, 0, 0, 7, 0, 0, 0, 0))),
        (answers((5, 100), **VOCABULARY), "invalid", answers((5, 99), **VOCABULARY)),
        (answers((5, -1)), "invalid", answers((5, 10**6))),
    ],
}


# physics

H100 = {"uuid": "GPU-1", "name": "NVIDIA H100 80GB HBM3", "power_limit_w": 700.0}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


def llama(energy_per_output_token_j: float, duration_s: float = 40.0, **changes) -> WindowEvidence:
    """Return Llama 3.1 8B on one H100: 8 requests at once, 200 prompt and 128 output tokens."""
    rows = 64
    table = builders.request_table(1020.0, duration_s)
    table = replace(
        table,
        **{name: getattr(table, name)[:1] * rows for name in vars(table)}
        | {"prompt_tokens": (200,) * rows, "output_tokens": (128,) * rows},
    )
    energy_j = energy_per_output_token_j * 128 * rows
    part = ComponentEnergy("gpu", "GPU-1", changes.pop("status", "measured"), "counter", energy_j)
    batching = {"batch_size": 8, "strategy": "static", "max_batch_tokens": None}
    workload = replace(builders.workload(batching=batching), requests=8)
    window = {
        "requests": table,
        "passes": 8,
        "interval": builders.interval("window", 1020.0, duration_s, (part,)),
    }
    effective = {
        "dtype": "bfloat16",
        "weight_bytes": 16_060_522_496,
        "device_uuids": ["GPU-1"],
        "architecture": LLAMA,
    }
    return case(
        window,
        expected=replace(EXPECTED, parameter_count=8_030_261_248),
        spec=builders.spec(workloads=(workload,), engine={"dtype": "bfloat16"}),
        host=builders.host(gpus=(H100 | changes.pop("gpu", {}),)),
        effective=effective | changes,
    )


def energies(*values_j: float | None) -> list[WindowSummary]:
    found = traces(*({},) * len(values_j))
    pairs = zip(found, values_j, strict=True)
    return [replace(trace, energy_per_output_token_j=value) for trace, value in pairs]


BOUNDS = {
    "E25": [
        # 0.455 J is what the ML.ENERGY Leaderboard gives at this batch size.
        (llama(0.05), "invalid", llama(0.455)),
        (llama(0.05), "invalid", llama(0.05, gpu={"name": "some other GPU"})),
        (llama(0.05), "invalid", llama(0.05, architecture={})),
        (llama(0.05), "invalid", llama(0.05, architecture=LLAMA | {"hidden_size": "4096"})),
        (llama(0.05), "invalid", llama(0.05, status="estimated")),
        (llama(0.05), "invalid", llama(0.05, speculative_method="ngram")),
        # 1,024 steps of 15 GB take 4.5 s at the GPU's bandwidth.
        (llama(0.455, 4.0), "invalid", llama(0.455, 6.0)),
    ],
    "E26": [
        (llama(2.4), "warning", llama(2.2)),
        (llama(0.09), "warning", llama(0.1)),
        (llama(2.4), "warning", llama(2.4, weight_bytes=12_000_000_000)),
        (llama(2.4), "warning", llama(2.4, gpu={"name": "NVIDIA A100-SXM4-80GB"})),
    ],
    "E31": [
        (energies(1.0, 1.1, 6.0, 0.9), {3: "warning"}, energies(1.0, 1.1, 4.0, None)),
        (energies(1.0, 6.0), {1: "warning", 2: "warning"}, energies(6.0)),
    ],
}


# the pipeline


def measured_in(*blocks: str, **changes) -> list[WindowSummary]:
    """Return the traces of blocks, each a word whose letters are its cells in their order."""
    found: list[WindowSummary] = []
    for repeat, cells in enumerate(blocks, 1):
        for cell in cells:
            spec = builders.spec(repeat=repeat, model=cell)
            start_s = 100.0 * len(found)
            measured = builders.measurement(spec, start_s=start_s, **changes)
            found.append(summary_of(WindowEvidence(measured, measured.windows[0])))
    return found


def in_stretches(*cells: str, repeats: int) -> list[WindowSummary]:
    """Return the traces of cells that were each measured with all their repeats on end."""
    found = measured_in(*("".join(cells),) * repeats)
    found.sort(key=lambda trace: trace.key)
    return [replace(t, start_s=100.0 * k, end_s=100.0 * k + 40) for k, t in enumerate(found)]


ALL_WARNED = {1: "warning", 2: "warning", 3: "warning", 4: "warning"}

PIPELINE = {
    "P01": [
        (
            traces({"start_s": 0.0}, {"start_s": 39.0}, {}),
            BOTH,
            traces({}, {"start_s": 1040.0}),
        ),
        (
            traces({"start_s": 0.0}, {"start_s": 39.0}),
            BOTH,
            traces({"start_s": 0.0}, {"start_s": 39.0, "host": builders.host(boot_id="boot-2")}),
        ),
        # Containers on one kernel have names of their own, and its boot in common.
        (
            traces({"start_s": 0.0}, {"start_s": 39.0, "host": builders.host(hostname="pod-2")}),
            BOTH,
            traces({"start_s": 0.0}, {"start_s": 40.0, "host": builders.host(hostname="pod-2")}),
        ),
        (
            traces({"start_s": 0.0}, {"start_s": 0.0}),
            BOTH,
            traces(*({"start_s": 0.0, "host": builders.host(boot_id=None)},) * 2),
        ),
    ],
    "P02": [
        (measured_in(*("abc",) * 4), ALL_WARNED, measured_in("abc", "cab", "abc", "bca")),
        (measured_in(*("bcad",) * 4), ALL_WARNED, measured_in(*("bcad",) * 2)),
        (
            in_stretches("a", "b", "c", repeats=4),
            ALL_WARNED,
            in_stretches("a", "b", repeats=2),
        ),
        (
            measured_in(*("abc",) * 4),
            ALL_WARNED,
            measured_in(*("abc",) * 4, host=builders.host(boot_id=None)),
        ),
        # One cell alone has no order, and ten thousand repeats are no harder than ten.
        (measured_in(*("abc",) * 4), ALL_WARNED, measured_in(*("a",) * 300)),
    ],
    "P03": [
        (
            RepeatCounts("c", "b1", (1,), (1,)),
            "warning",
            RepeatCounts("c", "b1", (1, 2), (1, 2)),
        ),
        (
            RepeatCounts("c", "b1", (1, 3), (1, 2, 3)),
            "warning",
            RepeatCounts("c", "b1", (), (1, 2, 3)),
        ),
    ],
    "P04": [(FileState("r01.json", False), "invalid", FileState("r01.json", True))],
    "P06": [
        (case(**{name: "other"}), "invalid", case(expected=Expected(), **{name: "other"}))
        for name in ("spec_sha256", "weights_sha256")
    ]
    + [(case(prompts_sha256={"b1": "other"}), "invalid", case())],
    "P07": [
        (FileState("r01.json", True, "no JSON"), "invalid", FileState("r01.json", True)),
    ],
}

PAIRS = ENGINE | RUNNING | WORKLOAD | BOUNDS | PIPELINE
