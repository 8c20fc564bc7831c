"""One or more faults for each check: how to bring it about on a simulated host or in a record.

``FAULTS[id]`` are variants; each makes the check of that id speak, and has a healthy twin that is
the same sweep without the fault. A sweep is one cell with two repeats, of which the second is
faulty, unless a variant says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from support.fault_parts import (
    Sweep,
    archive,
    asking,
    at_begin,
    at_middle,
    both,
    cells_in_order,
    change_specs,
    cut_last,
    delete_last,
    doubled_package,
    edit_energy,
    edit_window,
    fan_fails,
    few_arrivals,
    filling,
    first_pass_slow,
    gpus,
    hosted,
    idle_rises,
    leftover,
    limit_changes,
    load_reaches_in,
    miscounted,
    modelled_cpu,
    modelled_too,
    negative,
    on_engine,
    on_gpus,
    on_host,
    one_boot,
    other_driver,
    protocol,
    repeats_by_temperature,
    reporting,
    slow_to_settle,
    stick,
    tenant,
    throttle,
    weak_second_gpu,
    without_ids,
)
from support.fault_sweeps import Setting, arriving, healthy_setting, judge, measure, write_sweep

from llm_energy.measure.simulation.gpus import gpu_uuid
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.truth import PackageTruth
from llm_energy.records import Interval, Measurement, Severity

RECENT = 100  # healthy repeats that are kept


def same(thing: Any) -> Any:
    """Change nothing."""
    return thing


@dataclass(frozen=True)
class Fault:
    """How one fault comes about; what is left out changes nothing.

    ``suits`` prepares a setting in which the fault can be, of faulty repeat and healthy twin alike.
    ``setting`` changes what the faulty repeat is. ``during`` meddles with its host, given when the
    twin's window is. ``record`` edits what the faulty repeat recorded. ``sweep`` and ``twin_sweep``
    make whole sweeps out of the repeats, ``files`` damages what was written (plan, measurements).
    """

    suits: Callable[[Setting], Setting] = same
    setting: Callable[[Setting], Setting] = same
    during: Callable[[SimulatedHost, Interval], None] | None = None
    record: Callable[[Measurement], Measurement] = same
    sweep: Callable[[Sweep, Random], Sweep] | None = None
    twin_sweep: Callable[[Sweep, Random], Sweep] | None = None
    files: Callable[[Path, list[Path]], None] | None = None


def healthy_sweep(fault: Fault, seed: int, folder: Path) -> dict[str, set[Severity]]:
    """Run the healthy twin of a fault and give its flags."""
    setting = fault.suits(healthy_setting(seed))
    sweep = [healthy_repeat(setting, repeat, seed) for repeat in (1, 2)]
    if fault.twin_sweep:
        sweep = fault.twin_sweep(sweep, Random(seed))
    plan_path, _ = write_sweep(sweep, setting, folder)
    return judge(plan_path)


def faulty_sweep(fault: Fault, seed: int, folder: Path) -> dict[str, set[Severity]]:
    """Run a sweep with the fault and give its flags."""
    setting = fault.suits(healthy_setting(seed))
    sweep = [healthy_repeat(setting, 1, seed), fault.record(_faulty_repeat(fault, setting, seed))]
    if fault.sweep:
        sweep = fault.sweep(sweep, Random(seed))
    plan_path, paths = write_sweep(sweep, setting, folder)
    if fault.files:
        fault.files(plan_path, paths)
    return judge(plan_path)


_recent: dict[tuple[str, int, int], Measurement] = {}


def healthy_repeat(setting: Setting, repeat: int, seed: int) -> Measurement:
    """Measure a healthy repeat; equal settings and seeds give equal ones, so those are kept."""
    key = (repr(setting), repeat, seed)
    if key not in _recent:
        if len(_recent) >= RECENT:
            _recent.clear()
        _recent[key] = measure(setting, repeat, seed)
    return _recent[key]


def _faulty_repeat(fault: Fault, setting: Setting, seed: int) -> Measurement:
    changed = fault.setting(setting)
    if fault.during is None and changed == setting:
        return healthy_repeat(setting, 2, seed)
    disturb = None
    if fault.during:
        # Until the fault begins, both live through the same: so its window is known beforehand.
        window = healthy_repeat(setting, 2, seed).windows[0].interval

        def disturb(host: SimulatedHost) -> None:
            fault.during(host, window)

    return measure(changed, 2, seed, disturb)


WITH_CPU = on_host(packages=(PackageTruth(),))
SMALL_RANGE = PackageTruth(range_uj=2 * 10**10)
TWO_SOCKETS = on_host(packages=(PackageTruth(), PackageTruth()))
CONTINUOUS = asking(
    strategy="dynamic", batch_size=8, requests=64, output_tokens=64, least_tokens=64
)
BATCHED = asking(strategy="static", batch_size=8, requests=16)
FORCED = asking(output_tokens=64, least_tokens=64)
FREE = asking(output_tokens=64, least_tokens=1)
ARGUMENTS = {"block_size": 64}
FLOAT, QUANTISED = asking(in_8_bits=False), asking(in_8_bits=True)
STEADY = asking(batch_size=8, requests=16, output_tokens=64, least_tokens=64, strategy="static")
# Without a data sheet no physical floor is known that too few joules would fall below.
ONLY_UNKNOWN_GPUS = both(on_host(packages=()), on_gpus(name="unknown"))
LIKE_AN_ANCHOR = both(STEADY, FLOAT, asking(devices=1, prompt_tokens=(60,)))

FAULTS: dict[str, tuple[Fault, ...]] = {
    "M01": (Fault(during=at_middle(lambda host: host.gpus[0].reset_counter())),),
    "M02": (Fault(suits=both(gpus(1), asking(devices=1)), during=at_begin(stick)),),
    "M03": (
        Fault(
            suits=STEADY,
            setting=protocol(window_min_duration_s=2.0, thermal_policy="none"),
        ),
    ),
    "M04": (
        Fault(setting=on_gpus(power_gain=1.12)),
        Fault(setting=on_gpus(power_gain=0.7)),
    ),
    "M05": (Fault(setting=on_gpus(poll_blind_share=0.25)),),
    "M06": (
        Fault(
            suits=both(gpus(2), asking(devices=1)),
            setting=on_engine(gpu_uuids=(gpu_uuid(1),)),
        ),
    ),
    "M07": (
        Fault(
            suits=both(gpus(2), asking(devices=1)),
            setting=on_engine(gpu_uuids=(gpu_uuid(0), gpu_uuid(1))),
        ),
    ),
    "M08": (Fault(setting=on_gpus(mig=True)),),
    "M09": (Fault(record=edit_energy(negative)),),
    "M10": (Fault(setting=on_gpus(gain=2.5)),),
    "M11": (Fault(suits=WITH_CPU, record=edit_energy(modelled_cpu)),),
    "M12": (Fault(suits=WITH_CPU, setting=on_host(packages=(PackageTruth(readable=False),))),),
    "M13": (Fault(suits=TWO_SOCKETS, setting=on_host(packages=(PackageTruth(), SMALL_RANGE))),),
    "M14": (Fault(suits=TWO_SOCKETS, record=edit_energy(doubled_package, everywhere=True)),),
    "M15": (Fault(suits=WITH_CPU, record=edit_energy(modelled_too)),),
    "M18": (
        Fault(
            during=lambda host, window: host.sampler_pauses.append(
                (window.start_s + 1, window.start_s + 6)
            )
        ),
    ),
    "M20": (
        Fault(setting=on_engine(clock_offset_s=-100.0)),
        Fault(during=at_middle(lambda host: host.step_wall_clock(2.0))),
    ),
    "M21": (Fault(setting=on_gpus(gain=1000.0)), Fault(setting=on_gpus(gain=1e-3))),
    "M22": (Fault(suits=on_host(packages=()), setting=WITH_CPU),),
    "M23": (Fault(during=lambda host, window: host.at(window.end_s, idle_rises)),),
    "M25": (Fault(setting=on_gpus(c2c=True)),),
    "M24": (Fault(suits=WITH_CPU, record=edit_energy(modelled_cpu)),),
    "H01": (Fault(during=at_middle(tenant)), Fault(during=at_begin(tenant))),
    "H02": (
        Fault(during=at_begin(throttle(0.03))),
        Fault(during=at_begin(throttle(0.3, "power_brake"))),
        Fault(during=at_begin(throttle(0.1, "sw_thermal"))),
    ),
    "H03": (
        Fault(during=at_middle(limit_changes)),
        Fault(setting=on_gpus(default_limit_w=1000.0)),
    ),
    "H04": (Fault(setting=on_gpus(throttled_share={"power": 0.4})),),
    "H05": (Fault(during=at_begin(fan_fails)),),
    "H06": (Fault(setting=on_gpus(ecc=False)),),
    "H07": (
        Fault(during=at_begin(lambda host: host.change(foreign_busy_per_s=4.0))),
        Fault(during=at_begin(lambda host: host.change(steal_per_s=1.0))),
        Fault(during=at_begin(lambda host: host.change(stalled_per_s=0.5))),
    ),
    "H08": (
        Fault(during=at_begin(lambda host: host.change(swap_pages_per_s=100.0))),
        Fault(during=at_begin(lambda host: host.change(major_faults_per_s=50.0))),
    ),
    "H09": (Fault(during=at_begin(lambda host: host.change(disk_read_bytes_per_s=2e7))),),
    "H10": (Fault(record=hosted(hostname="node2")), Fault(record=other_driver)),
    "H11": (Fault(setting=on_host(governor="powersave")),),
    "H12": (Fault(setting=on_gpus(shows_processes=False)),),
    "H13": (Fault(setting=on_host(foreign_busy_per_s=12.0)),),
    "H14": (Fault(suits=STEADY, setting=slow_to_settle),),
    "H15": (
        Fault(sweep=repeats_by_temperature(0.04), twin_sweep=repeats_by_temperature(0.0)),
        Fault(sweep=repeats_by_temperature(-0.04), twin_sweep=repeats_by_temperature(0.0)),
    ),
    "H16": (Fault(record=hosted(packages={"torch": "2.14.0"})),),
    "H17": (Fault(setting=reporting(flow="server")),),
    "E01": (Fault(setting=reporting(hf_device_map={"model.layers.3": "cpu"})),),
    "E02": (Fault(setting=reporting(device="cpu")),),
    "E03": (Fault(setting=on_engine(dtype="float16")),),
    "E04": (
        Fault(suits=QUANTISED, setting=on_engine(weight_factor=1.7)),
        Fault(suits=FLOAT, setting=on_engine(weight_factor=0.5)),
    ),
    "E05": (Fault(suits=QUANTISED, setting=reporting(quantization="bitsandbytes")),),
    "E06": (Fault(setting=on_engine(cached_share=0.5)),),
    "E07": (Fault(suits=STEADY, during=first_pass_slow),),
    "E08": (Fault(setting=on_engine(preempted_share=0.1)),),
    "E09": (Fault(suits=CONTINUOUS, setting=on_engine(running_limit=3)),),
    "E10": (Fault(setting=reporting(kv_offloading_gib=4)),),
    "E11": (Fault(suits=FORCED, setting=on_engine(short_share=0.1)),),
    "E12": (Fault(suits=FORCED, setting=on_engine(stop_share=0.1)),),
    "E13": (Fault(suits=FREE, setting=on_engine(never_stops=True)),),
    "E14": (Fault(setting=on_engine(cut_share=0.1)),),
    "E15": (
        Fault(
            record=lambda m: replace(m, prompts_sha256={w: "x" for w in m.prompts_sha256}),
            files=archive,
        ),
        Fault(record=lambda m: replace(m, weights_sha256="x" * 64), files=archive),
    ),
    "E16": (Fault(setting=on_engine(generation={"repetition_penalty": 1.2})),),
    "E17": (Fault(suits=both(BATCHED, FORCED), setting=asking(prompt_tokens=(10,) * 7 + (2000,))),),
    "E18": (Fault(record=edit_window(without_ids)),),
    "E19": (Fault(setting=on_engine(abort_share=0.1)),),
    "E20": (Fault(suits=FORCED, setting=on_engine(repeated_tokens=True)),),
    "E21": (Fault(setting=reporting(attn_implementation="eager")),),
    "E22": (Fault(setting=reporting(speculative_method="ngram")),),
    "E24": (Fault(record=load_reaches_in),),
    "E25": (Fault(suits=LIKE_AN_ANCHOR, setting=on_gpus(gain=0.05)),),
    "E26": (
        Fault(suits=LIKE_AN_ANCHOR, setting=on_gpus(gain=0.05)),
        Fault(suits=LIKE_AN_ANCHOR, setting=on_gpus(gain=40.0)),
    ),
    "E27": (Fault(suits=both(gpus(2), asking(devices=2)), setting=weak_second_gpu),),
    "E28": (
        Fault(
            suits=both(STEADY, arriving("poisson", rate_per_s=4.0)),
            setting=on_engine(pace=24.0),
        ),
        Fault(
            suits=both(CONTINUOUS, arriving("gamma", rate_per_s=4.0, burstiness=0.5)),
            setting=on_engine(pace=24.0),
        ),
    ),
    "E29": (
        Fault(
            suits=STEADY,
            setting=both(
                on_engine(cold=tuple(1.5 - 0.1 * k for k in range(15))),
                protocol(thermal_policy="none"),
            ),
        ),
        # Seen on a GPU: a first pass that takes three times as long passed for a healthy window.
        Fault(
            setting=protocol(warmup_min_passes=0, warmup_max_passes=0, thermal_policy="none"),
        ),
    ),
    "E30": (Fault(during=leftover),),
    "E31": (
        Fault(suits=ONLY_UNKNOWN_GPUS, setting=on_gpus(gain=0.1)),
        Fault(suits=ONLY_UNKNOWN_GPUS, setting=on_engine(pace=8.0)),
    ),
    "E32": (Fault(setting=reporting(engine_version="1.3.0rc26+stand.in")),),
    "E37": (
        Fault(
            suits=both(asking(arguments=ARGUMENTS), reporting(arguments=ARGUMENTS)),
            setting=reporting(arguments={"block_size": 32}),
        ),
    ),
    "E38": (
        Fault(setting=reporting(server_started_by="somebody else", server_host="this host")),
        Fault(setting=reporting(server_started_by="this job", serves_the_models_folder=False)),
    ),
    "E33": (
        Fault(
            suits=both(STEADY, arriving("poisson", rate_per_s=4.0)),
            record=edit_window(few_arrivals),
        ),
    ),
    "E34": (
        Fault(
            suits=both(STEADY, arriving("poisson", rate_per_s=4.0)),
            setting=arriving("poisson", rate_per_s=4.0, ramp_s=0.05),
        ),
    ),
    "E35": (
        Fault(
            suits=both(STEADY, arriving("constant", rate_per_s=4.0)),
            record=edit_window(filling),
        ),
    ),
    "E36": (Fault(record=edit_window(miscounted)),),
    "P01": (Fault(sweep=one_boot),),
    "P02": (Fault(sweep=cells_in_order(False), twin_sweep=cells_in_order(True)),),
    "P03": (Fault(files=delete_last),),
    "P04": (Fault(files=delete_last),),
    "P06": (Fault(files=change_specs),),
    "P07": (Fault(files=cut_last),),
}
