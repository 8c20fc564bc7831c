"""The JSON Schemas reject what the reader of records rejects, and nothing else."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema import RECORDS, main
from support import builders, comparison_example

from llm_energy import records
from llm_energy.core.errors import RecordError
from llm_energy.core.serialize import from_dict, to_dict
from llm_energy.publish.provenance import provenance
from llm_energy.publish.provenance.provenance import Provenance
from llm_energy.records import (
    SCHEMA_VERSION,
    Arrivals,
    ArrivalSet,
    Flag,
    TableSources,
    Verdicts,
)
from llm_energy.records.files import storage
from llm_energy.records.load_curve import Estimate, LoadCurves, LoadFit, LoadPoint
from llm_energy.records.phases import PhaseCost, PhasePoint, Phases, PhaseSplit, Price
from llm_energy.records.steps import StepFile, StepTable

EXAMPLES = {
    "spec": builders.spec(),
    "arrivals": ArrivalSet(
        1, "test", {"b1": Arrivals("trace", 1.0, 2.0, (0.5, 1.0), 2.0, 3, ((4, 5),))}
    ),
    "audit": records.Audit(
        1,
        "test",
        "pytorch",
        (
            records.AuditedWindow(
                *("c", 1, "w", "f" * 64, None, 4),
                (Flag("A04", "invalid", {"a": 1}, "Wait.", "passes"),),
            ),
        ),
    ),
    "measurement": builders.measurement(),
    "failure": records.Failure(1, "oom", "killed", 137, "logs/test/measure/c/r01.log"),
    "model-manifest": builders.manifest(),
    "plan": builders.plan([("pytorch", "float32"), ("vllm", "int4!")]),
    "prompt-request": records.PromptRequest(
        1,
        "m",
        {
            "b1": records.AskedPrompts(2, {"source": "builtin"}),
            "t": records.AskedTrace(1, {"source": "synthetic"}, ((4, 5),)),
        },
        records.QualitySettings(None, 512),
    ),
    "prompt-set": builders.prompt_set(),
    "verdicts": Verdicts(
        1,
        "test",
        "pytorch",
        (builders.verdict(flags=(Flag("M03", "note", {"a": 1}, "Wait.", "short"),)),),
    ),
    "metrics": builders.metrics_table([builders.metrics()], [builders.verdict()]),
    "aggregate": builders.aggregate(
        [builders.aggregate_row(excluded=((2, "oom"),)), builders.unusable_row()]
    ),
    "comparisons": comparison_example.example(),
    "table-sources": TableSources(1, "test", {"energy": {"c/w": (("c", "w"),)}}),
    "provenance": Provenance(
        1,
        "test",
        "0" * 40,
        False,
        {"pytorch": provenance.Lock("pytorch", "envs/pytorch.txt", "f" * 64)},
        {"results/test/plan.json": "f" * 64},
        {"energy": {"m--pytorch--float32/b1": (("m--pytorch--float32", "b1"),)}},
    ),
    "load": LoadCurves(
        1,
        "test",
        (LoadPoint("c", "w", "measured", ("gpu",), 0.5),),
        (
            LoadFit(
                "b",
                "c",
                "poisson",
                "measured",
                ("gpu",),
                ("w",),
                3,
                (1,),
                (2,),
                Estimate(1, 0.5, 1.5),
            ),
        ),
    ),
}
COST_J = records.Statistic(2, 1.0, 0.1, 0.5, 1.5)
EXAMPLES["phases"] = Phases(
    1,
    "test",
    (
        PhaseSplit(
            *("b", "c", 8, "static", "measured", ("gpu",)),
            (PhasePoint("w", 32, 1, COST_J, 1.0),),
            (1, 2),
            (3,),
            (PhaseCost("fit", "input", ((32, 1), (64, 1)), COST_J),),
            {"request": COST_J},
            alike=(("request", "input_token"),),
            prices=(Price(128, 128, COST_J),),
        ),
    ),
)
EXAMPLES["steps"] = StepFile(
    1, {"b1": StepTable((1.0,), (2.0,), (0,), (0,), (1,), (5,), (0,), (0,), (0,), (0,))}
)
ODD = (None, True, -1, 1.5, 1.0, 2, "", "text", [], {}, ["x"], [1, "x"], {"x": 1}, "measured")


def places(value, path=()):
    """Return the path of every value inside a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def changed(data, path, change):
    """Return a copy of ``data`` with ``change`` applied to what holds the last key of a path."""
    data = copy.deepcopy(data)
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return data


