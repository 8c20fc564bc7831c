"""Whether backends did the same work: hashes, lengths, and how far their greedy ids agree."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
import sameness as script
from hypothesis import given
from hypothesis import strategies as st
from support import builders

from llm_energy.analysis.sameness import SAMPLED, common_prefix, compare
from llm_energy.core.serialize import to_dict
from llm_energy.publish.tables import files
from llm_energy.publish.tables.sameness import NOTHING, table

GREEDY = {"decoder": {"do_sample": False, "temperature": 1.0}}
IDS = tuple(range(builders.OUTPUT_TOKENS))


def measured(backend: str, ids: dict | None = None, repeat: int = 1, decoder=None, **changes):
    asked = builders.workload(**(decoder or GREEDY))
    spec = builders.spec(backend=backend, repeat=repeat, workloads=(asked,))
    answers = {"q0": IDS, "q1": IDS} if ids is None else ids
    window = builders.window(output_token_ids=answers)
    return builders.measurement(spec, **({"windows": (window,)} | changes))


def compared(measurements):
    return compare(map(to_dict, measurements))


def made(rows):
    """Return the files of the table by their suffix."""
    return {name.rpartition(".")[2]: text for name, text in files(table("test", rows)).items()}


def test_two_backends_that_agree_did_the_same_work():
    (row,) = compared([measured("pytorch"), measured("vllm")])
    assert (row.model, row.precision, row.workload) == ("m", "float32", "b1")
    assert row.backends == ("pytorch", "vllm")
    assert (row.same_prompts, row.same_weights, row.lengths_forced) == (True, True, True)
    assert (row.requests, row.identical_requests) == (2, 1.0)
    assert (row.shortest_prefix, row.median_prefix) == (8, 8)


def test_the_common_prefix_ends_where_the_ids_first_differ():
    other = {"q0": IDS, "q1": (*IDS[:3], 99, *IDS[4:])}
    (row,) = compared([measured("pytorch"), measured("vllm", other)])
    assert row.identical_requests == 0.5
    assert (row.shortest_prefix, row.median_prefix) == (3, 5.5)


def test_other_prompts_or_weights_are_seen_in_any_repeat():
    later = measured("vllm", repeat=2, weights_sha256="x" * 64, prompts_sha256={"b1": "p" * 64})
    (row,) = compared([measured("pytorch"), measured("vllm"), later])
    assert (row.same_prompts, row.same_weights) == (False, False)


def test_a_length_that_was_not_realised_is_seen():
    table = builders.request_table(1020.0, output_tokens=(8, 8, 8, 7))
    window = builders.window(requests=table)
    (row,) = compared([measured("pytorch"), measured("vllm", windows=(window,))])
    assert row.lengths_forced is False


def test_free_lengths_are_neither_realised_nor_not():
    free = GREEDY | {"min_output_tokens": 0}
    (row,) = compared([measured(name, decoder=free) for name in ("pytorch", "vllm")])
    assert row.lengths_forced is None


def test_sampled_outputs_are_not_compared():
    sampled = {"decoder": {"do_sample": True, "temperature": 1.0}}
    (row,) = compared([measured(name, decoder=sampled) for name in ("pytorch", "vllm")])
    assert row.identical_requests is None
    assert "sampled" in row.reason


def test_a_backend_without_a_window_is_a_row_with_the_reason():
    failed = builders.window(outcome="oom", interval=None, requests=None, output_token_ids={})
    (row,) = compared([measured("pytorch"), measured("vllm", windows=(failed,))])
    assert (row.requests, row.reason) == (0, "no window of vllm")


def test_the_first_good_repeat_stands_for_a_backend():
    failed = measured("vllm", windows=())
    (row,) = compared([measured("vllm", {"q0": IDS}, repeat=2), measured("pytorch"), failed])
    assert row.requests == 1


def test_each_pair_of_backends_is_a_row_and_one_backend_is_none():
    names = ("pytorch", "vllm", "tensorrt")
    assert len(compared(measured(name) for name in names)) == 3
    assert compared([measured("pytorch"), measured("pytorch", repeat=2)]) == []
    assert all(NOTHING in text for text in (made([])["md"], made([])["tex"], made([])["txt"]))


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_a_common_prefix_is_common_and_cannot_be_longer(first, second):
    n = common_prefix(first, second)
    assert first[:n] == second[:n]
    assert n == min(len(first), len(second)) or first[n] != second[n]
    assert n == common_prefix(second, first)


def test_every_form_holds_every_row():
    rows = compared([measured("pytorch"), measured("vllm", {"q0": IDS, "q1": (9,)})])
    texts = made(rows)
    (line,) = csv.DictReader(io.StringIO(texts["csv"]))
    assert line["backends"] == "pytorch vllm"
    assert (line["identical_requests"], line["median_prefix"], line["reason"]) == ("0.5", "4.0", "")
    cells = "| m | float32 | b1 | pytorch, vllm | yes | yes | yes | 2 | 50.0 |"
    assert cells in texts["md"]
    assert "pytorch, vllm  yes      yes      yes      2           50.0" in texts["txt"]
    for part in (
        "1 & m & float32 & b1 & pytorch, vllm & yes & yes & yes",
        "1 & 2 & 50.0 & 0 & 4.0",
    ):
        assert f"{part} \\\\" in texts["tex"]


def test_what_was_not_compared_has_a_note_and_no_numbers():
    (one,) = compared(map(measured, ("a", "b")))
    texts = made([replace(one, requests=0, identical_requests=None, reason=SAMPLED)])
    assert f"1. Not compared: {SAMPLED}." in texts["md"]
    assert texts["csv"].splitlines()[1].endswith(f'"{SAMPLED}"')


def test_a_difference_stands_out():
    (row,) = compared(map(measured, ("a", "b")))
    assert "Every pair had the same" in made([row])["md"]
    assert "1 of 2 pairs did not do the same" in made([row, replace(row, same_weights=False)])["md"]


@pytest.mark.parametrize("backends", [("pytorch", "vllm"), ("pytorch",)])
def test_the_command_reads_the_plan_and_leaves_out_what_was_not_measured(tmp_path, backends):
    plan = builders.write_sweep(tmp_path, map(measured, backends))
    for path in list(tmp_path.rglob("vllm/measurements/*/r02.json")):
        path.unlink()
    assert script.main(["--plan", str(plan), "--out-dir", str(tmp_path / "tables")]) == 0
    lines = (tmp_path / "tables" / "sameness.csv").read_text().splitlines()
    assert len(lines) == len(backends)
    assert (tmp_path / "tables" / "sameness.md").exists()


@pytest.mark.parametrize("text", [None, "{}", "{"])
def test_a_file_that_is_no_measurement_is_left_to_its_verdict(tmp_path, text):
    plan = builders.write_sweep(tmp_path, map(measured, ("pytorch", "vllm")))
    path = next(tmp_path.rglob("vllm/measurements/*/r01.json"))
    data = json.loads(path.read_text())
    del data["windows"]
    path.write_text(json.dumps(data) if text is None else text)
    assert script.main(["--plan", str(plan), "--out-dir", str(tmp_path / "tables")]) == 0
    path.unlink()
    assert script.main(["--plan", str(plan), "--out-dir", str(tmp_path / "without")]) == 0
    made, expected = (tmp_path / name / "sameness.csv" for name in ("tables", "without"))
    assert made.read_text() == expected.read_text()
