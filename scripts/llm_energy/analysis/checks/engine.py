"""Checks of the engine: is it on the device, in the precision and with the settings asked for."""

from __future__ import annotations

from typing import Any

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.checks.settings import generation_differences, load_differences
from llm_energy.analysis.evidence.windows import (
    DTYPE_BYTES,
    WindowEvidence,
    in_flight,
    mapping,
    number,
    some,
)
from llm_energy.records.registry.precisions import PRECISIONS, precision_of

FLOAT_TOLERANCE = 0.25  # buffers, padded vocabularies and tied embeddings stay well within this
SCALES = 0.25  # of the bytes of quantised weights, for their scales and what is as small
QUANTISED_AT_MOST = 0.95  # of the bytes that the same weights have in the compute precision
ELSEWHERE = frozenset({"cpu", "disk", "meta"})
STAND_IN = "stand.in"  # in the local part of a version, as PEP 440 spells it
UNUSED_PERCENT = 1.0


@check(
    "E01",
    "window",
    "invalid",
    "weights offloaded to host or disk",
    "The model does not fit: use a smaller one, a lower precision, or more GPUs.",
)
def offloaded(case: WindowEvidence) -> Finding | None:
    """Find weights that a GPU must fetch from the host or the disk at each use."""
    used = case.measurement.effective
    if not _on_gpu(case):
        return None
    places = mapping(used, "hf_device_map")
    elsewhere = {name: place for name, place in places.items() if str(place) in ELSEWHERE}
    if elsewhere:
        return Finding({"count": len(elsewhere), "modules": some(elsewhere)})
    gib = number(used, "offloaded_weight_gib")
    return Finding({"offloaded_weight_gib": gib}) if gib else None


@check(
    "E02",
    "window",
    "invalid",
    "model on the CPU in spite of a GPU",
    "Install the backend's CUDA environment, or say device: cpu where the CPU is meant.",
)
def on_the_cpu(case: WindowEvidence) -> Finding | None:
    """Find a model on the CPU though a GPU was asked for, or a GPU that had nothing to do.

    Under ``device: auto`` a host with a GPU is only a hint that it was meant.
    """
    asked, used = case.measurement.spec.device, case.measurement.effective.get("device")
    if used == "cpu":
        evidence = {"asked": asked, "used": used}
        if asked == "cuda":
            return Finding(evidence)
        if asked == "auto" and (gpus := case.measurement.host.gpus):
            names = [str(gpu.get("name")) for gpu in gpus]
            return Finding(evidence | {"boards": names}, "warning")
        return None
    traced = {t.device: t.utilization_percent for t in case.window.interval.trace}
    may_wait = case.window.traffic is not None
    if not (_on_gpu(case) and traced) or None in traced.values() or may_wait:
        return None
    if max(traced.values()) >= UNUSED_PERCENT:
        return None
    return Finding({"utilization_percent": traced})


@check(
    "E03",
    "window",
    "invalid",
    "precision differs from the one asked for",
    "Ask for a precision that this device has, or correct the backend's dtype argument.",
)
def other_precision(case: WindowEvidence) -> Finding | None:
    """Find an engine that computes, or keeps its KV cache, in another dtype than asked for.

    A KV cache in another dtype, chosen by the engine or the checkpoint, is a warning. vLLM's fp8
    of a KV cache is E4M3.
    """
    engine, effective = case.measurement.spec.engine, case.measurement.effective
    asked, used = engine.get("dtype"), effective.get("dtype")
    if asked is not None and _dtype(asked) != _dtype(used):
        evidence = {"asked": asked, "used": used}
        return Finding(evidence, "warning" if used is None else "invalid")
    cache = effective.get("kv_cache_dtype")
    if cache is not None and (own := engine.get("kv_cache_dtype")) not in (None, "auto"):
        same = _dtype(cache).removesuffix("_e4m3") == _dtype(own).removesuffix("_e4m3")
        evidence = {"asked": {"kv_cache_dtype": own}, "used": {"kv_cache_dtype": str(cache)}}
        return None if same else Finding(evidence)
    if cache is None or used is None:
        return None
    if _dtype(cache) in ("auto", _dtype(used)):
        return None
    return Finding({"dtype": used, "kv_cache_dtype": str(cache)}, "warning")


