"""What the validate stage says of whole sweeps on disk, healthy and broken."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import audit
import pytest
import validate as script
from support import builders
from support.project import ROOT

from llm_energy.analysis import validate as validate_module
from llm_energy.analysis.validate import validate
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json, sha256_file, sha256_json, write_json
from llm_energy.records import SCHEMA_VERSION, Audit, Verdicts, read_record, write_record


def repeats(*changes: dict, **spec) -> list:
    """Return one measurement a repeat, each with its changes."""
    return [
        builders.measurement(builders.spec(repeat=k, **spec), **change)
        for k, change in enumerate(changes, 1)
    ]


def judge(root: Path, measurements, grid=None, backend="pytorch"):
    return validate("test", backend, builders.write_sweep(root, measurements, grid)).verdicts


def path_of(root: Path, repeat: int = 1, precision: str = "float32") -> Path:
    cell = f"m--pytorch--{precision}"
    return root / f"results/test/pytorch/measurements/{cell}/r{repeat:02d}.json"


def ids(verdict, severity=None) -> set[str]:
    return {f.id for f in verdict.flags if severity in (None, f.severity)}


def test_a_healthy_sweep_is_valid(tmp_path):
    found = judge(tmp_path, repeats({}, {}))
    assert [(v.repeat, v.workload, v.outcome, v.verdict) for v in found] == [
        (1, "b1", "ok", "valid"),
        (2, "b1", "ok", "valid"),
    ]
    assert tmp_path / found[0].measurement == path_of(tmp_path)
    assert found[0].measurement_sha256 == sha256_file(path_of(tmp_path))
    assert ids(found[0]) == {"M11", "M12", "M22"}


def test_every_workload_has_its_own_verdict(tmp_path):
    spec = {"workloads": (builders.workload("b1"), builders.workload("b8"))}
    broken, healthy = builders.window("b8", 1080.0), builders.window("b1", 1020.0)
    broken = replace(broken, requests=builders.request_table(1080.0, finish_reason=("abort",) * 4))
    found = judge(tmp_path, repeats({"windows": (healthy, broken)}, {}, **spec))
    assert [(v.workload, v.verdict) for v in found[:2]] == [("b1", "valid"), ("b8", "invalid")]
    assert found[1].reason == "E19 failed requests"
    # One repeat of b8 is left, which is a warning for it and nothing to b1.
    assert [ids(v, "warning") for v in found] == [set(), set(), set(), {"P03"}]


def test_a_missing_measurement_is_a_row(tmp_path):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    path_of(tmp_path, 2).unlink()
    found = validate("test", "pytorch", plan).verdicts
    assert (found[1].outcome, found[1].verdict, found[1].measurement) == (
        "missing",
        "invalid",
        None,
    )
    assert ids(found[1]) == {"P04"}
    assert ids(found[0], "warning") == {"P03"}
    assert found[0].verdict == "degraded"


def test_an_unsupported_cell_is_a_row_for_each_workload(tmp_path):
    grid = builders.plan([("pytorch", "int4!")], workloads=("b1", "b8"))
    found = judge(tmp_path, [], grid)
    assert [(v.repeat, v.workload, v.outcome, v.reason) for v in found] == [
        (0, "b1", "unsupported", "pytorch has no int4"),
        (0, "b8", "unsupported", "pytorch has no int4"),
    ]
    assert {v.verdict for v in found} == {"invalid"}


def test_a_repeat_that_ended_early_keeps_what_it_finished(tmp_path):
    spec = {"workloads": (builders.workload("b1"), builders.workload("b8"))}
    oom = builders.window(
        "b8", outcome="oom", reason="out of memory", interval=None, requests=None, passes=0
    )
    first = builders.window(start_s=2020.0)
    early = {"windows": (first,), "outcome": "failed", "reason": "killed"}
    found = judge(tmp_path, repeats({"windows": (builders.window(), oom)}, early, **spec))
    assert [(v.outcome, v.reason, v.verdict) for v in found] == [
        ("ok", None, "valid"),
        ("oom", "out of memory", "invalid"),
        ("ok", None, "valid"),
        ("failed", "killed", "invalid"),
    ]


def left_out(**changes) -> dict:
    return {"windows": (), "outcome": "not_needed", "reason": "narrow enough", **changes}


def test_a_repeat_that_was_not_needed_is_no_fault(tmp_path):
    found = judge(tmp_path, repeats({}, {}, left_out()))
    assert [(v.outcome, v.reason, v.verdict, ids(v, "warning")) for v in found] == [
        ("ok", None, "valid", set()),
        ("ok", None, "valid", set()),
        ("not_needed", "narrow enough", "valid", set()),
    ]


def test_a_window_that_was_not_needed_is_no_fault_of_the_others(tmp_path):
    spec = {"workloads": (builders.workload("b1"), builders.workload("b8"))}
    without = builders.window("b8", interval=None, requests=None, outcome="not_needed", reason="x")
    both = (builders.window(start_s=3020.0), without)
    found = judge(tmp_path, repeats({}, {}, {"windows": both}, **spec))
    assert [(v.outcome, v.verdict) for v in found[4:]] == [("ok", "valid"), ("not_needed", "valid")]
    assert all("P03" not in ids(v) for v in found)


def test_a_repeat_that_turns_out_to_be_needed_is_missed(tmp_path):
    aborted = builders.request_table(2020.0, finish_reason=("abort",) * 4)
    invalid = {"windows": (builders.window(start_s=2020.0, requests=aborted),)}
    found = judge(tmp_path, repeats({}, invalid, left_out()))
    flag = next(f for f in found[0].flags if f.id == "P03")
    assert flag.evidence == {"usable": [1], "planned": [1, 2]}


def test_a_repeat_without_any_window_gives_its_outcome(tmp_path):
    found = judge(tmp_path, repeats({"windows": (), "outcome": "oom", "reason": "no memory"}))
    assert [(v.outcome, v.reason) for v in found] == [("oom", "no memory")]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00\x01", "1e999"])
def test_a_file_that_is_no_measurement_is_invalid(tmp_path, content):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    path_of(tmp_path).write_text(content)
    found = validate("test", "pytorch", plan).verdicts
    assert (found[0].outcome, found[0].verdict) == ("failed", "invalid")
    assert ids(found[0]) == {"P07"}
    assert found[0].reason
    assert found[0].measurement_sha256 == sha256_file(path_of(tmp_path))
    assert found[1].outcome == "ok"


def test_all_that_breaks_the_schema_is_told(tmp_path):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    data = read_json(path_of(tmp_path)) | {"extra": 1}
    data["windows"][0]["passes"] = "two"
    write_json(path_of(tmp_path), data)
    reason = validate("test", "pytorch", plan).verdicts[0].reason
    assert "'extra' was unexpected" in reason
    assert "$.windows[0].passes: 'two' is not of type 'integer'" in reason


SCORED = {"text": "t", "text_sha256": "a", "token_ids_sha256": "b", "total_nll": 5.0}


def asking(**parameters):
    """Change what the spec asks for, and the hash of the spec with it."""

    def change(data: dict) -> None:
        data["spec"]["workloads"][0]["parameters"].update(parameters)
        data["spec_sha256"] = sha256_json(data["spec"])

    return change


def of_version_3(data: dict) -> None:
    data["spec"]["protocol"]["version"] = 3
    data["spec_sha256"] = sha256_json(data["spec"])


UNEVEN = {"component": "gpu", "device": "GPU-1", "unit": "mJ", "wraps_at": None}
UNEVEN |= {"edge_s": [1.0], "start_s": [1.0], "end_s": [1.0], "value": []}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["spec"].update(seed=99), "not the one that spec_sha256 was taken of"),
        (lambda d: d["clock"].update(utc="noon"), "clock.utc is 'noon'"),
        (lambda d: d["carbon_intensity"].update(g_per_kwh="x"), "g_per_kwh is 'x', not a number"),
        (lambda d: d["carbon_intensity"].update(g_per_kwh=True), "g_per_kwh is True, not a number"),
        (
            lambda d: d["host"]["gpus"][0].update(uuid=["a"]),
            "host.gpus[0].uuid: ['a'] is not of type 'string'",
        ),
        (
            lambda d: d.update(quality=SCORED | {"tokens": 2, "total_nll": -1.0}),
            "quality.total_nll is -1.0, allowed 0 or more",
        ),
        *(
            (
                lambda d, v=value: d["windows"][0]["interval"].update(end_s=v),
                f"windows[0].interval.end_s is {value!r:.40}, allowed 0 or a size from 1e-99 to",
            )
            for value in (1e300, -1e100, 5e-324, 10**200)
        ),
        (
            lambda d: d.update(quality=SCORED | {"tokens": 0}),
            "quality.total_nll is of 0 tokens",
        ),
        (asking(batching=None), "b1: parameters.batching.batch_size is None, allowed int"),
        (asking(quantization=None), "b1: parameters.quantization is None, allowed dict"),
        (
            lambda d: d["spec"].update(repeat=2),
            "repeat 2, the plan expects m--pytorch",
        ),
        (lambda d: d["spec"].update(cell="other"), "it holds other repeat 1"),
        (lambda d: d["spec"].update(schema_version=2), "spec.schema_version is 2"),
        (of_version_3, "deep_idle: gpu GPU-1 has measured joules and no raw readings"),
        (
            lambda d: d.update(readings=[UNEVEN]),
            "readings[0]: readings of gpu GPU-1: columns of unequal length",
        ),
        (lambda d: d["windows"].append(d["windows"][0]), "two windows of one workload: b1, b1"),
        (lambda d: d["windows"][0].update(workload="b9"), "a workload that the spec has not: b9"),
        (lambda d: d["windows"][0].update(interval=None), "ok without interval or requests"),
        (lambda d: d["windows"][0].update(requests=None), "ok without interval or requests"),
        (lambda d: d["windows"][0]["requests"]["arrival_s"].pop(), "columns of unequal length"),
    ],
)
def test_a_measurement_that_contradicts_itself_is_invalid(tmp_path, change, told):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    data = read_json(path_of(tmp_path))
    change(data)
    write_json(path_of(tmp_path), data)
    verdict = validate("test", "pytorch", plan).verdicts[0]
    assert ids(verdict) == {"P07"}
    assert told in verdict.reason


def test_a_measurement_of_an_older_spec_is_invalid(tmp_path):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    spec = replace(builders.spec(), seed=99)
    write_record(tmp_path / f"results/test/specs/{spec.cell}/r01.json", spec)
    found = validate("test", "pytorch", plan).verdicts
    assert (ids(found[0], "invalid"), ids(found[1], "invalid")) == ({"P06"}, set())


def test_a_spec_that_lacks_a_newer_key_is_the_one_that_was_obeyed(tmp_path):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    for repeat, changes in ((1, {}), (2, {"seed": 99})):
        path = tmp_path / f"results/test/specs/{builders.spec().cell}/r{repeat:02d}.json"
        spec = read_json(path)
        del spec["sharding"]
        write_json(path, spec | changes)
    found = validate("test", "pytorch", plan).verdicts
    assert [ids(verdict, "invalid") for verdict in found] == [set(), {"P06"}]


def test_measurements_of_older_weights_or_prompts_are_invalid(tmp_path):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    write_record(
        tmp_path / "results/models/m/manifest.json", builders.manifest(weights_sha256="new")
    )
    found = validate("test", "pytorch", plan).verdicts
    assert [ids(v, "invalid") for v in found] == [{"P06"}, {"P06"}]
    evidence = next(f.evidence for f in found[0].flags if f.id == "P06")
    assert evidence == {"weights_sha256": {"measured": "w" * 64, "now": "new"}}


def test_archived_measurements_are_judged_without_the_files_around_them(tmp_path):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    (tmp_path / "results/models/m/manifest.json").unlink()
    (tmp_path / "results/test/prompts/m.json").unlink()
    for path in (tmp_path / "results/test/specs").rglob("*.json"):
        path.unlink()
    assert [v.verdict for v in validate("test", "pytorch", plan).verdicts] == ["valid", "valid"]


def test_overlap_takes_both_windows_out(tmp_path):
    found = judge(tmp_path, repeats({}, {"start_s": 1010.0}, {}))
    assert [ids(v, "invalid") for v in found] == [{"P01"}, {"P01"}, set()]
    assert ids(found[2], "warning") == {"P03"}


STALE = {"prompts_sha256": {"b1": "x" * 64}}


def slipped(k: int) -> dict:
    """Return a repeat whose sensor takes mJ for J."""
    start_s = 1000.0 * k + 20
    joules = builders.energy(builders.WINDOW_S, gpu_w=1000 * builders.GPU_W)
    interval = builders.interval("window", start_s, builders.WINDOW_S, joules)
    return {"windows": (builders.window(start_s=start_s, interval=interval),)}


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (STALE, "P06"),
        (slipped(1), "M21"),
        (STALE | {"host": builders.host(hostname="another", boot_id="another")}, "P06"),
        (STALE | {"host": builders.host(packages={"torch": "1.0"})}, "P06"),
    ],
    ids=["other prompts", "other unit", "other host", "other software"],
)
def test_a_stale_repeat_costs_only_itself(tmp_path, first, why):
    found = judge(tmp_path, repeats(first, {}, {}))
    assert why in ids(found[0], "invalid")
    assert [v.verdict for v in found] == ["invalid", "degraded", "degraded"]
    assert [ids(v, "warning") for v in found[1:]] == [{"P03"}, {"P03"}]


def test_an_invalid_window_was_open_on_the_host_all_the_same(tmp_path):
    found = judge(tmp_path, repeats(STALE, {"start_s": 1010.0}, {}))
    assert [ids(v, "invalid") for v in found] == [{"P06", "P01"}, {"P01"}, set()]


def test_other_backends_are_left_to_their_own_verdicts(tmp_path):
    both = [*repeats({}, {}), *repeats({}, {}, backend="vllm")]
    found = judge(tmp_path, both, backend="vllm")
    assert {v.cell for v in found} == {"m--vllm--float32"}


def test_the_order_is_that_of_the_plan(tmp_path):
    both = [*repeats({}, {}, precision="int8"), *repeats({}, {}, precision="bfloat16")]
    both = [replace(m, spec=m.spec) for m in both]
    found = judge(tmp_path, both)
    assert [(v.cell.split("--")[2], v.repeat) for v in found] == [
        ("int8", 1),
        ("int8", 2),
        ("bfloat16", 1),
        ("bfloat16", 2),
    ]


@pytest.mark.parametrize(("sweep", "backend"), [("other", "pytorch"), ("test", "vllm")])
def test_another_sweep_or_backend_than_the_plans_is_an_error(tmp_path, sweep, backend):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    with pytest.raises(LlmEnergyError, match=r"plan.json: it plans sweep 'test' with backends py"):
        validate(sweep, backend, plan)


ARCHIVE = ROOT / "docs" / "measurements" / "h100-llama-3.1-8b-bfloat16.tar.gz"


def test_real_measurements_of_a_quiet_gpu_are_not_accused(tmp_path, monkeypatch):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    found = validate("h100-first", "pytorch", Path("results/h100-first/plan.json")).verdicts
    assert len(found) == 12
    # The third repeat did run on another GPU.
    assert {frozenset((f.id, f.severity) for f in v.flags) for v in found} == {
        frozenset({("M12", "note"), ("H10", "warning")})
    }


def test_a_number_beyond_all_bounds_is_damage(tmp_path):
    plan = builders.write_sweep(tmp_path, repeats({}))
    text = path_of(tmp_path).read_text()
    path_of(tmp_path).write_text(
        text.replace('"window_min_duration_s": 30.0', '"window_min_duration_s": 1e999')
    )
    (verdict,) = validate("test", "pytorch", plan).verdicts
    assert ids(verdict) == {"P07"}


def test_the_command_line(tmp_path, capsys):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    out = tmp_path / "results/test/pytorch/verdicts.json"
    arguments = ["--sweep", "test", "--backend", "pytorch", "--plan", str(plan)]
    audited = str(tmp_path / "audit.json")
    assert audit.main([*arguments, "--out", audited]) == 0
    arguments += ["--audit", audited]
    assert script.main([*arguments, "--out", str(out)]) == 0
    assert len(read_record(Verdicts, out).verdicts) == 2
    first = out.read_bytes()
    assert script.main([*arguments, "--out", str(out)]) == 0
    assert out.read_bytes() == first
    assert json.loads(first)["backend"] == "pytorch"


def test_the_command_line_tells_a_missing_plan_in_one_line(tmp_path, capsys):
    arguments = ["--sweep", "s", "--backend", "pytorch", "--plan", str(tmp_path / "plan.json")]
    write_record(tmp_path / "audit.json", Audit(SCHEMA_VERSION, "s", "pytorch", ()))
    arguments += ["--audit", str(tmp_path / "audit.json")]
    assert script.main([*arguments, "--out", str(tmp_path / "out.json")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/plan.json: no such file\n"
    assert not (tmp_path / "out.json").exists()


def test_what_no_check_foresaw_costs_one_measurement_and_no_other(tmp_path, monkeypatch):
    def flags_of(scope, case):
        if scope == "window" and case.measurement.spec.repeat == 1:
            raise ZeroDivisionError("division by zero")
        return ()

    monkeypatch.setattr(validate_module, "flags_of", flags_of)
    first, second = judge(tmp_path, repeats({}, {}))
    assert (first.outcome, second.outcome) == ("failed", "ok")
    assert first.reason.startswith("it could not be judged (ZeroDivisionError: division by zero)")
    assert first.measurement_sha256 == sha256_file(path_of(tmp_path))


@pytest.mark.parametrize("name", ["models/m/manifest.json", "test/prompts/m.json"])
@pytest.mark.parametrize("content", ["[]", "{", "{}"])
def test_a_broken_file_of_the_model_is_the_reason_of_its_rows(tmp_path, name, content):
    plan = builders.write_sweep(tmp_path, repeats({}, {}))
    (tmp_path / "results" / name).write_text(content)
    found = validate("test", "pytorch", plan).verdicts
    assert [verdict.outcome for verdict in found] == ["failed"] * 2
    assert all(f"results/{name}: " in verdict.reason for verdict in found)
