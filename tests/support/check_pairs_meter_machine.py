"""A fault and its healthy twin for each check of sensors, joules, GPUs, host and sessions.

The form of a pair stands in ``test_catalogue.py``.
"""

from __future__ import annotations

import math
from dataclasses import replace

from support import builders
from support.check_cases import case, column, metered, traces, traffic

from llm_energy.analysis.checks import WindowEvidence, WindowSummary
from llm_energy.records import ComponentEnergy, Interval

SOUND = (ComponentEnergy("gpu", "GPU-1", "measured", "nvml_total_energy", 4000.0),)
GIB = 2**30


def gpu(device: str, power_w: float, duration_s: float = 40.0, **changes) -> ComponentEnergy:
    part = ComponentEnergy("gpu", device, "measured", "nvml_total_energy", power_w * duration_s)
    return replace(part, **changes)


def waiting(gpu_w: float) -> Interval:
    """Return a window with a GPU of little power."""
    return builders.interval("window", 1020.0, 40.0, builders.energy(40.0, gpu_w=gpu_w))


def idle(name: str, start_s: float, gpu_w: float) -> Interval:
    """Return an interval of 10 s in which the loaded engine waits."""
    return builders.interval(name, start_s, 10.0, builders.energy(10.0, gpu_w=gpu_w))


def idled(gpu_w: float, before_w: float, after_w: float) -> WindowEvidence:
    """Return a window soon after the first of two baselines, long before the other."""
    baselines = (
        idle("loaded_idle_before", 1010.0, before_w),
        idle("loaded_idle_after", 1500.0, after_w),
    )
    return inside(builders.energy(40.0, gpu_w=gpu_w), measurement={"baselines": baselines})


def zone(device: str, power_w: float | None, duration_s: float, component="cpu") -> ComponentEnergy:
    """Return what a RAPL zone counted, or that it may have wrapped where there is no power."""
    if power_w is None:
        reason = "the counter may have wrapped more than once"
        return ComponentEnergy(component, device, "unavailable", "unavailable", None, reason)
    return ComponentEnergy(component, device, "measured", "rapl", power_w * duration_s)


def inside(parts=None, duration_s: float = 40.0, measurement=None, **changes) -> WindowEvidence:
    """Return a case whose window's interval has these parts and changes."""
    interval = builders.interval("window", 1020.0, duration_s, parts, **changes)
    table = builders.request_table(1020.0, duration_s)
    return case({"interval": interval, "requests": table}, **(measurement or {}))


def traced(duration_s: float = 40.0, measurement=None, module=False, **changes) -> WindowEvidence:
    """Return a case whose GPU's power trace is changed in the window."""
    parts = (MODULE,) if module else builders.energy(duration_s)
    summary = builders.sampled(parts[0], duration_s, **changes)
    return inside(parts, duration_s, measurement, trace=(summary,))


def gpued(measurement=None, **changes) -> WindowEvidence:
    return inside(measurement=measurement, boards=(builders.gpu_activity(**changes),))


def hosted(duration_s: float = 40.0, **changes) -> WindowEvidence:
    return inside(None, duration_s, host=builders.host_activity(duration_s, **changes))


def served(duration_s: float = 40.0, **changes) -> WindowEvidence:
    """Return a window of an engine behind a server."""
    used = {"effective": {"dtype": "float32", "flow": "server"}}
    host = builders.host_activity(duration_s, **changes)
    return inside(None, duration_s, used, host=host)


def baselines(deep_idle=None, before=None, after=None) -> dict:
    """Return the healthy baselines with changes to the fields of each."""
    healthy = builders.measurement().baselines
    changes = (deep_idle, before, after)
    return {
        "baselines": tuple(replace(b, **(c or {})) for b, c in zip(healthy, changes, strict=True))
    }


def idle_parts(*parts: ComponentEnergy) -> dict:
    """Return baselines in which every interval has these parts."""
    return baselines(*({"energy": parts},) * 3)