@check(
    "E04",
    "window",
    "invalid",
    "quantisation not applied",
    "The resident weights are not as small as asked: the engine ignored the quantisation.",
)
def not_quantised(case: WindowEvidence) -> Finding | None:
    """Compare the resident bytes of the weights with what the precision promises.

    A checkpoint that was quantised before is as large in memory as in its files, else the engine
    has dequantised it. Embeddings and the output layer stay in the compute precision. Where the
    architecture tells how many weights these have, all others have the bits of the precision's
    name, and room for their scales; where it doesn't, a quantised model is only certain to be
    smaller than the same model unquantised. A float model that is far from its expected size is a
    warning.
    """
    parameters, used = case.workload.parameters, case.measurement.effective
    resident = used.get("weight_bytes")
    count, size = case.expected.parameter_count, DTYPE_BYTES.get(parameters["fp_precision"])
    if not isinstance(resident, int):
        return None
    evidence: dict[str, Any] = {"weight_bytes": resident}
    evidence |= {"bytes_per_weight": resident / count} if count else {}
    if stored := number(mapping(used, "checkpoint"), "weight_bytes"):
        ratio = resident / stored
        evidence |= {"precision": precision_of(parameters), "checkpoint_bytes": stored}
        return Finding(evidence | {"ratio": ratio}) if ratio > 1 + FLOAT_TOLERANCE else None
    if count is None or size is None:
        return None
    evidence |= {"unquantised_bytes": count * size, "ratio": resident / (count * size)}
    if used.get("quantization") or any(parameters["quantization"].values()):
        most = _most_bytes(case, count, size)
        if resident > most:
            return Finding(evidence | {"precision": precision_of(parameters), "at_most": most})
        return None
    return Finding(evidence, "warning") if abs(evidence["ratio"] - 1) > FLOAT_TOLERANCE else None


def _most_bytes(case: WindowEvidence, count: int, size: int) -> float:
    """Return the most bytes that the weights of a quantised model may have."""
    told = mapping(case.measurement.effective, "architecture")
    vocabulary, width = (number(told, name) for name in ("vocab_size", "hidden_size"))
    bits = PRECISIONS[precision_of(case.workload.parameters)].bits
    whole = QUANTISED_AT_MOST * count * size
    if vocabulary is None or width is None:
        return whole
    kept = min(count, vocabulary * width * (1 if told.get("tie_word_embeddings") else 2))
    return min(whole, kept * size + (count - kept) * bits / 8 * (1 + SCALES))


@check(
    "E05",
    "window",
    "note",
    "8-bit products split in two",
    "LLM.int8() saves memory and often costs energy: compare it with 16 bits before choosing.",
)
def decomposed(case: WindowEvidence) -> Finding | None:
    """Say that bitsandbytes computes the outlier columns of each 8-bit product in 16 bits.

    It splits every product, which can make 8 bits slower than 16 (Dettmers et al., LLM.int8(),
    2022, arXiv:2208.07339, appendix D).
    """
    if not case.workload.parameters["quantization"].get("load_in_8bit"):
        return None
    used = case.measurement.effective.get("quantization")
    if used != "bitsandbytes" and not (isinstance(used, dict) and "Linear8bitLt" in used):
        return None
    threshold = number(case.measurement.effective, "llm_int8_threshold")
    return Finding({"quantization": used, "llm_int8_threshold": threshold})


@check(
    "E10",
    "window",
    "warning",
    "KV cache kept on the host",
    "Lower the batch size or the lengths, so that the cache fits on the GPU.",
)
def cache_on_host(case: WindowEvidence) -> Finding | None:
    """Find an engine that may move parts of its KV cache to the host's memory."""
    gib = number(case.measurement.effective, "kv_offloading_gib")
    if gib:
        return Finding({"kv_offloading_gib": gib})
    kind = mapping(case.window.effective, "generation").get("cache_implementation")
    if str(kind).startswith("offloaded"):
        return Finding({"cache_implementation": str(kind)})
    return None


@check(
    "E16",
    "window",
    "warning",
    "engine used other settings than it was passed",
    "Look for the model's generation_config and the engine's own defaults, and pass the value.",
)
def other_settings(case: WindowEvidence) -> Finding | None:
    """Compare what was passed to the engine with what it reports that it used.

    Arguments that mean the same count as equal: greedy decoding in its spellings, and a filter or
    penalty that is off. What the engine does not report, or was left to choose, is not compared.
    """
    measurement, window = case.measurement, case.window
    wrong = load_differences(measurement.spec.engine, measurement.effective)
    reported = mapping(window.effective, "generation")
    if reported:
        used = dict(reported)
        if "seed" in window.effective:
            used.setdefault("seed", window.effective["seed"])
        wrong |= generation_differences(case.workload.engine, used)
    return Finding({"settings": wrong}) if wrong else None


