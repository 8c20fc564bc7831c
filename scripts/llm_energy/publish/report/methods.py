"""Write the methods paragraph of a sweep from what its specs and measurements say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_energy.publish.report.sources import Sources, counted, listed
from llm_energy.records import Measurement
from llm_energy.records.registry.engines import REGISTRY

THERMAL = {
    "sustained": "after that, passes were served on until the GPUs' temperature had settled",
    "cooldown": "after that, the host rested for {rest:g} s",
    "none": "no thermal state was waited for",
}


def methods(sources: Sources) -> list[str]:
    """Return the paragraphs of a methods section, in plain text, ready to be adapted."""
    if not sources.repeats:
        return ["Nothing was measured."]
    repeats = list(sources.repeats.values())
    return [_design(sources), _work(repeats), _measuring(repeats), _statistics(sources)]


def software(sources: Sources) -> list[tuple[str, str]]:
    """Return what measured: hosts, GPUs, engines and commits, each with all values that occur."""
    repeats = list(sources.repeats.values())
    if not repeats:
        return []
    gpus = {
        f"{gpu.get('name')} (driver {gpu.get('driver_version')}, {gpu.get('power_limit_w')} W)"
        for m in repeats
        for gpu in m.host.gpus
    }
    found = {
        "Hosts": {f"{m.host.hostname}: {m.host.cpu_model}, {m.host.os}" for m in repeats},
        "GPUs": gpus or {"none"},
        "Engines": {_engine(m) for m in repeats},
        "Commit of this pipeline": {_commit(m) for m in repeats},
    }
    return [(title, "; ".join(sorted(values))) for title, values in found.items()]


def _design(sources: Sources) -> str:
    cells = sources.plan.planned
    models, precisions = (
        list(dict.fromkeys(getattr(c, axis) for c in cells)) for axis in ("model", "precision")
    )
    repeats = sorted({len(cell.repeats) for cell in cells})
    were = "was" if len(cells) == 1 else "were"
    return (
        f"{counted(len(cells), 'cell')} ({_axis(models, 'model')}, "
        f"{_axis(sources.backends, 'backend')}, {_axis(precisions, 'precision')}) {were} measured "
        f"in {listed(map(str, repeats))} repeats, each a fresh process inside the backend's own "
        "environment. The repeats ran in blocks: every block measured each cell once, in a seeded "
        "random order of its own."
    )


def _axis(names: list[str], word: str) -> str:
    return f"{word} {names[0]}" if len(names) == 1 else f"{len(names)} {word}s: {', '.join(names)}"


def _work(repeats: list[Measurement]) -> str:
    workloads = {w.id: w for m in repeats for w in m.spec.workloads}
    parts = [_workload(w.id, w.requests, w.parameters) for w in workloads.values()]
    shown = "; ".join(parts[:8]) + (f"; and {len(parts) - 8} more" if len(parts) > 8 else "")
    sampled = {bool(w.parameters.get("decoder", {}).get("do_sample")) for w in workloads.values()}
    decoding = {True: "sampled", False: "greedy"}
    how = listed(decoding[one] for one in sorted(sampled))
    return (
        f"Workloads: {shown}. Decoding was {how}. Every backend got the same prompt token ids, and "
        "tokens were counted from the ids that the engine took in and gave out, padding left out."
    )


def _workload(id: str, requests: int, parameters: dict[str, Any]) -> str:
    batching = parameters.get("batching", {})
    low, high = (parameters.get(f"{end}_output_tokens") for end in ("min", "max"))
    length = f"{high} output tokens, forced" if low == high else f"at most {high} output tokens"
    return (
        f"{id}, {counted(requests, 'request')} at batch size {batching.get('batch_size')} "
        f"({batching.get('strategy', 'static')}), {length}"
    )


def _measuring(repeats: list[Measurement]) -> str:
    protocol = repeats[0].spec.protocol
    thermal = THERMAL[protocol.thermal_policy].format(rest=protocol.cooldown_duration_s)
    methods = _methods(repeats, "measured")
    models = _methods(repeats, "estimated")
    known = f"Measured were {methods}" if methods else "No energy was measured by a sensor"
    guessed = f"; estimated by a model of the hardware were {models}" if models else ""
    apart = "; the two are never added" if methods and models else ""
    waited = any(window.hot_idle for one in repeats for window in one.windows)
    hot = " and, while the GPUs were still warm, right after each of them" if waited else ""
    return (
        f"Each workload was warmed up by {protocol.warmup_min_passes} to "
        f"{protocol.warmup_max_passes} passes over its own requests, until the last pass durations "
        f"scattered by less than {100 * protocol.warmup_cv:g} % and drifted by less than "
        f"{100 * protocol.warmup_trend:g} %; {thermal}. The window then held whole passes for at "
        f"least {protocol.window_min_duration_s:g} s, and nothing but the engine's own work. "
        f"{known}{guessed}{apart}. Gross energy is that of the whole window over "
        "its output tokens. Net energy is gross minus the power of the loaded, idle model, metered "
        f"before and after the windows{hot}."
    )


def _methods(repeats: list[Measurement], status: str) -> str:
    found: dict[str, set[str]] = {}
    for part in _energies(repeats):
        if part.status == status:
            found.setdefault(part.component, set()).add(part.method)
    return listed(f"{component} ({', '.join(sorted(how))})" for component, how in found.items())


def _energies(repeats: list[Measurement]) -> Iterable[Any]:
    return (
        part
        for measurement in repeats
        for window in measurement.windows
        if window.interval is not None
        for part in window.interval.energy
    )


def _statistics(sources: Sources) -> str:
    checked = len(sources.judged)
    invalid = sum(v.outcome == "ok" and v.verdict == "invalid" for v in sources.judged)
    return (
        f"Named checks judged each of the {counted(checked, 'window')}. Those found invalid "
        f"({invalid}) entered no mean, and none was left out for its value. Intervals are 95 % "
        "t-intervals over repeats, widened by what the counters and baselines leave open and "
        "repeats do not show. Cells are compared by the logarithms of their ratios, paired by "
        "block, corrected for their number by Holm's method, and only where the conditions below "
        "agree."
    )


def _engine(measurement: Measurement) -> str:
    backend, packages = measurement.spec.backend, measurement.host.packages
    id = measurement.spec.engine_id
    known = REGISTRY[id].told if id in REGISTRY else ()
    engine = measurement.effective.get("engine_version")
    versions = {name: packages[name] for name in known if name in packages}
    if engine and versions:  # the engine's own package is the first: what it says of itself counts
        versions[next(iter(versions))] = engine
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    backend += f" (a variant of {id})" if id != backend else ""
    return f"{backend}: {told or engine or 'version not recorded'}"


def _commit(measurement: Measurement) -> str:
    host = measurement.host
    if host.git_commit is None:
        return "not recorded"
    return host.git_commit + (" with local changes" if host.git_dirty else "")