@st.composite
def mutated(draw, data):
    path = draw(st.sampled_from([path for path in places(data) if path]))
    kind = draw(st.sampled_from(("replace", "remove", "add")))

    def change(holder, key):
        if kind == "replace":
            holder[key] = draw(st.sampled_from(ODD))
        elif kind == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder["unknown"] = draw(st.sampled_from(ODD))
        else:
            holder.append(draw(st.sampled_from(ODD)))

    return changed(data, path, change)


def is_read(name, data) -> bool:
    """Return whether the reader accepts it; the validate stage checks the inner spec's version."""
    try:
        from_dict(RECORDS[name], data)
    except RecordError:
        return False
    versions = [data.get("schema_version", SCHEMA_VERSION)]
    versions += [data["spec"]["schema_version"]] if name == "measurement" else []
    return all(version == SCHEMA_VERSION for version in versions)


def agree(name, data) -> bool:
    """Say whether the schema and the reader do.

    No schema can say that a plan's paths follow, or that steps follow each other.
    """
    valid, read = storage.validator(RECORDS[name]).is_valid(data), is_read(name, data)
    return valid == read or (name in ("plan", "steps") and valid)


@pytest.mark.parametrize("name", EXAMPLES)
def test_schema_is_sound_and_says_what_each_record_is(name, capsys):
    assert main([name]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    for kind in (schema, *schema["$defs"].values()):
        assert "(" not in kind["description"].partition(" ")[0], "the signature, for want of words"


@pytest.mark.parametrize("name", EXAMPLES)
def test_schema_accepts_every_record_that_the_reader_accepts(name):
    assert storage.problems(RECORDS[name], to_dict(EXAMPLES[name])) == []


@pytest.mark.parametrize("name", EXAMPLES)
@given(choice=st.data())
def test_schema_and_reader_agree_on_mutations(name, choice):
    data = choice.draw(mutated(to_dict(EXAMPLES[name])))
    assert agree(name, data)


@pytest.mark.parametrize("name", EXAMPLES)
def test_schema_and_reader_agree_on_every_key(name):
    """Put values of other types at every place outside long lists, one after the other."""
    data = to_dict(EXAMPLES[name])
    for path in places(data):
        if not path or any(isinstance(key, int) and key > 0 for key in path):
            continue
        for odd in (None, 1.0, []):
            wrong = changed(data, path, lambda holder, key, odd=odd: holder.__setitem__(key, odd))
            assert agree(name, wrong), (path, odd)


def test_problems_are_all_listed_with_their_places():
    data = to_dict(builders.measurement())
    data["extra"] = 1
    data["windows"][0]["passes"] = "two"
    del data["host"]["python"]
    found = storage.problems(records.Measurement, data)
    assert len(found) == 3
    assert "$.windows[0].passes: 'two' is not of type 'integer'" in found
    assert any(problem.startswith("$.host: 'python' is a required") for problem in found)


def test_unavailable_energy_needs_a_reason_and_no_number():
    data = to_dict(builders.measurement())
    part = data["baselines"][0]["energy"][1]
    assert part["status"] == "unavailable"
    part["energy_j"] = 0
    assert storage.problems(records.Measurement, data)


def test_every_record_has_an_example():
    assert {name: type(example) for name, example in EXAMPLES.items()} == RECORDS