@check(
    "E21",
    "window",
    "warning",
    "attention without a fused kernel",
    "Install the kernel that the other cells use, or ask for eager attention in all of them.",
)
def eager_attention(case: WindowEvidence) -> Finding | None:
    """Find an engine that fell back to unfused attention though nobody asked for it."""
    asked = case.measurement.spec.engine.get("attn_implementation")
    used = case.measurement.effective.get("attn_implementation")
    if used != "eager" or asked == "eager":
        return None
    return Finding({"asked": asked, "used": used})


@check(
    "E22",
    "window",
    "warning",
    "engine's own speed-up switched on",
    "Switch it off in the engine's arguments, or make it part of what the cell is named after.",
)
def unasked_speed_up(case: WindowEvidence) -> Finding | None:
    """Find speculative decoding or chunked prefill that the spec does not ask for.

    More output tokens than steps and requests in flight allow are taken for the former. Chunked
    prefill is a note: it changes no total, but no phase of the window is prefill or decode alone.
    """
    asked, used = case.measurement.spec.engine, case.measurement.effective
    if used.get("speculative_method") and "speculative_config" not in asked:
        return Finding({"speculative_method": str(used["speculative_method"])})
    steps, tokens = number(case.window.events, "steps"), sum(case.window.requests.output_tokens)
    if steps and "speculative_config" not in asked and tokens > steps * in_flight(case):
        evidence = {"output_tokens": tokens, "steps": steps, "in_flight": in_flight(case)}
        return Finding(evidence)
    if used.get("enable_chunked_prefill") is True and "enable_chunked_prefill" not in asked:
        return Finding({"enable_chunked_prefill": True}, "note")
    return None


@check(
    "E32",
    "window",
    "invalid",
    "no engine but a stand-in",
    "A stand-in shows that the pipeline works. Measure with the engine itself.",
)
def stand_in(case: WindowEvidence) -> Finding | None:
    """Find an engine whose version says that it is a stand-in, as that of the tests does."""
    version = str(case.measurement.effective.get("engine_version"))
    return Finding({"engine_version": version}) if STAND_IN in version else None


@check(
    "E36",
    "window",
    "invalid",
    "server counted other tokens than it returned",
    "Let nobody else ask the server, and no request be given up and done again; measure again.",
)
def other_counts(case: WindowEvidence) -> Finding | None:
    """Hold what a server counted against the ids that came back, prompts and outputs apart."""
    found = {
        name: {"server": counted, "returned": returned}
        for name in ("prompt_tokens", "output_tokens")
        if (counted := number(case.window.events, f"server_{name}"))
        != (returned := number(case.window.events, f"returned_{name}"))
    }
    return Finding(found) if found else None


@check(
    "E37",
    "window",
    "invalid",
    "argument of the entry without its effect",
    "The engine ignored or changed it: take it out of the entry, or give a value that it keeps.",
)
def argument_ignored(case: WindowEvidence) -> Finding | None:
    """Look up in the engine's configuration each argument that the entry of the config set."""
    asked = case.measurement.spec.arguments
    used = mapping(case.measurement.effective, "arguments")
    wrong = {
        name: {"asked": value, "used": used.get(name, "not reported")}
        for name, value in sorted(asked.items())
        if name not in used or used[name] != value
    }
    return Finding({"arguments": wrong}) if wrong else None


@check(
    "E38",
    "window",
    "warning",
    "server that the job did not start, or that has a model of its own",
    "Let the job start it on {model}; or name its GPUs, and see that it serves nobody else.",
)
def not_our_server(case: WindowEvidence) -> Finding | None:
    """Find a server whose life or weights the job did not decide.

    On another host none of the joules here are its own, unless GPUs of this host were named.
    """
    used = case.measurement.effective
    started_by, ours = used.get("server_started_by"), used.get("serves_the_models_folder")
    if started_by is None or (started_by == "this job" and ours):
        return None
    evidence = {"started_by": started_by, "serves_the_models_folder": ours}
    if (host := used.get("server_host")) is not None:
        evidence["host"] = host
    away = host == "another host" and not used.get("device_uuids")
    return Finding(evidence, "invalid" if away else "warning")


def _on_gpu(case: WindowEvidence) -> bool:
    return str(case.measurement.effective.get("device")).startswith("cuda")


def _dtype(name: Any) -> str:
    return str(name).removeprefix("torch.")