def deep_idle(**changes) -> dict:
    """Return baselines with another trace of the GPU before anything was loaded."""
    (summary,) = builders.measurement().baselines[0].trace
    return baselines({"trace": (replace(summary, **changes),)})


def loaded(before_bytes: int | None, after_bytes: int | None) -> dict:
    """Return a measurement whose GPU held that much before and after the load."""
    gpu = builders.gpu_activity(memory_used_bytes=(before_bytes, after_bytes))
    return {"load": builders.interval("load", 1010.0, 5.0, boards=(gpu,))}


def engine(*uuids: str) -> dict:
    return {"effective": {"dtype": "float32", "device_uuids": list(uuids)}}


def ticking(**ticks: float | None) -> dict:
    report = {name.replace("_", "-"): tick for name, tick in ticks.items()}
    return {"meter": builders.meter_report(counter_tick_s=report)}


# counters

LOST = ComponentEnergy("gpu", "GPU-1", "unavailable", "unavailable", None, "GPU is lost")
BACKWARDS = replace(LOST, reason="NVML's energy counter went backwards")
PACKAGE = zone("package-0", 50.0, 10.0)


def wrapping(power_w: float | None, duration_s: float = 100.0) -> WindowEvidence:
    parts = (*builders.energy(duration_s)[:1], zone("package-0", power_w, duration_s))
    return inside(parts, duration_s, idle_parts(gpu("GPU-1", 50.0, 10.0), PACKAGE))


def modelled(measurement: dict) -> WindowEvidence:
    """Return a window whose CPU joules are those of a model."""
    reason = "not measured: the counter may have wrapped more than once"
    part = ComponentEnergy("cpu", "machine", "estimated", "codecarbon", 720.0, reason)
    return inside((*SOUND, part), measurement=measurement)


def by_method(method: str) -> dict:
    """Return a measurement whose memory is estimated by this method."""
    gpu_part, cpu_part, dram_part = builders.energy(40.0)
    parts = (gpu_part, cpu_part, replace(dram_part, method=method))
    return {"windows": (replace(builders.window(), interval=inside(parts).window.interval),)}


def zones(*powers_w: tuple[str, float]) -> WindowEvidence:
    parts = tuple(zone(name, power_w, 40.0) for name, power_w in powers_w)
    idle = tuple(zone(name, power_w / 2, 10.0) for name, power_w in powers_w)
    return inside(parts, measurement=idle_parts(*idle))


MODULE = gpu("GPU-1", 100.0, method="nvml_total_energy_counter_whole_module")
MIG = gpu("GPU-1", 100.0, method="nvml_total_energy_counter_whole_board_mig")
VIRTUAL = replace(LOST, reason="NVML's energy counter: Not Supported; the GPU is virtual")

