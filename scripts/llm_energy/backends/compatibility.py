"""What each backend does with each parameter, and the one function that translates them.

The matrix itself is data: ``compatibility.yaml`` says what its keys mean.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from llm_energy.core.errors import ConfigError
from llm_energy.core.files import read_yaml
from llm_energy.records import Note, is_greedy
from llm_energy.records.registry.engines import is_simulated

MATRIX_PATH = Path(__file__).with_name("compatibility.yaml")
STATUSES = ("supported", "mapped", "hint", "implicit", "unsupported")


@dataclass(frozen=True)
class Translation:
    """One workload's parameters in one engine's own terms, and all there is to say about it.

    ``conflicts`` are set parameters that the backend does not support: errors, unless the policy
    ignores backend warnings; then the neutral value stands in. ``refusals`` make the cell
    impossible.
    """

    load: dict[str, Any]
    generate: dict[str, Any]
    notes: tuple[Note, ...]
    conflicts: tuple[Note, ...]
    refusals: tuple[Note, ...]


@functools.cache
def matrix() -> dict[str, Any]:
    """Read the matrix once; callers must not change it."""
    return read_yaml(MATRIX_PATH)


def flows(backend: str) -> dict[str, dict[str, Any]]:
    """Return ways in which a backend runs a model, the default first; none if it has but one."""
    return matrix()["backends"].get(backend, {}).get("flows", {})


def removed_flow(backend: str, flow: str | None) -> str:
    """Return what to add to an error about a flow that an engine no longer has; else nothing."""
    removed = matrix()["backends"].get(backend, {}).get("removed_flows", {}).get(flow)
    return (
        f"; {flow} is gone since version {removed['since']}: {removed['remedy']}" if removed else ""
    )


def translate(
    parameters: dict[str, Any],
    backend: str,
    engine_version: str | None,
    device: str,
    flow: str | None = None,
) -> Translation:
    """Translate universal parameters into the arguments of a backend's load and generation calls.

    ``engine_version`` is that of the package which the matrix names as the backend's ``engine``;
    None, or one that is no version, stands for the checked one. ``device`` is auto, cpu or cuda,
    ``flow`` one of the backend's ways of running a model, None for its default.
    A backend that the matrix does not know raises a ConfigError. The simulated backend takes the
    universal parameters as they are.
    """
    if is_simulated(backend):
        return Translation({"dtype": parameters["fp_precision"]}, {}, (), (), ())
    known = matrix()["backends"]
    if backend not in known:
        raise ConfigError([f"backend: found {backend!r}, allowed {', '.join(known)}"])
    work = _Work(parameters, backend, _version(engine_version, known[backend]), device, flow)
    work.check_backend()
    for row in _rows():
        if "feature" in row:
            work.set_arguments(work.entry(row), None)
        elif _applies(row, parameters):
            work.translate_row(row)
    work.check_values()
    return Translation(
        work.load, work.generate, tuple(work.notes), tuple(work.conflicts), tuple(work.refusals)
    )


def merge_loads(translations: Sequence[Translation]) -> dict[str, Any]:
    """Return the load arguments that serve all workloads of a cell, loaded once.

    The room for concurrent requests is the largest that any workload needs, and the engine's seed
    the first one's (each request carries its own). Any other difference is a ConfigError.
    """
    merged = copy.deepcopy(translations[0].load)
    problems = []
    for other in translations[1:]:
        for key, value in other.load.items():
            if key in ("max_num_seqs", "max_batch_size"):
                merged[key] = max(merged[key], value)
            elif key != "seed" and merged[key] != value:
                problems.append(
                    f"workloads: {key} is {_show(merged[key])} in one workload and {_show(value)} "
                    "in another, but an engine is loaded once for all; give them the same"
                )
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return merged


# a condition is (holds, what to say where it doesn't); a row's `only_when` names one

CONDITIONS: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {
    "sampling": (lambda p: not is_greedy(p), "decoding is greedy"),
    "dynamic": (
        lambda p: p["batching"]["strategy"] == "dynamic",
        "batching.strategy is not dynamic",
    ),
    "sharded": (lambda p: p["sharding"]["strategy"] != "none", "sharding.strategy is none"),
}

# a conversion takes (value, all parameters) and gives the native value, or OMIT to pass nothing

OMIT = object()

CONVERSIONS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "identity": lambda value, p: value,
    "auto": lambda value, p: "auto",
    "never": lambda value, p: False,
    "minus_one_to_zero": lambda value, p: 0 if value == -1 else value,
    "zero_to_minus_one": lambda value, p: -1 if value == 0 else value,
    "one_when_greedy": lambda value, p: 1 if is_greedy(p) else max(value, 0),
    "zero_when_greedy": lambda value, p: 0.0 if is_greedy(p) else value,
    "sampling": lambda value, p: not is_greedy(p),
    "forces_length": lambda value, p: value == p["max_output_tokens"],
    "num_devices": lambda value, p: p["sharding"]["num_devices"],
    "when_not_zero": lambda value, p: value if value else OMIT,
    "fp8_per_tensor": lambda value, p: "fp8_per_tensor",
    "bitsandbytes_name": lambda value, p: "bitsandbytes" if value else OMIT,
    "when_true": lambda value, p: True if value else OMIT,
    "bitsandbytes_8bit_config": lambda value, p: {"load_in_8bit": True} if value else OMIT,
    "bitsandbytes_4bit_config": lambda value, p: (
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": p["fp_precision"],
        }
        if value
        else OMIT
    ),
}


class _Work:
    """The state of one translation: what is resolved so far, and what there is to say."""

    def __init__(
        self,
        parameters: dict[str, Any],
        backend: str,
        version: Version,
        device: str,
        flow: str | None,
    ):
        self.parameters = parameters
        self.backend = backend
        self.about = matrix()["backends"][backend]
        self.version = version
        self.device = device
        self.flow = flow or next(iter(flows(backend)), None)
        self.load: dict[str, Any] = copy.deepcopy(self.about["load"])
        self.generate: dict[str, Any] = {}
        self.notes: list[Note] = []
        self.conflicts: list[Note] = []
        self.refusals: list[Note] = []

    def check_backend(self) -> None:
        """Refuse a device that the backend can't run on, or a flow that it doesn't have."""
        name, known = self.about["name"], flows(self.backend)
        if "flow" in self.load or self.flow != next(iter(known), None):
            self.load["flow"] = self.flow
        if self.flow not in (known or (None,)):
            allowed = ", ".join(known) or f"none, {name} has but one way"
            message = f"flow: found {self.flow}, allowed {allowed}"
            message += removed_flow(self.backend, self.flow)
            self.refusals.append(Note("flow", "unsupported", message))
        flow = known.get(self.flow, {})
        if "cuda" in (self.about.get("device"), flow.get("device")) and self.device != "cuda":
            what = f"flow {self.flow} of {name}" if "device" in flow else name
            message = f"{what} needs an NVIDIA GPU; the device here is {self.device}"
            self.refusals.append(Note("device", "unsupported", message))

    def entry(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the first entry of this backend that fits the version and the device."""
        return next(entry for entry in row[self.backend] if self._fits(entry))

    def _fits(self, entry: dict[str, Any]) -> bool:
        return not (
            ("since" in entry and self.version < Version(entry["since"]))
            or ("until" in entry and self.version >= Version(entry["until"]))
            or ("device" in entry and self.device not in ("auto", entry["device"]))
            or ("flow" in entry and self.flow != entry["flow"])
            or ("batches" in entry and not self._batches_continuously())
            or (
                "computes_in" in entry
                and self.parameters["fp_precision"] not in entry["computes_in"]
            )
        )

    def _batches_continuously(self) -> bool:
        return "continuous" in (self.flow, self.parameters["batching"]["strategy"])

    def translate_row(self, row: dict[str, Any]) -> None:
        """Put one parameter into native arguments, with its notes."""
        entry, path = self.entry(row), row["parameter"]
        value = _value(self.parameters, path)
        neutral = row.get("neutral", OMIT)
        if "only_when" in row and not CONDITIONS[row["only_when"]][0](self.parameters):
            self.note_dormant(row, value)
            if self.about["dormant"] == "neutral":
                self.set_arguments(entry, neutral)
            return
        if "planned" in entry:
            text = f"{_name(row, value)} is planned: {entry['planned']}"
            self.refusals.append(Note(path, "unsupported", text))
        if entry["status"] == "unsupported":
            if value != neutral:
                self.object(row, entry, value)
            return
        if not _within(entry, value):
            self.object(row, entry, value)
            value = neutral
        native = self.set_arguments(entry, value)
        self.note_mapping(row, entry, value, native)

    def set_arguments(self, entry: dict[str, Any], value: Any) -> dict[str, Any]:
        """Convert a value into the entry's native arguments, set them, and give them back."""
        native = {}
        for target, call in ((self.load, "load"), (self.generate, "generate")):
            for argument, conversion in entry.get(call, {}).items():
                converted = CONVERSIONS[conversion](value, self.parameters)
                if converted is not OMIT:
                    target[argument] = native[argument] = converted
        return native

    def object(self, row: dict[str, Any], entry: dict[str, Any], value: Any) -> None:
        """Record that the backend does not support a value: a refusal or a conflict."""
        about, where = self.about, f"{self.about['engine']} {self.version}"
        if any("device" in other for other in row[self.backend]):
            where += f" on {self.device}"
        if any("flow" in other for other in row[self.backend]):
            where += f", flow {self.flow}"
        if "batches" in entry:
            where += ", continuous batching"
        if any("computes_in" in other for other in row[self.backend]):
            where += f" computing in {self.parameters['fp_precision']}"
        text = f"{_name(row, value)} is not supported by {about['name']} ({where})"
        remedy = entry.get("remedy") or f"Allowed is {_limits(entry)}."
        target = self.refusals if row.get("refuses") else self.conflicts
        target.append(Note(row["parameter"], "unsupported", f"{text}. {remedy}"))

    def note_dormant(self, row: dict[str, Any], value: Any) -> None:
        """Say that a set parameter has no effect; a temperature of 0 is itself the cause."""
        path = row["parameter"]
        if value == row.get("neutral") or (path == "decoder.temperature" and value == 0):
            return
        if path == "decoder.top_k" and value == -1:
            return
        text = f"{path} {_show(value)} has no effect: {CONDITIONS[row['only_when']][1]}"
        self.notes.append(Note(path, "no effect", text))

    def note_mapping(
        self, row: dict[str, Any], entry: dict[str, Any], value: Any, native: dict[str, Any]
    ) -> None:
        """Say how a value was passed where it was not passed as it is."""
        path, status, engine = row["parameter"], entry["status"], self.about["name"]
        passed = ", ".join(f"{key}={_show(item)}" for key, item in native.items())
        if status == "mapped" and any(item != value for item in native.values()):
            text = f"{path} {_show(value)} becomes {passed} for {engine}"
        elif status == "hint":
            text = f"{path} {_show(value)} is a hint for {engine}"
            text += f", passed as {passed}" if passed else ""
        elif status == "implicit" and value is not None:
            text = f"{path} {_show(value)} is not passed to {engine}"
        else:
            return
        text += f". {entry['note']}" if "note" in entry else ""
        self.notes.append(Note(path, status, text))

    def check_values(self) -> None:
        """Object to values that the matrix doesn't know, and to contradictions."""
        for path, allowed in _listed_values().items():
            value = _value(self.parameters, path)
            if value is not None and value not in allowed:
                text = f"{path}: found {_show(value)}, allowed {', '.join(allowed)}"
                self.refusals.append(Note(path, "unsupported", text))
        decoder, quantization = self.parameters["decoder"], self.parameters["quantization"]
        if decoder["do_sample"] and decoder["temperature"] == 0:
            text = (
                "decoder.do_sample true contradicts decoder.temperature 0, which is greedy "
                "decoding. Set do_sample to false, or a temperature above 0."
            )
            self.conflicts.append(Note("decoder.do_sample", "unsupported", text))
        if quantization["load_in_4bit"] and quantization["load_in_8bit"]:
            text = "quantization.load_in_4bit and load_in_8bit exclude each other. Set one of them."
            self.refusals.append(Note("quantization", "unsupported", text))


