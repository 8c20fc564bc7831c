"""Whatever comes in, only the project's own error comes out.

``FUZZ=20000 pytest tests/torture/test_fuzz.py`` draws so many examples a test (damage.py).
"""

from __future__ import annotations

import copy
import json
import os
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import builders
from support.checkpoints import write_safetensors
from support.project import ROOT, example
from torture.damage import damaged, fuzz

from llm_energy.analysis.energy import wall_meter
from llm_energy.analysis.validate import validate
from llm_energy.backends.served.answer import Answer, Events
from llm_energy.core.errors import ConfigError, LlmEnergyError
from llm_energy.core.serialize import to_dict
from llm_energy.inputs.models.files import read_safetensors_header
from llm_energy.inputs.prompts import sets
from llm_energy.inputs.traffic.trace_file import read_trace
from llm_energy.plan.config.load import load_sweep
from llm_energy.publish.provenance.archive import unpack
from llm_energy.records import Request, Verdicts, power_trace, read_record, write_record

NUMBERS = [0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 5e-324, 1e308, float("inf"), float("nan")]
TEXTS = [
    "",
    " ",
    "\0",
    "\ud800",
    "../x",
    "/etc/passwd",
    "=1",
    "{x}",
    "a" * 300,
    "1e999",
    "nan",
    "é",
]
KEYS = ["x", "id", "path", "kind", "models", "source", "prompts", "traffic_simulation", "decoder"]
KEYS += [
    "model_name",
    "quantization",
    "parameters",
    "batching",
    "checkpoints",
    "server",
    "revision",
]
ODD = st.sampled_from([None, True, False, [], {}, [[]], {"a": 1}, {1: 1}, *NUMBERS, *TEXTS])


def edited(draw, value: Any) -> Any:
    """Return a value of JSON with one place in it changed, added or taken away."""
    value = copy.deepcopy(value)
    holder, key = None, None
    place = value
    while isinstance(place, dict | list) and place and (holder is None or draw(st.booleans())):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        holder, key = place, draw(st.sampled_from(keys))
        place = holder[key]
    what = draw(st.sampled_from(["change", "remove", "add"]))
    if holder is None or (what == "change" and isinstance(holder, str)):
        return draw(ODD)
    if what == "remove":
        del holder[key]
    elif what == "add" and isinstance(holder, dict):
        holder[draw(st.sampled_from(KEYS))] = draw(ODD)
    else:
        holder[key] = draw(ODD)
    return value


CONFIGS = [example(path.stem) for path in sorted((ROOT / "config/examples").glob("*.yaml"))]


@fuzz(300)
@given(st.data())
def test_a_config(data):
    config = data.draw(st.sampled_from(CONFIGS))
    for _ in range(data.draw(st.integers(1, 3))):
        config = edited(data.draw, config)
    problems = ["none"]
    try:
        load_sweep(config, root=ROOT)
    except ConfigError as error:
        problems = error.problems
    assert problems
    assert all(line and "\n" not in line for line in problems)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> tuple[Path, Path]:
    """Return a plan and the path of its measurement; the tests work in that folder."""
    root = tmp_path_factory.mktemp("sweep")
    plan = builders.write_sweep(root, [builders.measurement()])
    return plan, root / "results/test/pytorch/measurements/m--pytorch--float32/r01.json"


def judge(sweep: tuple[Path, Path], text: str) -> None:
    plan, path = sweep
    os.chdir(plan.parents[2])
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    verdicts = validate("test", "pytorch", plan)
    write_record(plan.with_name("verdicts.json"), verdicts)
    assert read_record(Verdicts, plan.with_name("verdicts.json")) == verdicts


ORIGINAL = json.dumps(to_dict(builders.measurement()))


@fuzz(60)
@given(st.data())
def test_a_measurement_whose_values_are_changed(sweep, data):
    value = json.loads(ORIGINAL)
    for _ in range(data.draw(st.integers(1, 2))):
        value = edited(data.draw, value)
    judge(sweep, json.dumps(value))