METER = {
    "M01": [
        (inside((BACKWARDS,), measurement={"baselines": ()}), "invalid", inside()),
        # A GPU that never had a counter lost none.
        (inside((LOST,)), "invalid", inside((LOST,), measurement=idle_parts(LOST))),
    ],
    "M02": [
        (inside((gpu("GPU-1", 0.0),)), "invalid", inside((gpu("GPU-1", 0.1),))),
        (inside(measurement=ticking(GPU_1=None)), "warning", inside(measurement=ticking())),
        # Not even two ticks long: that says nothing about the counter.
        (
            inside((gpu("GPU-1", 0.0),), measurement=ticking(GPU_1=None)),
            "invalid",
            inside((gpu("GPU-1", 0.0),), 0.15),
        ),
    ],
    "M03": [
        (metered(29.0), "note", metered(30.0)),
        (metered(4.0), "warning", metered(31.0)),
        (metered(0.5), "invalid", metered(31.0)),
        (metered(0.5, builders.estimated_only(0.5)), "note", metered(31.0)),
        (
            inside(measurement=ticking(GPU_1=1.0)),
            "warning",
            inside(measurement=ticking(GPU_1=0.5, GPU_2=9.0)),
        ),
        (inside(None, 4.0, ticking(GPU_1=0.02)), "note", inside(measurement=ticking(GPU_1=0.02))),
    ],
    "M08": [
        (inside((MIG,)), "warning", inside()),
        (
            inside((gpu("0000", 100.0, method="amdsmi_energy_count_whole_card"),)),
            "warning",
            inside((gpu("0000", 100.0, method="amdsmi_energy_count"),)),
        ),
        (
            case(host=builders.host(gpus=(builders.gpu(mig_mode=True),))),
            "warning",
            case(host=builders.host(gpus=(builders.gpu(uuid="GPU-9", mig_mode=True),))),
        ),
        (inside((VIRTUAL,)), "invalid", inside((LOST,))),
    ],
    "M13": [
        (wrapping(40.0), "invalid", wrapping(46.0)),
        (wrapping(None), "warning", wrapping(50.0)),
        # In so short a window no counter wraps, and an idle host may be idler later.
        (wrapping(40.0), "invalid", wrapping(40.0, 50.0)),
        # An estimate that stands in for a counter is seen too, and one without any counter is not.
        (modelled(idle_parts(PACKAGE)), "warning", modelled({})),
    ],
    "M14": [
        (zones(("psys", 90.0), ("package-0", 50.0)), "invalid", zones(("psys", 90.0))),
        (
            zones(("package-0-die-0", 50.0), ("package-0-die-1", 50.0)),
            "invalid",
            zones(("package-0", 50.0), ("package-1", 50.1)),
        ),
        # One tick of 1 ms between the readings of two files is 80 mJ of 3200 J.
        (
            zones(("package-0", 80.0), ("package-1", 80.002)),
            "invalid",
            zones(("package-0", 80.0), ("package-1", 80.05)),
        ),
        (inside((*SOUND, *SOUND)), "invalid", inside((*SOUND, gpu("GPU-2", 100.0)))),
    ],
    "M20": [
        (column(arrival_s=(1019.0,) * 4), "invalid", column(arrival_s=(1020.0,) * 4)),
        (column(last_token_s=(1061.0,) * 4), "invalid", column(last_token_s=(1060.0,) * 4)),
        (column(first_token_s=(1059.0,) * 4), "invalid", column(first_token_s=(None,) * 4)),
        (metered(-1.0), "invalid", case()),
        (hosted(wall_clock_step_s=-0.2), "warning", hosted(wall_clock_step_s=0.05)),
    ],
}

METER["M25"] = [(inside((MODULE,)), "note", inside())]
METER["M24"] = [
    (
        traces(by_method("codecarbon(4 W)"), by_method("codecarbon(8 W)")),
        {1: "warning", 2: "warning"},
        traces({}, {}),
    )
]

# the power trace

WITHOUT_TRACE = builders.meter_report(trace=None, trace_reason="the sampler hung")
NOT_SAMPLED = replace(builders.spec(), meter=replace(builders.spec().meter, sampling_period_s=None))

