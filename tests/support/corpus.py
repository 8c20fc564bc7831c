"""Apply the edits of ``tests/recorded/edits.yaml`` to a sweep, and audit and judge what is left."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from support import fault_sweeps, simulated_runs
from support.project import ROOT

from llm_energy.analysis.audit import audit
from llm_energy.analysis.validate import validate
from llm_energy.core.files import read_json, sha256_file, sha256_json, write_json
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.records import Verdict
from llm_energy.records.files import paths
from llm_energy.records.plan import files_of

EDITS = yaml.safe_load((ROOT / "tests" / "recorded" / "edits.yaml").read_text(encoding="utf-8"))
ARCHIVES = ROOT / "docs" / "measurements"
OF_ARCHIVE = {"vllm": "h100-llama-3.1-8b-vllm", "compiled": "h100-llama-3.1-8b-compiled"}
TIMES = ("start_s", "end_s", "monotonic_s", "pass_ends_s", "arrival_s", "first_token_s")
TIMES += ("last_token_s", "service_start_s", "edge_s")


def lay_out(base: str, folder: Path) -> Path:
    """Lay out a base below ``folder`` and return the path of its plan."""
    if base in OF_ARCHIVE:
        with tarfile.open(ARCHIVES / f"{OF_ARCHIVE[base]}.tar.gz") as content:
            content.extractall(folder, filter="data")
    else:
        _simulate(folder, free=base == "free")
    (plan,) = folder.glob("results/*/plan.json")
    return plan


def _simulate(folder: Path, free: bool) -> None:
    setting = fault_sweeps.healthy_setting(7)
    changes = {"batch_size": 8, "requests": 48, "output_tokens": 128, "least_tokens": 128}
    changes |= {"least_tokens": 1} if free else {}
    setting = fault_sweeps.replace(
        setting, strategy="dynamic", devices=1, protocol={"window_min_duration_s": 45.0}, **changes
    )
    repeats = []
    for repeat in (1, 2, 3):
        host = SimulatedHost(setting.truth, 70 + repeat)
        trace = folder / f"r{repeat:02d}.trace.csv.gz"
        spec = setting.spec(repeat)
        asked = {spec.workloads[0].id: setting.prompts()}
        measurement, found = simulated_runs.run_with_steps(host, spec, asked, trace)
        repeats.append(simulated_runs.with_step_file(measurement, found, folder / trace.name))
        host.close()
    with contextlib.chdir(folder):
        _, places = fault_sweeps.write_sweep(repeats, setting, Path())
        for place in places:
            for beside in paths.BESIDE:
                Path(beside(place).name).rename(beside(place))


class Sweep:
    """A sweep that edits are applied to."""

    def __init__(self, plan: Path) -> None:
        self.plan_path, self.plan = plan, read_json(plan)
        self.cell = self.plan["cells"][0]
        self.root = plan.parents[2]

    def path(self, name: str) -> Path:
        """Return the path of a repeat of the first cell, or of the prompts."""
        if name == "prompts":
            found = self.plan_path.parent.glob("prompts/*.json")
            return next(path for path in found if "request" not in path.name)
        places = dict(zip(self.cell["repeats"], self.cell["measurements"], strict=True))
        return self.root / places[name]

    def apply(self, edit: dict[str, Any]) -> None:
        """Apply one operation."""
        path = self.path(edit["file"])
        if "copy" in edit:
            self._copy(path, edit)
        data = read_json(path)
        if "shift_s" in edit:
            _shift(data, edit["shift_s"])
        if "at" in edit:
            for holder, key in list(_places(data, edit["at"].split("."))):
                holder[key] = _changed(holder, key, edit, data)
        if "lose_pass" in edit:
            _lose_pass(data, edit)
        if "readings" in edit:
            _count_otherwise(data, **edit["readings"])
        if "first_part" in edit:
            for holder, key in _places(data, edit["first_part"].split(".")):
                steady = holder[key]
                steady["output_tokens"] //= len(steady["intervals"])
                steady["intervals"] = steady["intervals"][:1]
        if "joules_of" in edit:
            other = read_json(self.path(edit["joules_of"]))
            joules = {w["workload"]: w["interval"]["energy"] for w in other["windows"]}
            for window in data["windows"]:
                window["interval"]["energy"] = joules[window["workload"]]
        trace = paths.power_trace(path)
        for name, beside in (("lose_trace", trace), ("lose_steps", paths.steps(path))):
            if edit.get(name):
                beside.unlink()
        if "steps" in edit:
            _multiply_steps(paths.steps(path), edit["steps"])
        if "power" in edit:
            _scale_trace(trace, edit["power"])
        if edit.get("rehash"):
            data["meter"]["trace_sha256"] = sha256_file(trace)
            if "steps" in data:
                data["steps"]["sha256"] = sha256_file(paths.steps(path))
        if edit.get("respec"):
            data["spec_sha256"] = sha256_json(data["spec"])
            write_json(
                paths.spec(self.plan_path.parent, self.cell["cell"], edit["file"]), data["spec"]
            )
        if "backend" in edit:
            self._as_backend(data, edit["backend"])
        write_json(path, data)

    def _copy(self, path: Path, edit: dict[str, Any]) -> None:
        source = self.path(edit["copy"])
        for beside in paths.BESIDE:
            if beside(source).exists():
                shutil.copy(beside(source), beside(path))
        data = read_json(source)
        if edit.get("as", True):
            data["spec"]["repeat"] = int(edit["file"][1:])
            data["spec_sha256"] = sha256_json(data["spec"])
        write_json(path, data)

    def _as_backend(self, data: dict[str, Any], backend: str) -> None:
        """List the repeat again, as one of a cell of another backend."""
        cell = copy.deepcopy(self.cell)
        own = cell["backend"]
        name = cell["cell"].replace(f"--{own}--", f"--{backend}--")
        other = copy.deepcopy(data)
        other["spec"] |= {"cell": name, "backend": backend}
        other["spec_sha256"] = sha256_json(other["spec"])
        specs, places = files_of(self.plan["sweep"], name, backend, cell["repeats"])
        cell |= {"cell": name, "backend": backend, "specs": specs, "measurements": places}
        self.plan["cells"].append(cell)
        write_json(self.plan_path, self.plan)
        place = self.root / places[data["spec"]["repeat"] - 1]
        place.parent.mkdir(parents=True)
        write_json(place, other)

    def verdicts(self) -> list[Verdict]:
        """Audit and judge the sweep, where it lies."""
        asked = (self.plan["sweep"], self.cell["backend"], self.plan_path)
        found = audit(*asked)
        return list(validate(*asked, audit=found).verdicts)


def _places(value: Any, keys: list[str]) -> Iterator[tuple[Any, Any]]:
    """Yield each holder and key that a path leads to."""
    first, *rest = keys
    if first == "*":
        found = list(value) if isinstance(value, dict) else list(range(len(value)))
    elif isinstance(value, list) and first.isdigit():
        found = [int(first)]
    elif isinstance(value, list):
        names = [one.get("workload") or one.get("name") for one in value]
        found = [number for number, name in enumerate(names) if name == first]
    else:
        found = [first]
    assert found, f"no {first}"
    for key in found:
        if not rest:
            yield value, key
        elif value[key] is not None:
            yield from _places(value[key], rest)


def _changed(holder: Any, key: Any, edit: dict[str, Any], data: dict[str, Any]) -> Any:
    value = holder[key]
    for name, change in CHANGES.items():
        if name in edit:
            return change(value, edit, data, holder)
    raise ValueError(f"no operation in {edit}")


def _multiply(value: Any, edit: dict[str, Any], data: Any, holder: Any) -> Any:
    if isinstance(value, list):  # a column of requests
        rows = data["spec"]["workloads"][0]["requests"] if "after" in edit else 0
        return [v if n < rows else round(v * edit["multiply"]) for n, v in enumerate(value)]
    if value is None:
        return None
    return type(value)(value * edit["multiply"])


def _scale(value: Any, edit: dict[str, Any], data: Any, holder: Any) -> Any:
    """Scale the joules of both sensors of an interval."""
    for part in (*value["energy"], *value["trace"]):
        if part["energy_j"] is not None:
            part["energy_j"] *= edit["scale"]
    for part in value["trace"]:
        if part["max_power_w"] is not None:
            part["max_power_w"] = round(part["max_power_w"] * edit["scale"], 6)
    return value


def _add_power(value: Any, edit: dict[str, Any], data: Any, holder: Any) -> Any:
    return None if value is None else value + edit["add_w"] * 30.5  # the windows' length in s


CHANGES: dict[str, Callable[[Any, dict[str, Any], Any, Any], Any]] = {
    "multiply": _multiply,
    "add": lambda value, edit, data, holder: value + edit["add"],
    "set": lambda value, edit, data, holder: edit["set"],
    "repeat": lambda value, edit, data, holder: value * edit["repeat"],
    "scale": _scale,
    "add_w": _add_power,
}


def _shift(value: Any, seconds: float) -> None:
    """Shift every time of a record, the calendar's with the monotonic clock's."""
    if isinstance(value, list):
        for one in value:
            _shift(one, seconds)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key in TIMES and isinstance(one, list):
                value[key] = [None if t is None else t + seconds for t in one]
            elif key in TIMES and one is not None:
                value[key] = one + seconds
            elif key == "utc":
                value[key] = _later(one, seconds)
            elif isinstance(one, (dict, list)):
                _shift(one, seconds)


def _later(utc: str, seconds: float) -> str:
    from datetime import datetime, timedelta

    return (datetime.fromisoformat(utc) + timedelta(seconds=seconds)).isoformat()


def _lose_pass(data: dict[str, Any], edit: dict[str, Any]) -> None:
    ((windows, key),) = _places(data, edit["lose_pass"].split("."))
    window = windows[key]
    rows = len(window["requests"]["request_id"]) // window["passes"]
    window["passes"] -= 1
    for name, column in window["requests"].items():
        window["requests"][name] = column[:-rows] if column else column
    if not edit.get("keep_end"):
        window["pass_ends_s"] = window["pass_ends_s"][:-1]
    if edit.get("cut"):
        interval, steady = window["interval"], window["steady_state"]
        left = (window["pass_ends_s"][-1] - interval["start_s"]) / (
            interval["end_s"] - interval["start_s"]
        )
        interval["end_s"] = window["pass_ends_s"][-1]
        _scale(interval, {"scale": left}, None, None)
        steady["output_tokens"] -= steady["output_tokens"] // len(steady["intervals"])
        steady["intervals"].pop()


def _count_otherwise(
    data: dict[str, Any], scale: float, window: str | None = None, rest_before: bool = False
) -> None:
    """Scale what the GPUs' counters counted, in one window or throughout, and all joules with it.

    What a window then lacks is in no reading, or with ``rest_before`` in those before the window.
    """
    windows = {one["workload"]: one["interval"] for one in data["windows"]}
    for counter in (one for one in data["readings"] if one["component"] == "gpu"):
        edges, values = counter["edge_s"], counter["value"]
        begin_s, end_s = edges[0], edges[-1]
        if window is not None:
            begin_s, end_s = windows[window]["start_s"], windows[window]["end_s"]
        first, last = edges.index(begin_s), edges.index(end_s)
        low, high = values[first], values[last]
        fixed = high if rest_before else low
        for row, value in enumerate(values):
            if first <= row <= last:
                values[row] = fixed + round((value - fixed) * scale)
            elif row > last and not rest_before:
                values[row] = value - round((high - low) * (1 - scale))
        for interval in _intervals(data):
            for part in interval["energy"]:
                if part["device"] == counter["device"]:
                    a, b = (edges.index(interval[name]) for name in ("start_s", "end_s"))
                    part["energy_j"] = (values[b] - values[a]) / 1e3


def _intervals(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every interval in a record."""
    if isinstance(value, dict) and "energy" in value:
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _intervals(one)


def _multiply_steps(path: Path, factors: dict[str, float]) -> None:
    """Multiply columns of the steps of every window."""
    data = json.loads(gzip.decompress(path.read_bytes()))
    for table in data["windows"].values():
        for name, factor in factors.items():
            table[name] = [value * factor for value in table[name]]
    path.write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))


def _scale_trace(path: Path, factor: float) -> None:
    """Scale every power of a trace's file."""
    first, columns, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    place = columns.split(",").index("power_w")
    rows = [line.split(",") for line in lines]
    for row in rows:
        row[place] = str(float(row[place]) * factor) if row[place] else ""
    text = "\n".join([first, columns, *(",".join(row) for row in rows)]) + "\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
