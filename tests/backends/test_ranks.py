"""Processes of one cell: told apart, told together, and never waited for in vain."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import measure as script
import pytest
from support import builders, fake_measure, fake_rank

from llm_energy.backends import base
from llm_energy.backends.distributed import ranks as module
from llm_energy.backends.distributed import replicas
from llm_energy.backends.distributed.ranks import RankFailure, Ranks
from llm_energy.core.errors import LlmEnergyError, OutOfMemory, Unsupported
from llm_energy.records import (
    Measurement,
    Request,
    Sharding,
    Spec,
    read_record,
    write_record,
)

STAND_IN = "support.fake_rank"


@pytest.fixture
def start():
    """Start ranks of the stand-in and end them after the test."""
    started = []

    def start(count=2, together=True):
        started.append(Ranks(STAND_IN, count, together))
        return started[-1]

    yield start
    for ranks in started:
        ranks.end()


def ask(ranks, *what):
    return ranks.call("do", [(one,) for one in what])


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# talking to ranks


def test_each_rank_gets_its_own_words_and_answers_in_order(start):
    ranks = start(3)
    assert [answer[0] for answer in ask(ranks, "a", "b", "c")] == ["a", "b", "c"]
    assert len({answer[1] for answer in ask(ranks, "a", "b", "c")}) == 3


def test_ranks_of_one_model_know_their_place_and_where_to_meet(start):
    ranks = start()
    assert [answer[0] for answer in ask(ranks, "RANK", "RANK")] == ["0", "1"]
    assert [answer[0] for answer in ask(ranks, "WORLD_SIZE", "WORLD_SIZE")] == ["2", "2"]
    assert len({answer[0] for answer in ask(ranks, *["LLM_ENERGY_MEETING"] * 2)}) == 1


def test_copies_are_alone_and_see_one_gpu_each(start, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    ranks = start(together=False)
    assert [answer[0] for answer in ask(ranks, "WORLD_SIZE", "WORLD_SIZE")] == ["1", "1"]
    assert [answer[0] for answer in ask(ranks, *["CUDA_VISIBLE_DEVICES"] * 2)] == ["4", "6"]


def test_ranks_share_the_processors(start):
    cpus = sorted(os.sched_getaffinity(0))
    shares = [answer[2] for answer in ask(start(), "a", "b")]
    assert [len(share) for share in shares] == [max(1, len(cpus) // 2)] * 2
    if len(cpus) > 1:
        assert not set(shares[0]) & set(shares[1])
    assert set(shares[0] + shares[1]) <= set(cpus)


def test_nothing_is_collected_inside_a_window(start):
    assert ask(start(), "collecting", "collecting") == [False, False]


# failing


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("oom", OutOfMemory, "rank 1: full"),
        ("unsupported", Unsupported, "rank 1: no"),
        ("failed", RankFailure, "rank 1: KeyError: 'x'"),
        ("exit", RankFailure, r"rank 1: process \d+ ended with exit status 3 during do"),
        ("killed", RankFailure, r"rank 1: process \d+ was killed .* during do"),
    ],
)
def test_what_befalls_a_rank_is_told_with_its_number(start, what, error, says):
    with pytest.raises(error, match=says):
        ask(start(), "fine", what)


def test_ranks_that_fail_alike_can_go_on(start):
    ranks = start()
    with pytest.raises(OutOfMemory, match="rank 0"):
        ask(ranks, "oom", "oom")
    assert [answer[0] for answer in ask(ranks, "a", "b")] == ["a", "b"]


def test_a_lack_of_memory_is_the_cause_and_what_follows_is_not(start):
    with pytest.raises(OutOfMemory, match="rank 1"):
        ask(start(), "failed", "oom")
    with pytest.raises(RankFailure, match=r"rank 1: process \d+ was killed"):
        ask(start(), "failed", "killed")


@pytest.mark.parametrize("what", ["failed", "exit"])
def test_a_rank_that_waits_for_a_failed_one_is_ended_with_it(start, monkeypatch, what):
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    ranks = start()
    pids = [answer[1] for answer in ask(ranks, "a", "b")]
    with pytest.raises(RankFailure, match="rank 1"):
        ask(ranks, "stuck", what)
    assert not any(map(is_alive, pids))
    with pytest.raises(RankFailure, match="the ranks were ended after a failure: rank 1"):
        ask(ranks, "a", "b")


def test_a_copy_that_fails_does_not_take_the_others_with_it(start, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    ranks = start(together=False)
    with pytest.raises(OutOfMemory, match="rank 0"):
        ask(ranks, "oom", "fine")
    assert [answer[0] for answer in ask(ranks, "a", "b")] == ["a", "b"]


def test_after_the_end_no_process_is_left(start):
    ranks = start()
    pids = [answer[1] for answer in ask(ranks, "a", "b")]
    ranks.end()
    assert not any(map(is_alive, pids))


def test_a_rank_whose_parent_is_killed_ends_though_it_is_stuck():
    with subprocess.Popen(
        [sys.executable, fake_rank.__file__], stdout=subprocess.PIPE, text=True
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        ends = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
    assert len(pids) == 2
    for end in ends:
        waiting = select.poll()  # not select(), which refuses descriptors from 1024 on
        waiting.register(end, select.POLLIN)
        assert waiting.poll(30_000), "a rank outlives its parent"
        os.close(end)


# one cell of several processes


def spec(strategy="data_parallel", **changes) -> Spec:
    return builders.spec(sharding=Sharding(strategy, 2), engine={"dtype": "float32"}, **changes)


@pytest.fixture(scope="module")
def copies():
    """Return a cell that two copies of the stand-in serve."""
    asked = spec()
    backend = replicas.Spread(asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.MODULES, "pytorch", STAND_IN)
        backend.effective = backend.load(asked, Path("model"))
    yield backend
    backend.close()


REQUESTS = tuple(Request(f"q{k}", (k, 10 + k)) for k in range(6))


def test_whole_batches_are_dealt_out_in_turn(copies):
    prepared = copies.prepare(builders.workload("b2"), REQUESTS)
    assert prepared["batching"]["batch_sizes"] == [2, 2, 2]
    assert prepared["batching"]["padding_tokens"] == 6
    assert copies.events() == {"steps": 6, "mean_running_requests": 2.0}
    assert copies.steps() is None, "each copy takes its own steps, at the same time as the others"


def test_completions_come_as_if_one_process_had_served_them(copies):
    copies.prepare(builders.workload("b2"), REQUESTS)
    completions = copies.generate()
    assert [c.request_id for c in completions] == [r.id for r in REQUESTS]
    assert [c.output_token_ids for c in completions] == [(10 + k, k) for k in range(6)]


def test_gpus_are_counted_once_and_the_weights_of_one_copy(copies):
    gpus = [os.environ.get("CUDA_VISIBLE_DEVICES") or rank for rank in (0, 1)]
    assert copies.effective["device_uuids"] == [
        f"GPU-{gpus[0]}",
        "GPU-shared",
        f"GPU-{gpus[1]}",
    ]
    assert copies.effective["weight_bytes"] == 100
    assert [p["weight_bytes"] for p in copies.effective["processes"]] == [100, 100]


def test_ranks_of_one_model_hold_its_weights_together():
    loaded = [
        {"device_uuids": [], "weight_bytes": n, "weight_bytes_by_dtype": {"float32": n}}
        for n in (60, 50)
    ]
    merged = replicas.merged_load(loaded, together=True)
    assert (merged["weight_bytes"], merged["weight_bytes_by_dtype"]) == (110, {"float32": 110})


def test_ranks_of_one_model_load_it_together(tmp_path, monkeypatch):
    monkeypatch.setitem(base.MODULES, "pytorch", STAND_IN)
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4, "num_key_value_heads": 2}')
    backend = replicas.Spread(spec("tensor_parallel"))
    effective = backend.load(spec("tensor_parallel"), tmp_path)
    backend.prepare(builders.workload("b2"), REQUESTS)
    completions, steps = backend.generate(), backend.steps()
    backend.close()
    assert steps == "of rank 0"
    assert effective["weight_bytes"] == 200
    assert [c.request_id for c in completions] == [r.id for r in REQUESTS]


def test_heads_that_ranks_do_not_divide_start_no_process(tmp_path):
    (tmp_path / "config.json").write_text('{"num_attention_heads": 9}')
    backend = replicas.Spread(spec("tensor_parallel"))
    with pytest.raises(Unsupported, match="9 query heads"):
        backend.load(spec("tensor_parallel"), tmp_path)
    assert backend.pids == []


def test_too_few_requests_for_the_copies_are_refused(copies):
    with pytest.raises(Unsupported, match="2 requests in batches of 2 are too few for 2 processes"):
        copies.prepare(builders.workload("b2"), REQUESTS[:2])


@pytest.mark.parametrize(
    ("key", "values", "says"),
    [
        (
            "backend",
            ("pytorch", "vllm"),
            "Mixed backends detected: pytorch, vllm. Aggregating results from different backends "
            "produces statistically invalid comparisons.",
        ),
        ("model", ("a", "b"), "Mixed models detected: a, b."),
        ("spec_sha256", ("1", "2"), "Mixed specs detected: 1, 2."),
        ("dtype", ("float16", "float32"), "Mixed precisions detected: float16, float32."),
    ],
)
def test_processes_that_differ_are_never_one_cell(key, values, says):
    with pytest.raises(LlmEnergyError) as caught:
        replicas.refuse_unlike([{key: value} for value in values])
    assert says in str(caught.value)


def test_a_copy_that_loaded_something_else_ends_the_repeat(monkeypatch):
    monkeypatch.setitem(base.MODULES, "pytorch", STAND_IN)
    asked = spec(model="odd")
    backend = replicas.Spread(asked)
    with pytest.raises(LlmEnergyError, match="Mixed precisions detected: float16, float32"):
        backend.load(asked, Path("model"))
    backend.close()


def measure_copies(tmp_path, monkeypatch):
    """Run the measuring script on two workloads that two copies of the stand-in serve."""
    monkeypatch.setitem(base.MODULES, "pytorch", STAND_IN)
    arguments, out = fake_measure.write_repeat(tmp_path)
    path, one = tmp_path / "spec.json", builders.workload("b1")
    workloads = (one, replace(one, id="b8"))
    asked = replace(read_record(Spec, path), sharding=spec().sharding, workloads=workloads)
    write_record(path, asked)
    assert script.main(arguments) == 0
    return read_record(Measurement, out).windows


def test_one_window_spans_all_copies_and_their_tokens_are_added_up(tmp_path, monkeypatch):
    window, _ = measure_copies(tmp_path, monkeypatch)
    assert window.outcome == "ok"
    assert window.requests.request_id == ("q0", "q1") * window.passes
    assert sum(window.requests.output_tokens) == 2 * 4 * window.passes
    assert window.interval.start_s <= min(window.requests.arrival_s)
    assert max(window.requests.last_token_s) <= window.interval.end_s


def test_a_rank_that_dies_in_a_window_is_an_outcome_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK_STAND_IN_DIES", "1")
    first, second = measure_copies(tmp_path, monkeypatch)
    assert (first.outcome, second.outcome) == ("failed", "failed")
    assert "was killed" in first.reason
    assert "the ranks were ended after a failure" in second.reason