POWER_TRACE = {
    "M04": [
        (traced(energy_j=4240.0), "warning", traced(energy_j=4160.0)),
        (traced(energy_j=3160.0), "invalid", traced(energy_j=None)),
        # The edges of a short window weigh more, but not by a factor.
        (traced(20.0, energy_j=2110.0), "note", traced(20.0, energy_j=2050.0)),
        (traced(20.0, energy_j=2250.0), "warning", traced(20.0, energy_j=2050.0)),
        (traced(20.0, energy_j=4000.0), "invalid", traced(20.0, energy_j=2050.0)),
        # What is sampled is the GPU's power, and not that of the module it is a part of.
        (traced(energy_j=3000.0), "invalid", traced(module=True, energy_j=3000.0)),
        # A trace with a long gap is no evidence against the counter.
        (traced(energy_j=5000.0), "invalid", traced(energy_j=5000.0, longest_gap_s=9.0)),
    ],
    "M05": [
        (case(**deep_idle(energy_j=230.0)), "warning", case(**deep_idle(energy_j=205.0))),
        # A counter that shows more than the trace was not disturbed by it.
        (case(**deep_idle(energy_j=320.0)), "warning", case(**deep_idle(energy_j=150.0))),
    ],
    "M18": [
        (inside(measurement={"meter": WITHOUT_TRACE}, trace=()), "warning", inside()),
        (inside(trace=()), "warning", inside(measurement={"meter": None}, trace=())),
        (inside(trace=()), "warning", inside(measurement={"spec": NOT_SAMPLED}, trace=())),
        (traced(longest_gap_s=1.5), "warning", traced(longest_gap_s=0.25)),
        (traced(longest_gap_s=0.5), "note", traced(longest_gap_s=None)),
        (traced(longest_gap_s=0.5, samples=100), "warning", traced(samples=200)),
    ],
}

# joules

TWO = {**engine("GPU-1", "GPU-2"), **idle_parts(*(gpu(f"GPU-{k}", 50.0, 10.0) for k in (1, 2)))}


def pair_of_gpus(second_w: float, percent: float | None) -> WindowEvidence:
    """Return two metered GPUs, of which the second works less."""
    parts = (gpu("GPU-1", 100.0), gpu("GPU-2", second_w))
    summaries = tuple(
        builders.sampled(part, 40.0, utilization_percent=utilization)
        for part, utilization in zip(parts, (97.0, percent), strict=True)
    )
    return inside(parts, measurement=TWO, trace=summaries)


SHARDED = {"sharding": {"strategy": "tensor_parallel", "num_devices": 2}}
ON_TWO = builders.spec(workloads=(builders.workload(**SHARDED),))
UNSEEN = {"own_process_seen": False}
HIDDEN = {"foreign_processes": None, "own_process_seen": None}