def _rows() -> Iterator[dict[str, Any]]:
    for section in matrix()["sections"]:
        yield from section["rows"]


@functools.cache
def _listed_values() -> dict[str, tuple[str, ...]]:
    """Return the known values of each parameter that the matrix lists value by value."""
    values: dict[str, tuple[str, ...]] = {}
    for row in _rows():
        if "value" in row:
            values[row["parameter"]] = (*values.get(row["parameter"], ()), row["value"])
    return values


def _applies(row: dict[str, Any], parameters: dict[str, Any]) -> bool:
    return "value" not in row or row["value"] == _value(parameters, row["parameter"])


def _value(parameters: dict[str, Any], path: str) -> Any:
    """Return the value at a dotted path; of traffic it is the mode, none being the offline one.

    Only a precision that quantises by name has a scheme; of others it is None.
    """
    value: Any = parameters
    for key in path.split("."):
        value = value.get(key) if key == "scheme" else value[key]
    if path == "traffic_simulation":
        return "offline" if value is None else value.get("mode", "offline")
    return value


def _version(text: str | None, about: dict[str, Any]) -> Version:
    try:
        return Version(text or about["checked"])
    except InvalidVersion:
        return Version(about["checked"])


def _within(entry: dict[str, Any], value: Any) -> bool:
    return not (
        ("above" in entry and value <= entry["above"])
        or ("least" in entry and value < entry["least"])
        or ("most" in entry and value > entry["most"])
    )


def _limits(entry: dict[str, Any]) -> str:
    words = {"above": "above", "least": "at least", "most": "at most"}
    return " and ".join(f"{word} {entry[key]}" for key, word in words.items() if key in entry)


def _name(row: dict[str, Any], value: Any) -> str:
    name = f"{row['parameter']} {_show(value)}"
    return f"{row['alias']} ({name})" if "alias" in row else name


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