@fuzz(60)
@given(st.data())
def test_a_measurement_whose_text_is_damaged(sweep, data):
    begin = data.draw(st.integers(0, len(ORIGINAL) - 1))
    length = data.draw(st.integers(1, 40))
    new = data.draw(st.sampled_from(["", "0", "-1", "1e999", "NaN", "null", "[]", '"x"', "}"]))
    judge(sweep, ORIGINAL[:begin] + new + ORIGINAL[begin + length :])


OWN = "arrival_s,prompt_tokens,output_tokens\n"
LINES = {
    "trace.csv": (lambda path: list(read_trace(path)), OWN + "1.5,7,8\n2,9,10\n"),
    "p.csv": (lambda path: sets.read_file(path, "text"), 'id,text\na,one\nb,"two\nlines"\n'),
    "p.jsonl": (lambda path: sets.read_file(path, "text"), '{"text": "one", "id": 1}\n'),
    "wall.csv": (wall_meter.read, "time,power_w\n1,2\n2026-01-01T00:00:00Z,3.5\n"),
    "wall.json": (
        wall_meter.read,
        '{"data": {"result": [{"metric": {}, "values": [[1, "2"], [2, "3"]]}]}}',
    ),
    "r01.trace.csv": (
        lambda path: list(power_trace.read(path)),
        power_trace.header(0.1, {"a": "x"}) + "1.5,a,300,41,1980,,99,4\n",
    ),
}


@pytest.mark.parametrize("name", LINES)
@fuzz(100)
@given(st.data())
def test_a_file_of_lines(name, tmp_path, data):
    reader, text = LINES[name]
    path = tmp_path / name
    path.write_bytes(damaged(data.draw, text.encode()))
    with suppress(LlmEnergyError):
        reader(path)


@fuzz(100)
@given(st.data())
def test_the_header_of_weights(tmp_path, data):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": ("BF16", [3, 5]), "b": ("F32", [2])})
    path.write_bytes(damaged(data.draw, path.read_bytes()))
    with suppress(LlmEnergyError):
        read_safetensors_header(path)


EVENT = b"""data: {"choices": [{"text": "a", "token_ids": [5], "prompt_token_ids": [1, 2],
 "finish_reason": "length"}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
data: [DONE]
""".replace(b",\n ", b", ")


@fuzz(200)
@given(st.data())
def test_an_answer_of_a_server(data):
    answer = Answer(Request("r", (1, 2)), b"", 1, 1, 0.0)
    with suppress(LlmEnergyError):
        for event in Events().feed(damaged(data.draw, EVENT)):
            answer.take(event, 1.0)
        completion = answer.completion()
        assert (completion.prompt_tokens, len(completion.output_token_ids)) == (2, 1)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, bytes]:
    """Return a sound archive of each format."""
    root = tmp_path_factory.mktemp("archived")
    grid = builders.plan([("pytorch", "float32")], 1)
    builders.write_sweep(root, [builders.measurement()], grid)
    made = {}
    for kind in ("", "gz", "xz", "bz2"):
        with tarfile.open(root / "a", f"w:{kind}") as file:
            file.add(root / "results", arcname="results")
        made[f"a.tar.{kind}"] = (root / "a").read_bytes()
    with zipfile.ZipFile(root / "a", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted((root / "results").rglob("*.json")):
            file.write(path, path.relative_to(root))
    return made | {"a.zip": (root / "a").read_bytes()}


@fuzz(100)
@given(st.data())
def test_an_archive(archives, tmp_path, data):
    name = data.draw(st.sampled_from(sorted(archives)))
    path = tmp_path / name
    path.write_bytes(damaged(data.draw, archives[name]))
    with suppress(LlmEnergyError):
        unpack(path, tmp_path / "paper")
    assert {one.name for one in tmp_path.iterdir()} <= {*archives, "paper"}