ENERGY = {
    "M06": [
        (case(**engine("GPU-1", "GPU-2")), "invalid", case(**engine("GPU-1"))),
        (case(**engine("GPU-2")), "invalid", case(**engine("1"))),
        (
            inside(builders.estimated_only(40.0), measurement=engine("GPU-1")),
            "invalid",
            inside(builders.estimated_only(40.0), measurement=engine()),
        ),
        (case(**engine("GPU-2")), "invalid", case(**engine("MIG-7"))),
        (case(**engine("GPU-2")), "invalid", case(effective={"device_uuids": "GPU-2"})),
        (gpued(**UNSEEN), "invalid", gpued(loaded(0, GIB), **UNSEEN)),
        (gpued(loaded(0, 0), **HIDDEN), "invalid", gpued(loaded(0, GIB), **HIDDEN)),
        (gpued(loaded(0, 0), **HIDDEN), "invalid", gpued(loaded(None, 0), **HIDDEN)),
        (gpued(loaded(0, 0), **HIDDEN), "invalid", gpued(loaded(GIB, 0))),
    ],
    "M07": [
        (
            inside((*SOUND, gpu("GPU-2", 100.0)), measurement=engine("GPU-1")),
            "invalid",
            inside((*SOUND, gpu("GPU-2", 100.0)), measurement=TWO),
        ),
        (case(**engine()), "invalid", inside(builders.estimated_only(40.0), measurement=engine())),
        (pair_of_gpus(51.0, 0.0), "invalid", pair_of_gpus(51.0, 40.0)),
        (pair_of_gpus(51.0, None), "invalid", pair_of_gpus(55.0, None)),
        # Where no GPU is far above idle, the model may just be small.
        (
            pair_of_gpus(60.0, 1.0),
            "invalid",
            inside((gpu("GPU-1", 55.0), gpu("GPU-2", 51.0)), measurement=TWO),
        ),
        (
            case(spec=ON_TWO, effective={}),
            "invalid",
            inside((*SOUND, gpu("GPU-2", 99.0)), measurement={"spec": ON_TWO, "effective": {}}),
        ),
    ],
    "M09": [
        (metered(40.0, builders.energy(40.0, gpu_w=power)), "invalid", case())
        for power in (math.nan, math.inf, -1.0, 0.0, 49.0)
    ]
    + [
        (metered(40.0, builders.estimated_only(40.0)[:1]), "invalid", case()),
        (metered(40.0, builders.energy(40.0, dram_w=4.9)), "note", case()),
        # An engine that mostly waits draws what idling does, and no less than that.
        (traffic(interval=waiting(45.0)), "invalid", traffic(interval=waiting(49.0))),
        # Nearest in time, not the mean: the baseline before these windows, or their hot idle.
        (idled(49.0, 50.0, after_w=30.0), "invalid", idled(55.0, 50.0, after_w=70.0)),
        (
            traffic(interval=waiting(52.0), hot_idle=idle("hot_idle", 1060.2, 60.0)),
            "invalid",
            traffic(interval=waiting(45.0), hot_idle=idle("hot_idle", 1060.2, 44.0)),
        ),
    ],
    "M10": [
        (inside((gpu("GPU-1", 17.9),)), "invalid", inside((gpu("GPU-1", 18.1),))),
        (inside((gpu("GPU-1", 317.0),)), "invalid", inside((gpu("GPU-1", 314.0),))),
        (
            inside((gpu("GPU-1", 317.0),)),
            "invalid",
            inside((gpu("GPU-1", 317.0, method=MODULE.method),)),
        ),
        # The limit at the time counts, and without any limit there is nothing to pass.
        (
            inside((gpu("GPU-1", 400.0),)),
            "invalid",
            inside(
                (gpu("GPU-1", 400.0),), boards=(builders.gpu_activity(power_limit_w=(None, 400.0)),)
            ),
        ),
        (
            inside((gpu("GPU-1", 400.0),), boards=()),
            "invalid",
            inside((gpu("GPU-2", 400.0),), boards=(), measurement={"baselines": ()}),
        ),
    ],
    "M11": [(case(), "note", metered(40.0, SOUND))],
    "M12": [(case(), "note", metered(40.0, SOUND))],
    "M15": [
        (
            metered(40.0, (*SOUND, replace(SOUND[0], status="estimated", method="model"))),
            "warning",
            case(),
        )
    ],
    "M21": [
        (inside((gpu("GPU-1", 1e5),)), "invalid", inside((gpu("GPU-1", 700.0),))),
        (inside((gpu("GPU-1", 0.3),)), "invalid", inside((gpu("GPU-1", 12.0),))),
        (
            metered(40.0, builders.energy(40.0, dram_w=5e-3)),
            "invalid",
            metered(40.0, builders.energy(40.0, dram_w=1.0)),
        ),
    ],
    "M22": [(case(), "note", metered(40.0, SOUND))],
    "M23": [
        (
            case(**baselines(after={"energy": builders.energy(10.0, 53.0)})),
            "warning",
            case(**baselines(after={"energy": builders.energy(10.0, 52.0)})),
        ),
        (
            case(**baselines(after={"energy": builders.energy(10.0, 40.0)})),
            "warning",
            case(**baselines(after={"energy": builders.estimated_only(10.0)})),
        ),
        (
            case(**baselines(after={"energy": builders.energy(10.0, 40.0)})),
            "warning",
            case(baselines=builders.measurement().baselines[:2]),
        ),
    ],
}

# GPUs

TENANT = {"boards": (builders.gpu_activity(foreign_processes=(77,)),)}
DISPLAY = {"boards": (builders.gpu_activity(graphics_processes=(1,)),)}


