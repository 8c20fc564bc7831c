"""When a cell's later repeats are left out, and what that decision rests on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t
from support import builders

from llm_energy.analysis.statistics.intervals import serial_guard
from llm_energy.analysis.statistics.summary import summarise
from llm_energy.measure.stopping import earlier_values_j, enough
from llm_energy.records import Protocol, write_record

WORKLOADS = (builders.workload("b1"), builders.workload("b8"))
ASKED = builders.spec(
    repeat=4, workloads=WORKLOADS, protocol=Protocol(target_ci_percent=3.0, min_repeats=3)
)
IN_4_BITS = {"load_in_4bit": True, "load_in_8bit": False}
TOKENS = builders.REQUESTS * builders.PASSES * builders.OUTPUT_TOKENS


def settings(**changes) -> Protocol:
    return Protocol(**({"target_ci_percent": 3.0, "min_repeats": 3} | changes))


def test_a_narrow_interval_is_enough_and_the_reason_has_the_figures():
    reason = enough({"b1": [1.00, 1.01, 0.99], "b8": [0.2, 0.2, 0.2]}, settings())
    half = 100 * serial_guard(3) * t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert "within 3 % of the mean after 3 repeats" in reason
    assert f"b1 1 J per token, {half:.2g} %" in reason
    assert "b8 0.2 J per token, 0 %" in reason


def test_every_workload_must_be_narrow_enough():
    assert enough({"b1": [1.0, 1.0, 1.0], "b8": [1.0, 1.2, 0.8]}, settings()) is None


def test_the_wanted_number_of_repeats_is_measured_in_any_case():
    assert enough({"b1": [1.0, 1.0]}, settings(min_repeats=3)) is None
    assert enough({"b1": [1.0, 1.0]}, settings(min_repeats=2)) is not None
    assert enough({"b1": [1.0]}, settings(min_repeats=1)) is None


def test_without_a_target_every_repeat_is_measured():
    assert enough({"b1": [1.0] * 9}, settings(target_ci_percent=None)) is None


def test_no_energy_at_all_is_never_enough():
    assert enough({"b1": [0.0, 0.0, 0.0]}, settings()) is None


@given(st.lists(st.floats(0.1, 10.0), min_size=3, max_size=12), st.floats(0.1, 50.0))
def test_enough_is_exactly_when_the_t_interval_is_narrower_than_the_target(values, target):
    summary = summarise(values)
    half_percent = 50 * (summary.ci_high - summary.ci_low) / summary.mean
    if abs(half_percent - target) > 1e-6:
        decided = enough({"b1": values}, settings(target_ci_percent=target)) is not None
        assert decided == (half_percent < target)


def test_stopping_early_costs_the_interval_a_little_of_its_coverage():
    normal, cells, covered = random.Random(1965), 2000, 0
    for _ in range(cells):
        values: list[float] = []
        while not enough({"b1": values}, settings(target_ci_percent=2.0)) and len(values) < 10:
            values.append(normal.gauss(1.0, 0.02))
        summary = summarise(values)
        covered += summary.ci_low <= 1.0 <= summary.ci_high
    assert 0.93 < covered / cells < 0.96


def write(folder: Path, repeat: int, joules_per_token: float = 130.0, **changes) -> Path:
    """Write the measurement of one repeat of the cell; keywords change its record."""
    the_spec = replace(ASKED, repeat=repeat, workloads=WORKLOADS[:: 1 if repeat % 2 else -1])
    measured = builders.measurement(the_spec)
    gpu_w = joules_per_token * TOKENS / builders.WINDOW_S
    windows = tuple(
        replace(
            window,
            interval=replace(
                window.interval, energy=builders.energy(builders.WINDOW_S, gpu_w=gpu_w)
            ),
        )
        for window in measured.windows
    )
    path = folder / f"r{repeat:02d}.json"
    write_record(path, replace(measured, **({"windows": windows} | changes)))
    return path


def earlier(folder: Path, spec=ASKED, **manifest):
    return earlier_values_j(
        spec,
        folder / f"r{spec.repeat:02d}.json",
        builders.manifest(**manifest),
        builders.prompt_set("m", ["b1", "b8"]),
    )


def test_the_measured_joules_of_earlier_repeats_count_and_no_others(tmp_path):
    for repeat, value_j in ((1, 130.0), (2, 131.0), (3, 132.0), (5, 900.0)):
        write(tmp_path, repeat, value_j)
    write(tmp_path, 2, 700.0).rename(tmp_path / "r01.interrupted-1.json")
    write(tmp_path, 2, 131.0)
    (tmp_path / "r04.partial.json").write_text("{")
    found = earlier(tmp_path)
    assert found == {
        "b1": pytest.approx([130.0, 131.0, 132.0]),
        "b8": pytest.approx([130.0, 131.0, 132.0]),
    }


def test_repeats_that_differ_in_their_draw_alone_count(tmp_path):
    """Each block has its own arrivals and its own seed of sampling."""

    def drawn(spec, seed):
        workloads = tuple(
            replace(
                w,
                parameters=w.parameters | {"random_seed": seed},
                engine=w.engine | {"seed": seed},
                arrivals_sha256=f"{seed:064x}",
            )
            for w in spec.workloads
        )
        return replace(spec, seed=seed, engine=spec.engine | {"seed": seed}, workloads=workloads)

    for repeat in (1, 2, 3):
        write(tmp_path, repeat, spec=drawn(replace(ASKED, repeat=repeat), seed=repeat))
    assert [len(values) for values in earlier(tmp_path, drawn(ASKED, 4)).values()] == [3, 3]


def test_a_first_repeat_has_nothing_to_rest_on(tmp_path):
    assert earlier(tmp_path / "none", replace(ASKED, repeat=1)) == {"b1": [], "b8": []}


def failed_window(folder: Path) -> None:
    window = builders.window("b8", outcome="oom", reason="full", interval=None, requests=None)
    write(folder, 2, windows=(builders.window("b1"), window))


def invalid_window(folder: Path) -> None:
    aborted = builders.request_table(1080.0, finish_reason=("abort",) * 4)
    window = builders.window("b8", 1080.0, requests=aborted)
    write(folder, 2, windows=(builders.window("b1"), window))


def other_spec(folder: Path) -> None:
    write(folder, 2, spec=replace(ASKED, repeat=2, engine={"dtype": "float16"}))


def other_weights(folder: Path) -> None:
    write(folder, 2, weights_sha256="x" * 64)


def other_prompts(folder: Path) -> None:
    measured = builders.measurement(replace(ASKED, repeat=2))
    columns = {"prompt_tokens": (builders.PROMPT_TOKENS - 1,) * 4}
    write(
        folder,
        2,
        windows=tuple(
            replace(w, requests=replace(w.requests, **columns)) for w in measured.windows
        ),
    )


def no_record(folder: Path) -> None:
    (folder / "r02.json").write_text('{"schema_version": 1')


def not_needed(folder: Path) -> None:
    write(folder, 2, outcome="not_needed", reason="enough", windows=())


@pytest.mark.parametrize(
    "spoil",
    [
        failed_window,
        invalid_window,
        other_spec,
        other_weights,
        other_prompts,
        no_record,
        not_needed,
    ],
)
def test_a_repeat_that_would_not_enter_the_mean_does_not_count(tmp_path, spoil):
    for repeat in (1, 2, 3):
        write(tmp_path, repeat)
    assert [len(values) for values in earlier(tmp_path).values()] == [3, 3]
    spoil(tmp_path)
    assert [len(values) for values in earlier(tmp_path).values()] == [2, 2]


def test_what_validate_calls_invalid_by_the_files_around_it_does_not_count(tmp_path):
    quantised = [
        replace(w, parameters=w.parameters | {"quantization": IN_4_BITS}) for w in WORKLOADS
    ]
    asked = replace(ASKED, workloads=tuple(quantised))
    for repeat, weight_bytes in ((1, 3000), (2, 4000), (3, 3000)):
        measured = builders.measurement(replace(asked, repeat=repeat))
        effective = measured.effective | {"weight_bytes": weight_bytes}
        write(tmp_path, repeat, spec=measured.spec, effective=effective)
    assert [len(values) for values in earlier(tmp_path, asked).values()] == [2, 2]


def test_repeats_that_metered_different_components_are_not_thrown_together(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    both = (
        *builders.energy(builders.WINDOW_S)[:1],
        replace(builders.energy(builders.WINDOW_S)[0], component="cpu", device=None),
    )
    window = builders.measurement(replace(ASKED, repeat=3)).windows
    write(
        tmp_path,
        3,
        windows=tuple(replace(w, interval=replace(w.interval, energy=both)) for w in window),
    )
    assert earlier(tmp_path) == {"b1": [], "b8": []}


def test_where_nothing_is_measured_the_estimates_decide(tmp_path):
    for repeat in (1, 2, 3):
        measured = builders.measurement(replace(ASKED, repeat=repeat))
        window_energy = builders.estimated_only(builders.WINDOW_S)
        idle_energy = builders.estimated_only(builders.IDLE_S, cpu_w=10.0)
        write(
            tmp_path,
            repeat,
            effective=measured.effective | {"device": "cpu", "device_uuids": []},
            baselines=tuple(replace(b, energy=idle_energy) for b in measured.baselines),
            windows=tuple(
                replace(w, interval=replace(w.interval, energy=window_energy))
                for w in measured.windows
            ),
        )
    estimate_j = (20.0 + builders.DRAM_W) * builders.WINDOW_S / TOKENS
    assert earlier(tmp_path)["b1"] == pytest.approx([estimate_j] * 3)
