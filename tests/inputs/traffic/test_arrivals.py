"""Timed traffic: when requests are due, who is handed them, and what a window of it holds."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from support import builders, simulated, simulated_runs
from support.simulated_runs import simulated_spec, simulated_workload

from llm_energy.analysis.energy.accounting import work
from llm_energy.analysis.energy.latency import latencies_s, quantiles_s
from llm_energy.backends.batching import due_static_batch
from llm_energy.core.errors import ConfigError, LlmEnergyError, RecordError
from llm_energy.core.files import sha256_json
from llm_energy.core.serialize import to_dict
from llm_energy.inputs.models.simulated import write_files
from llm_energy.inputs.prompts.stage import make_prompt_set
from llm_energy.inputs.traffic import arrivals as traffic
from llm_energy.measure.arrival_queue import BEGIN, END, ArrivalQueue
from llm_energy.measure.run import planned_arrivals
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import EngineTruth, GpuTruth, Truth
from llm_energy.plan import freeze, plan, summary
from llm_energy.plan.config.load import load_sweep
from llm_energy.records import Arrivals, ArrivalSet, read_record, write_record
from llm_energy.records.files import paths

SPAN = {"ramp_s": 5.0, "horizon_s": 1000.0, "batch_timeout_s": 1.0}


def poisson(rate_per_s: float = 2.0, **more) -> Arrivals:
    asked = {"mode": "poisson", "rate_per_s": rate_per_s, "seed": 0} | SPAN | more
    return traffic.make_arrivals(asked)


def gaps(arrivals: Arrivals) -> list[float]:
    return [b - a for a, b in itertools.pairwise((0.0, *arrivals.times_s))]


# when requests are due


@pytest.mark.parametrize("seed", range(5))
def test_poisson_gaps_are_exponential(seed: int) -> None:
    found = gaps(poisson(3.0, seed=seed))
    assert len(found) > 2500
    assert scipy.stats.kstest(found, "expon", args=(0, 1 / 3.0)).pvalue > 0.01
    # The test can fail: of the same gaps made a little more even it says so.
    other = [0.8 * gap + 0.2 / 3.0 for gap in found]
    assert scipy.stats.kstest(other, "expon", args=(0, 1 / 3.0)).pvalue < 1e-6


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_the_mean_and_the_variation_that_were_asked_for(burstiness) -> None:
    found = gaps(poisson(mode="gamma", burstiness=burstiness, rate_per_s=4.0))
    law = scipy.stats.gamma(burstiness, scale=1 / (4.0 * burstiness))
    assert scipy.stats.kstest(found, law.cdf).pvalue > 0.01


def test_constant_arrivals_are_equally_far_apart() -> None:
    asked = traffic.complete({"mode": "constant", "rate_per_s": 4.0, "ramp_s": 1.0}, 2.0)
    arrivals = traffic.make_arrivals(asked)
    assert arrivals.times_s == tuple(k / 4 for k in range(1, 12))
    assert (arrivals.begin_s, arrivals.end_s) == (1.0, 3.0)
    assert traffic.gap_variation(arrivals.times_s) == 0.0


@given(
    st.sampled_from(["poisson", "gamma", "constant"]),
    st.floats(0.01, 50),
    st.floats(0, 20),
    st.floats(0.1, 20),
    st.integers(0, 99),
)
def test_a_window_begins_when_the_ramp_ends(mode, rate, ramp_s, horizon_s, seed):
    asked = {"mode": mode, "rate_per_s": rate, "burstiness": 0.5, "seed": seed}
    arrivals = traffic.make_arrivals(asked | {"ramp_s": ramp_s, "horizon_s": horizon_s})
    assert list(arrivals.times_s) == sorted(arrivals.times_s)
    assert (arrivals.begin_s, arrivals.end_s) == (ramp_s, ramp_s + horizon_s)
    assert max(arrivals.times_s, default=0.0) < arrivals.end_s


def test_a_window_holds_as_many_requests_as_its_rate_brings() -> None:
    """Begun with an arrival, it would hold one more on average."""
    asked = {"mode": "poisson", "rate_per_s": 0.25, "ramp_s": 30.0, "horizon_s": 30.0, "seed": 1}
    blocks = [traffic.make_arrivals(asked, block=block) for block in range(1, 2001)]
    counts = [sum(one.begin_s <= t < one.end_s for t in one.times_s) for one in blocks]
    error = (7.5 / len(counts)) ** 0.5
    assert abs(sum(counts) / len(counts) - 7.5) < 4 * error < 0.5


def test_one_seed_is_one_pattern_at_every_rate() -> None:
    slow, fast = poisson(1.0), poisson(4.0)
    assert [4 * t for t in fast.times_s[:500]] == pytest.approx(list(slow.times_s[:500]))
    assert poisson(1.0) == slow
    assert poisson(1.0, seed=1) != slow


# traces


def trace(path: Path, text: str, **asked) -> Arrivals:
    (path / "trace.csv").write_text(text, encoding="utf-8")
    given = {"mode": "trace", "trace_path": str(path / "trace.csv"), "ramp_s": 1.0}
    return traffic.make_arrivals(traffic.complete(given | asked, 5.0))


OWN = "arrival_s,prompt_tokens,output_tokens\n10,5,6\n11.5,7,8\n13,9,10\n17,1,2\n20,3,4\n"
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "10,ChatGPT,5,6,11,Conversation log\n11.5,GPT-4,7,8,15,API log\n"
    "12,GPT-4,7,0,7,API log\n13,ChatGPT,9,10,19,Conversation log\n"
    "17,ChatGPT,1,2,3,Conversation log\n20,ChatGPT,3,4,7,Conversation log\n"
)
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:00.0000000,5,6\r\n"
    "2023-11-16 18:17:01.5000000,7,8\r\n2023-11-16 18:17:03.0000000,9,10\r\n"
    "2023-11-16 18:17:07.0000000,1,2\r\n2023-11-16 18:17:10.0000000,3,4"
)


@pytest.mark.parametrize("text", [OWN, BURSTGPT, AZURE])
def test_a_trace_gives_times_and_lengths(tmp_path, text) -> None:
    arrivals = trace(tmp_path, text)
    assert arrivals.times_s == pytest.approx((0.0, 1.5, 3.0))
    assert arrivals.tokens == ((5, 6), (7, 8), (9, 10))
    assert (arrivals.begin_s, arrivals.end_s) == (1.0, 6.0)


def test_a_trace_begins_where_it_is_asked_to(tmp_path) -> None:
    arrivals = trace(tmp_path, OWN, start_s=1.5, ramp_s=0.0)
    assert arrivals.times_s == pytest.approx((0.0, 1.5))
    assert arrivals.tokens == ((7, 8), (9, 10))
    with pytest.raises(LlmEnergyError, match=r"the trace reaches 0 s"):
        trace(tmp_path, OWN, start_s=50.0)


def test_a_spec_without_a_start_stays_as_it_was() -> None:
    asked = {"mode": "trace", "trace_path": "trace.csv"}
    assert "start_s" not in traffic.complete(asked, 5.0)
    assert traffic.complete(asked | {"start_s": 7.0}, 5.0)["start_s"] == 7.0


# Five requests in 200 s, then two a second: a head like that of BurstGPT.
SPARSE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(
    f"{time_s},5,6\n" for time_s in (0, 41, 97, 130, 188, *(400 + k / 2 for k in range(400)))
)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"ramp_s": 2.0},
            ["its window of 20 s holds only 0 of its requests"],
        ),
        (
            {"ramp_s": 22.0, "rate_per_s": 1.0},
            ["1.85/s arrive in its window, where 1/s were asked"],
        ),
        ({"ramp_s": 2.0, "start_s": 400.0}, []),
        ({"ramp_s": 2.0, "start_s": 400.0, "rate_per_s": 1.0}, []),
    ],
)
def test_a_trace_that_does_not_give_what_was_asked_is_told(tmp_path, asked, says) -> None:
    (tmp_path / "trace.csv").write_text(SPARSE, encoding="utf-8")
    given = {"mode": "trace", "trace_path": str(tmp_path / "trace.csv")} | asked
    complete = traffic.complete(given, 20.0)
    told = traffic.unlike_asked(complete, traffic.make_arrivals(complete))
    assert len(told) == len(says), told
    assert all(part in text for part, text in zip(says, told, strict=True))


def test_a_rate_stretches_a_trace_and_keeps_its_pattern(tmp_path) -> None:
    arrivals = trace(tmp_path, OWN, rate_per_s=0.5)  # three gaps in ramp and horizon: 7 s become 6
    assert arrivals.times_s == pytest.approx([t * 6 / 7 for t in (0.0, 1.5, 3.0)])
    assert arrivals.tokens == ((5, 6), (7, 8), (9, 10))
    assert arrivals.rate_per_s == 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "",
            "line 1: found the columns none, allowed arrival_s, prompt_tokens, output_tokens (own",
        ),
        ("time,tokens\n1,2\n", "line 1: found the columns time, tokens, allowed"),
        (OWN.replace("11.5", "soon"), "line 3: found 'soon', '7', '8'"),
        (OWN.replace("13,", "11,"), "line 4: found the time '11' after a later one"),
        (OWN.replace("13,9", "13,9.5"), "line 4: found '13', '9.5', '10'"),
        (OWN[:60], "the trace reaches 3 s, the ramp of 1 s and the horizon of 5 s need more"),
        ("arrival_s,prompt_tokens,output_tokens\n", "the trace reaches 0 s"),
    ],
)
def test_a_trace_that_cannot_be_replayed_says_where(tmp_path, text, says) -> None:
    with pytest.raises(LlmEnergyError) as error:
        trace(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "trace.csv"))
    assert says in str(error.value)


# who is handed them


class Marks(list):
    def __init__(self, clock) -> None:
        self.clock = clock

    def __call__(self, label: str) -> None:
        self.append((label, self.clock()))


def queue_of(arrivals: Arrivals, prompts: int = 3):
    clock = simulated.Clock()
    marks = Marks(clock)
    return ArrivalQueue(arrivals, prompts, clock, clock.sleep, marks), clock, marks


OPEN = Arrivals("constant", 1.0, 3.0, (0.5, 1.0, 1.25, 2.5))


def test_requests_are_handed_over_when_they_are_due_and_prompts_go_round() -> None:
    queue, clock, marks = queue_of(OPEN)
    assert queue.take(9) == []
    assert queue.wait()
    assert clock() == 100.5
    assert [(a.number, a.prompt, a.time_s) for a in queue.take(9)] == [(0, 0, 100.5)]
    clock.sleep(1.0)  # one step of the engine, over which two more become due
    queue.step()
    assert [a.time_s for a in queue.take(1)] == [101.0]
    assert [(a.number, a.prompt) for a in queue.take(9)] == [(2, 2)]
    assert queue.wait()
    assert [(a.number, a.prompt, a.time_s) for a in queue.take(9)] == [(3, 0, 102.5)]
    assert queue.wait()
    assert not queue.wait()
    assert marks == [(BEGIN, 101.5), (END, 103.0)]


def test_an_idle_engine_sleeps_and_sees_the_edges_on_time() -> None:
    queue, _, marks = queue_of(OPEN)
    served = 0
    while queue.wait():
        served += len(queue.take(9))
    assert served == 4
    assert marks == [(BEGIN, 101.0), (END, 103.0)]


def test_a_batch_waits_for_the_last_of_its_requests_or_the_patience_of_the_first() -> None:
    queue, clock, _ = queue_of(OPEN)

    def rule(waiting, now_s):
        return due_static_batch([a.time_s for a in waiting], now_s, 2, 0.6)

    batches = []
    while batch := queue.next_batch(rule):
        batches.append((clock(), [a.number for a in batch]))
    assert batches == [(101.0, [0, 1]), (101.85, [2]), (103.1, [3])]


def test_in_a_closed_loop_the_next_request_comes_as_one_ends() -> None:
    queue, clock, marks = queue_of(Arrivals("closed_loop", 1.0, 3.0, concurrency=2), prompts=4)
    numbers = []
    while arrivals := queue.take(9):
        numbers.append([(a.number, a.time_s) for a in arrivals])
        clock.sleep(0.8)
        queue.step(ended=len(arrivals))
    times = [100.0, 100.8, 101.6, 102.4]
    assert [[t for _, t in one] for one in numbers] == [[pytest.approx(t)] * 2 for t in times]
    assert [n for one in numbers for n, _ in one] == list(range(8))
    assert marks == [(BEGIN, pytest.approx(101.6)), (END, pytest.approx(103.2))]
    assert not queue.wait()


# a window of it, on a simulated host


QUIET = GpuTruth(noise_sd=0.0, tick_s=0.0)


def measured_on_host(
    strategy="dynamic", batch="b8", tokens=32, truth=None, requests=64, id=None, **asked
):
    """Measure one window of timed traffic; give the measurement and its host."""
    given = traffic.complete({"ramp_s": 2.0} | asked, 20.0)
    arrivals = traffic.make_arrivals(given)
    digest = sha256_json(to_dict(arrivals))
    workload = simulated_workload(batch, requests, tokens, strategy, traffic_simulation=given)
    workload = replace(workload, id=id or batch, arrivals_sha256=digest)
    spec = simulated_spec(workload, deep_idle_duration_s=1.0)
    host = SimulatedHost(truth or Truth(gpus=(QUIET,)), 3)
    measurement = simulated_runs.run(host, spec, arrivals={workload.id: arrivals})
    assert measurement.outcome == "ok", measurement.reason
    [window] = measurement.windows
    assert window.outcome == "ok", window.reason
    return measurement, host


def measured(*arguments, **asked):
    """Measure one window of timed traffic; give its arrivals, the window and its host."""
    measurement, host = measured_on_host(*arguments, **asked)
    [workload] = measurement.spec.workloads
    arrivals = traffic.make_arrivals(workload.parameters["traffic_simulation"])
    return arrivals, measurement.windows[0], host


@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_the_window_is_the_horizon_with_its_idle_time(strategy) -> None:
    arrivals, window, host = measured(strategy, mode="poisson", rate_per_s=1.0)
    interval = window.interval
    step_s = 0.02  # the longest step of this engine
    assert window.traffic.begin_s <= interval.start_s < window.traffic.begin_s + step_s
    assert window.traffic.end_s <= interval.end_s < window.traffic.end_s + step_s
    [gpu_j] = [e.energy_j for e in interval.energy if e.component == "gpu"]
    truth_j = host.truth_energy_j("gpu", interval.start_s, interval.end_s)
    assert gpu_j == pytest.approx(truth_j, rel=1e-3)
    assert host.idle_energy_j(interval.start_s, interval.end_s) < truth_j
    assert window.passes == 0
    assert interval.host.duration_s >= interval.duration_s + 2.0  # with the ramp
    assert window.traffic.arrived == sum(
        arrivals.begin_s <= t < arrivals.end_s for t in arrivals.times_s
    )


@pytest.mark.parametrize("strategy", ["static", "dynamic"])
@pytest.mark.parametrize("mode", ["poisson", "closed_loop"])
def test_no_request_is_lost_at_the_edges(strategy, mode) -> None:
    asked = {"rate_per_s": 12.0} if mode == "poisson" else {"concurrency": 6}
    _, window, _ = measured(strategy, mode=mode, **asked)
    report, table = window.traffic, window.requests
    if mode == "poisson":
        due = sum(report.begin_s <= t < report.end_s for t in table.arrival_s)
        assert report.arrived == due > 200
        # Due between the planned edges, of which the metered ones are a step behind.
        assert abs(report.waiting[0] + report.arrived - report.started - report.waiting[1]) <= 1
    assert report.in_flight[0] + report.started - report.ended == report.in_flight[1]
    done = work(window)
    assert done.requests == report.ended
    assert done.output_tokens == sum(table.output_tokens_inside)
    # What the edges cut is no more than what was in flight there.
    off = abs(done.output_tokens - 32 * report.ended)
    assert off <= 32 * max(report.in_flight)
    if mode == "closed_loop":
        assert sum(report.in_flight) + sum(report.waiting) == 12


def test_energy_per_token_falls_with_the_rate() -> None:
    found = []
    for rate in (0.5, 2.0, 8.0):
        _, window, _ = measured(mode="poisson", rate_per_s=rate)
        [gpu_j] = [e.energy_j for e in window.interval.energy if e.component == "gpu"]
        found.append(gpu_j / work(window).output_tokens)
    assert found[0] > 1.5 * found[1] > 1.5 * found[2]


STALL_S = 2.0


@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_a_stall_is_in_the_latency_of_every_request_that_it_delayed(strategy) -> None:
    asked = {"mode": "poisson", "rate_per_s": 6.0, "batch_timeout_s": 0.1}
    at_s = 10.0
    truth = Truth(gpus=(QUIET,), engine=EngineTruth(stalls=((at_s, STALL_S),)))
    _, smooth, _ = measured(strategy, **asked)
    arrivals, window, _ = measured(strategy, truth=truth, **asked)
    begin_s = window.traffic.begin_s - arrivals.begin_s + at_s
    end_s = begin_s + STALL_S
    table = window.requests
    rows = list(zip(table.arrival_s, table.first_token_s, table.last_token_s, strict=True))
    during = [(due, first) for due, first, _ in rows if begin_s <= due < end_s]
    assert len(during) > 5
    for due_s, first_s in during:
        assert first_s - due_s >= end_s - due_s
    caught = [last for due, _, last in rows if due < begin_s < last]
    assert caught
    assert min(caught) >= end_s
    usual_s = max(latencies_s(smooth)["e2e"])
    # Counted from when the engine took them, the requests that came meanwhile would look unharmed.
    taken = zip(table.arrival_s, table.service_start_s, table.last_token_s, strict=True)
    assert any(
        begin_s <= due < end_s and last - start < usual_s + 0.5 for due, start, last in taken
    )
    worst = quantiles_s(window, latencies_s(window))
    assert worst["e2e_p99"] > STALL_S > quantiles_s(smooth, latencies_s(smooth))["e2e_p99"]


def test_latencies_add_up_and_the_histogram_agrees_with_the_tokens() -> None:
    _, window, _ = measured(mode="poisson", rate_per_s=6.0)
    found = latencies_s(window)
    assert len({len(values) for values in found.values()}) == 1
    for ttft, tpot, e2e, queueing in zip(
        *(found[n] for n in ("ttft", "tpot", "e2e", "queueing")), strict=True
    ):
        assert 0 <= queueing < ttft < e2e
        assert ttft + 31 * tpot == pytest.approx(e2e)
    quantiles = quantiles_s(window, found)
    assert list(quantiles) == [
        f"{name}_p{p}"
        for name in ("ttft", "service_ttft", "tpot", "itl", "e2e", "queueing")
        for p in (50, 90, 95, 99)
    ]
    gaps = sum(count for _, count in window.inter_token.bins)
    inside = sum(window.requests.output_tokens_inside)
    assert inside - len(window.requests.request_id) <= gaps <= inside
    # Half of all gaps are one step: reading the weights, at about 7.5 ms.
    assert math.isclose(quantiles["itl_p50"], quantiles["tpot_p50"], rel_tol=0.5)


# what a sweep makes of it


def sweep_of(tmp_path: Path, workload: dict, **changes):
    """Load a sweep of one workload on a simulated host."""
    model = {"kind": "simulated", "parameter_count": 10**9}
    config = {
        "name": "timed",
        "models": [{"id": "m", "model_name": "m", "source": model}],
        "backends": ["simulated"],
        "workloads": [{"id": "w"} | workload],
        "parameters": {"max_output_tokens": 9},
    }
    return load_sweep(config | changes, root=tmp_path)


def planned(sweep):
    return plan.make_plan(sweep, lambda backend: plan.Engine("cuda", None))


def test_the_plan_freezes_the_arrivals_and_every_spec_names_them(tmp_path) -> None:
    asked = {"mode": "poisson", "rate_per_s": 3, "ramp_s": 2}
    sweep = sweep_of(tmp_path, {"traffic_simulation": asked}, precisions=["bfloat16", "float16"])
    made = planned(sweep)
    freeze.write_plan(made, tmp_path)
    written = read_record(ArrivalSet, tmp_path / "results" / "timed" / "arrivals.json")
    assert written == made.arrivals
    hashes = {
        (paths.repeat_name(spec.repeat), workload.arrivals_sha256)
        for spec in made.specs.values()
        for workload in spec.workloads
    }
    of_blocks = {(name, sha256_json(to_dict(own["w"]))) for name, own in written.blocks.items()}
    assert hashes == of_blocks  # one draw a block, the same for both cells
    assert len({digest for _, digest in hashes}) == sweep.repeats == 5
    [workload] = sweep.workloads
    assert workload.parameters["traffic_simulation"]["horizon_s"] == 30.0
    assert workload.requests == 3 * 32
    faster = sweep_of(tmp_path, {"traffic_simulation": asked | {"rate_per_s": 4}})
    assert planned(faster).arrivals != made.arrivals
    assert not planned(sweep_of(tmp_path, {})).arrivals.timed


@pytest.mark.parametrize(
    "asked",
    [{"mode": "constant", "rate_per_s": 2}, {"mode": "closed_loop", "concurrency": 3}],
)
def test_what_is_not_drawn_is_alike_in_every_block(tmp_path, asked) -> None:
    made = planned(sweep_of(tmp_path, {"traffic_simulation": asked})).arrivals
    assert made.blocks == {}
    assert made.of_block(1) == made.of_block(2) == {"w": made.workloads["w"]}


def test_arrivals_of_an_older_version_are_those_of_every_block(tmp_path) -> None:
    path = tmp_path / "arrivals.json"
    old = to_dict(ArrivalSet(1, "test", {"b8": OPEN}))
    del old["blocks"]
    path.write_text(json.dumps(old))
    digest = sha256_json(to_dict(OPEN))
    for repeat in (1, 2):
        spec = simulated_spec(replace(simulated_workload(), arrivals_sha256=digest), repeat=repeat)
        assert planned_arrivals(spec, path) == {"b8": OPEN}


def test_a_trace_gives_each_request_its_prompt_and_its_length(tmp_path) -> None:
    (tmp_path / "trace.csv").write_text(OWN)
    asked = {"mode": "trace", "trace_path": str(tmp_path / "trace.csv"), "ramp_s": 1}
    replayed = {"traffic_simulation": asked | {"horizon_s": 5}, "prompts": {"source": "synthetic"}}
    made = planned(sweep_of(tmp_path, replayed))
    assert "note (workload w): its window of 5 s holds only 2 of its requests" in summary.describe(
        made
    )
    request = made.prompt_requests["m"]
    assert request.workloads["w"].tokens == ((5, 6), (7, 8), (9, 9))
    model = {"id": "m", "model_name": "m", "source": {"kind": "simulated", "parameter_count": 1}}
    write_files(model, tmp_path / "model")
    manifest = replace(builders.manifest(), model="m")
    settings = request.workloads["w"].prompts | {"chat_template": False}
    asked = {"w": replace(request.workloads["w"], prompts=settings)}
    request = replace(request, workloads=asked, quality=None)
    prompts = make_prompt_set(request, tmp_path / "model", manifest)
    rows = prompts.requests["w"]
    assert [len(row.prompt_token_ids) for row in rows] == [5, 7, 9]
    assert [row.output_tokens for row in rows] == [6, 8, 9]
    assert (prompts.source["w"]["lengthened"], prompts.source["w"]["shortened"]) == (0, 0)


@pytest.mark.parametrize(
    ("workload", "says"),
    [
        ({"requests": 3}, "workloads[0].requests: found 3"),
        ({"min_output_tokens": 9}, "workloads[0].min_output_tokens: found 9"),
    ],
)
def test_a_trace_of_lengths_leaves_no_other_say(tmp_path, workload, says) -> None:
    (tmp_path / "trace.csv").write_text(OWN)
    asked = {"mode": "trace", "trace_path": "trace.csv"}
    replayed = {"traffic_simulation": asked, "prompts": {"source": "synthetic"}}
    with pytest.raises(ConfigError) as error:
        sweep_of(tmp_path, replayed | workload)
    assert says in str(error.value)
    assert "where a trace gives each request its length" in str(error.value)


def test_other_arrivals_than_the_planned_ones_are_refused(tmp_path) -> None:
    spec = simulated_spec(replace(simulated_workload(), arrivals_sha256="a" * 64))
    path = tmp_path / "arrivals.json"
    write_record(path, ArrivalSet(1, "test", {"b8": OPEN}))
    for given_path, says in ((path, "planned with aaaa"), (None, "needs --arrivals")):
        with pytest.raises(RecordError, match=says):
            planned_arrivals(spec, given_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rate_per_s", 5e-324), ("rate_per_s", 1e-300), ("burstiness", 5e-324), ("burstiness", 1e-9)],
)
def test_rates_and_burstiness_near_zero_are_refused(key, value) -> None:
    traffic = {"mode": "gamma", "rate_per_s": 2.0, "burstiness": 0.5, key: value}
    config = {"models": [{"id": "m", "model_name": "org/m"}]}
    with pytest.raises(ConfigError, match=rf"traffic_simulation\.{key}: found {value}, allowed a"):
        load_sweep(config | {"parameters": {"traffic_simulation": traffic}})


def test_the_number_of_arrivals_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(traffic, "MOST_ARRIVALS", 100)
    asked = {"mode": "poisson", "rate_per_s": 100.0, "seed": 1, "ramp_s": 1.0, "horizon_s": 9.0}
    with pytest.raises(
        LlmEnergyError, match="more than 100 requests arrive within the 10 s of ramp"
    ):
        traffic.make_arrivals(asked)