def drawing(*pids: int, **measurement) -> WindowEvidence:
    """Return a window in which these processes draw on the GPU."""
    return gpued(measurement, graphics_processes=pids)


NEIGHBOUR = {"boards": (builders.gpu_activity("GPU-9", foreign_processes=(77,)),)}
COOLDOWN = {
    "spec": builders.spec(protocol=replace(builders.spec().protocol, thermal_policy="cooldown"))
}
NO_POLICY = {
    "spec": builders.spec(protocol=replace(builders.spec().protocol, thermal_policy="none"))
}


def capped(limit_w: float | None, default_w: float | None) -> dict:
    gpus = (builders.gpu(power_limit_w=limit_w, default_power_limit_w=default_w),)
    return {"host": builders.host(gpus=gpus)}


def held(**causes: float) -> dict:
    return {"throttled_s": causes}


def settling(slope: float | None, wait_s: float | None, **changes) -> WindowEvidence:
    return case({"temperature_slope_c_per_10s": slope, "thermal_wait_s": wait_s}, **changes)


GPUS = {
    "H01": [
        (gpued(foreign_processes=(77,)), "invalid", gpued()),
        (inside(**TENANT), "invalid", inside(**NEIGHBOUR)),
        # A display that was there before the load draws the same all the time.
        (drawing(1), "invalid", gpued(graphics_processes=())),
        (drawing(1, **baselines(deep_idle=DISPLAY)), "warning", case(**baselines(before=DISPLAY))),
        (
            drawing(1, 9, **baselines(deep_idle=DISPLAY)),
            "invalid",
            gpued(graphics_processes=None),
        ),
        (case(**baselines(before=TENANT)), "warning", case(**baselines(deep_idle=NEIGHBOUR))),
        (
            case(**deep_idle(utilization_percent=40.0)),
            "invalid",
            case(**deep_idle(utilization_percent=1.0)),
        ),
        (
            case(**deep_idle(utilization_percent=40.0)),
            "invalid",
            case(**deep_idle(device="GPU-9", utilization_percent=90.0)),
        ),
    ],
    "H02": [
        (gpued(**held(hw_thermal=1.0)), "warning", gpued(**held(hw_thermal=0.3))),
        (gpued(**held(power_brake=3.0)), "invalid", gpued(**held(power=40.0))),
        # Without the driver's times, what the samples saw.
        (
            inside(boards=(), trace=(builders.sampled(SOUND[0], 40.0, clock_event_reasons=0x44),)),
            "warning",
            inside(boards=(), trace=(builders.sampled(SOUND[0], 40.0, clock_event_reasons=0x4),)),
        ),
        (
            inside(boards=(), trace=(builders.sampled(SOUND[0], 40.0, clock_event_reasons=0x8),)),
            "warning",
            inside(trace=(builders.sampled(SOUND[0], 40.0, clock_event_reasons=0x8),)),
        ),
    ],
    "H03": [
        (
            gpued({"baselines": ()}, power_limit_w=(250.0, 250.0)),
            "warning",
            gpued(capped(None, None) | {"baselines": ()}, power_limit_w=(250.0, 250.0)),
        ),
        (
            gpued(power_limit_w=(300.0, 250.0)),
            "invalid",
            gpued(power_limit_w=(300.0, None)),
        ),
        # The same limit in this window, another one while idling.
        (
            case(
                **baselines(
                    before={"boards": (builders.gpu_activity(power_limit_w=(200.0, 200.0)),)}
                )
            ),
            "invalid",
            case(**baselines(before=NEIGHBOUR)),
        ),
        (
            inside(boards=(), measurement=capped(250.0, 300.0) | {"baselines": ()}),
            "warning",
            inside(boards=(), measurement=capped(300.0, 300.0) | {"baselines": ()}),
        ),
    ],
    "H04": [
        (gpued(**held(power=20.0)), "note", gpued(**held(power=0.2, hw_thermal=20.0))),
        (traced(clock_event_reasons=0x2), "note", traced(clock_event_reasons=None)),
    ],
    "H05": [
        (gpued(temperature_c=(50.0, 61.0)), "warning", gpued(temperature_c=(50.0, 59.0))),
        (gpued(temperature_c=(50.0, 61.0)), "warning", gpued(temperature_c=(None, 61.0))),
        (gpued(COOLDOWN, temperature_c=(40.0, 61.0)), "note", gpued(COOLDOWN)),
        (gpued(NO_POLICY, temperature_c=(40.0, 61.0)), "warning", gpued(NO_POLICY)),
    ],
    "H12": [
        (gpued(**HIDDEN), "note", gpued()),
        (
            gpued(**HIDDEN),
            "note",
            inside(builders.estimated_only(40.0), boards=(builders.gpu_activity(**HIDDEN),)),
        ),
    ],
    "H14": [
        (settling(1.5, 60.0), "warning", settling(-0.9, 60.0)),
        (settling(-1.5, 60.0), "warning", settling(1.5, 0.0, **COOLDOWN)),
        (settling(None, 61.0), "warning", settling(None, 12.0)),
        (settling(1.5, 60.0), "warning", settling(1.5, None)),
    ],
}

# the host

MACHINE = {
    "H07": [
        (hosted(busy_s=70.0), "warning", hosted(busy_s=55.0)),
        (hosted(busy_s=70.0), "warning", hosted(busy_s=None)),
        # Over the whole stretch of timed traffic, which is longer than the window.
        (hosted(busy_s=70.0), "warning", hosted(busy_s=70.0, duration_s=100.0)),
        (hosted(steal_s=2.0), "warning", hosted(steal_s=1.0)),
        (hosted(stalled_s=12.0), "warning", hosted(stalled_s=8.0)),
        # Tasks that wait for one another, on processors that our own fill.
        (hosted(stalled_s=12.0), "warning", hosted(stalled_s=12.0, own_busy_s=70.0, busy_s=71.0)),
    ],
    "H17": [
        (served(self_busy_s=2.1), "warning", served(self_busy_s=1.9)),
        (served(self_busy_s=2.1), "warning", served(self_busy_s=2.1, duration_s=100.0)),
        (served(self_busy_s=30.0), "warning", hosted(self_busy_s=30.0)),  # the engine in process
        (served(self_busy_s=2.1, own_busy_s=None), "warning", served(self_busy_s=None)),
    ],
    "H08": [
        (hosted(pages_swapped_in=5000), "warning", hosted(pages_swapped_in=20)),
        (hosted(major_faults=5000), "warning", hosted(major_faults=20)),
        (hosted(major_faults=5000), "warning", hosted(major_faults=None)),
    ],
    "H09": [
        (hosted(disk_read_bytes=2 * 10**8), "invalid", hosted(disk_read_bytes=9 * 10**7)),
        (
            hosted(300.0, disk_read_bytes=2 * 10**8),
            "warning",
            hosted(300.0, disk_read_bytes=None),
        ),
    ],
    "H13": [
        (case(preflight=builders.preflight("host_load")), "note", case()),
        (case(preflight=builders.preflight("board_processes")), "warning", case()),
        (case(preflight=builders.preflight("disk")), "note", case(preflight=None)),
        (case(preflight=builders.preflight("disk", "board_memory")), "warning", case()),
    ],
}

# across measurements


def marked(severity: str, *repeats: int) -> dict[int, str]:
    return dict.fromkeys(repeats, severity)


def gpus_in(start_s: float, *parts: ComponentEnergy) -> dict:
    return {
        "windows": (builders.window(interval=builders.interval("window", start_s, 40.0, parts)),)
    }


def on_host(**changes) -> dict:
    return {"host": builders.host(**changes)}


def with_gpu(**changes) -> dict:
    return on_host(gpus=(builders.gpu(**changes),))


def packages(**versions: str) -> dict:
    return on_host(packages={"torch": "2.13.0"} | versions)


def drawing(powers_w: list[float], temperatures_c: list[float]) -> list[WindowSummary]:
    """Return the traces of repeats with these powers and temperatures, in this order of time."""
    changes = []
    for k, (power_w, begin_c) in enumerate(zip(powers_w, temperatures_c, strict=True), 1):
        interval: Interval = builders.interval(
            "window",
            1000.0 * k + 20,
            40.0,
            (gpu("GPU-1", power_w),),
            boards=(builders.gpu_activity(temperature_c=(begin_c, begin_c)),),
        )
        changes.append({"windows": (builders.window(interval=interval),)})
    return traces(*changes)


MOVED = gpus_in(3020.0, gpu("GPU-2", 100.0))
EVEN = [100.0 + 0.2 * (k % 3) for k in range(12)]
RISING = [power_w + 0.4 * k for k, power_w in enumerate(EVEN)]
HOTTER = [60.0 + k for k in range(12)]
# Neither follows the order of time.
SHUFFLED = [5, 0, 9, 3, 11, 7, 1, 10, 4, 8, 2, 6]
ALL = range(1, 13)

SESSIONS = {
    "H06": [
        (
            traces({}, with_gpu(ecc_mode=False)),
            marked("warning", 1, 2),
            traces({}, with_gpu(driver_version="600", index=3)),
        ),
        (
            traces({}, with_gpu(power_limit_w=250.0)),
            marked("warning", 1, 2),
            traces({}, with_gpu(uuid="GPU-9", power_limit_w=250.0)),
        ),
        (
            traces(*(with_gpu(persistence_mode=False),) * 2),
            marked("note", 1, 2),
            traces(*(with_gpu(persistence_mode=None),) * 2),
        ),
    ],
    "H10": [
        (traces({}, {}, MOVED), marked("warning", 1, 2, 3), traces({}, {})),
        (traces({}, on_host(hostname="node2")), marked("warning", 1, 2), traces({})),
        (
            traces({}, with_gpu(driver_version="600")),
            marked("warning", 1, 2),
            traces({}, with_gpu(power_limit_w=1.0)),
        ),
        (traces({}, on_host(boot_id="b")), marked("note", 1, 2), traces({}, on_host(boot_id=None))),
    ],
    "H11": [
        (
            traces({}, on_host(settings={"governor": "powersave"})),
            marked("note", 1, 2),
            traces({}, on_host(settings={})),
        )
    ],
    "H15": [
        (
            drawing([RISING[k] for k in SHUFFLED], [HOTTER[k] for k in SHUFFLED]),
            marked("warning", *ALL),
            drawing([EVEN[k] for k in SHUFFLED], [HOTTER[k] for k in SHUFFLED]),
        ),
        (
            drawing(RISING, [60.0] * 12),
            marked("warning", *ALL),
            drawing([RISING[k] for k in SHUFFLED], [60.0] * 12),
        ),
        # Too few to tell, and too little to matter.
        (drawing(RISING, [60.0] * 12), marked("warning", *ALL), drawing(RISING[:9], HOTTER[:9])),
        (
            drawing(RISING, [60.0] * 12),
            marked("warning", *ALL),
            drawing([100 + 0.05 * k for k in range(12)], HOTTER),
        ),
    ],
    "H16": [
        (traces({}, packages(torch="2.14.0")), marked("warning", 1, 2), traces({}, {})),
        (traces({}, packages(flash_attn="2.8")), marked("warning", 1, 2), traces({})),
        (traces({}, packages(six="1.17")), marked("note", 1, 2), traces({}, packages())),
        (
            traces({}, on_host(git_commit="1" * 40)),
            marked("note", 1, 2),
            traces({}, on_host(git_commit=None)),
        ),
    ],
}

PAIRS = METER | POWER_TRACE | ENERGY | GPUS | MACHINE | SESSIONS
