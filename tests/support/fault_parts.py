"""What faults are made of: changed settings, meddling with a host, edited records and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from support.fault_sweeps import Setting, as_repeat

from llm_energy.core.files import write_json
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.measure.simulation.power import Cooling
from llm_energy.records import ComponentEnergy, Interval, Measurement

GIB = 2**30
TENANT = 4_000_000  # a process id that no test's own process has
Sweep = list[Measurement]


def middle_s(window: Interval) -> float:
    return (window.start_s + window.end_s) / 2


def at_middle(action: Callable[[SimulatedHost], None]) -> Callable[[SimulatedHost, Interval], None]:
    return lambda host, window: host.at(middle_s(window), action)


def at_begin(action: Callable[[SimulatedHost], None]) -> Callable[[SimulatedHost, Interval], None]:
    return lambda host, window: host.at(window.start_s, action)


def on_host(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda setting: setting.on_host(**changes)


def on_gpus(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda setting: setting.on_gpus(**changes)


def on_engine(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda setting: setting.on_engine(**changes)


def reporting(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda setting: setting.reporting(**changes)


def asking(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda setting: replace(setting, **changes)


def protocol(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda setting: replace(setting, protocol=setting.protocol | changes)


def both(*steps: Callable[[Setting], Setting]) -> Callable[[Setting], Setting]:
    def change(setting: Setting) -> Setting:
        for step in steps:
            setting = step(setting)
        return setting

    return change


def gpus(count: int) -> Callable[[Setting], Setting]:
    return lambda setting: setting.on_host(gpus=setting.truth.gpus[:1] * count)


def limit_changes(host: SimulatedHost) -> None:
    host.gpus[0].limit_w = 0.9 * host.gpus[0].limit_w


def tenant(host: SimulatedHost) -> None:
    host.let_in(host.gpus[0], TENANT, power_w=60.0, held_bytes=GIB)


def throttle(share: float, cause: str = "hw_thermal") -> Callable[[SimulatedHost], None]:
    return lambda host: host.gpus[0].throttled_share.update({cause: share})


def stick(host: SimulatedHost) -> None:
    host.gpus[0].stuck = True


def fan_fails(host: SimulatedHost) -> None:
    gpu = host.gpus[0]
    power_w = gpu.truth.decode_w[0]
    worse = replace(gpu.truth.cooling, resistance_c_per_w=60 / power_w, time_s=8.0)
    gpu.alter(cooling=worse)


def slow_to_settle(setting: Setting) -> Setting:
    power_w = setting.truth.gpus[0].decode_w[0]
    slow = Cooling(resistance_c_per_w=80 / power_w, time_s=120.0)
    return protocol(thermal_max_wait_s=5.0)(setting.on_gpus(cooling=slow))


def idle_rises(host: SimulatedHost) -> None:
    for gpu in host.gpus:
        gpu.alter(loaded_idle_w=2.0 * gpu.truth.loaded_idle_w)


def first_pass_slow(host: SimulatedHost, window: Interval) -> None:
    normal = host.truth.engine
    # A pass takes its pace when it begins, so it is set before the first and back within it.
    host.at(window.start_s - 1e-6, lambda h: h.change(engine=replace(normal, pace=6.0)))
    host.at(window.start_s + 1e-6, lambda h: h.change(engine=normal))


def leftover(host: SimulatedHost, window: Interval) -> None:
    host.let_in(host.gpus[0], TENANT, power_w=0.0, held_bytes=20 * GIB)


def weak_second_gpu(setting: Setting) -> Setting:
    first, second = setting.truth.gpus
    low, high = second.decode_w
    weak = replace(second, decode_w=(0.45 * low, 0.45 * high), prefill_w=0.45 * second.prefill_w)
    return setting.on_host(gpus=(first, weak))


# edits of records


def edit_window(change: Callable[[Measurement], dict[str, Any]]) -> Callable:
    """Replace fields of the window."""

    def edit(measurement: Measurement) -> Measurement:
        [window] = measurement.windows
        return replace(measurement, windows=(replace(window, **change(measurement)),))

    return edit


def edit_energy(change: Callable[[tuple[ComponentEnergy, ...]], tuple], everywhere: bool = False):
    """Replace the energies of the window, or of all intervals."""

    def edit(measurement: Measurement) -> Measurement:
        [window] = measurement.windows
        interval = replace(window.interval, energy=change(window.interval.energy))
        baselines = measurement.baselines
        if everywhere:
            baselines = tuple(replace(b, energy=change(b.energy)) for b in baselines)
        windows = (replace(window, interval=interval),)
        return replace(measurement, windows=windows, baselines=baselines)

    return edit


def negative(parts: tuple[ComponentEnergy, ...]) -> tuple[ComponentEnergy, ...]:
    return (replace(parts[0], energy_j=-1.0), *parts[1:])


def modelled_cpu(parts: tuple[ComponentEnergy, ...]) -> tuple[ComponentEnergy, ...]:
    return (*(p for p in parts if p.component != "cpu"), cpu_model(parts))


def modelled_too(parts: tuple[ComponentEnergy, ...]) -> tuple[ComponentEnergy, ...]:
    return (*parts, cpu_model(parts))


def cpu_model(parts: tuple[ComponentEnergy, ...]) -> ComponentEnergy:
    cpu = next(p for p in parts if p.component == "cpu")
    return replace(cpu, device="machine", status="estimated", method="codecarbon_cpu_load")


def doubled_package(parts: tuple[ComponentEnergy, ...]) -> tuple[ComponentEnergy, ...]:
    twin = {p.device: p for p in parts}["package-0"]
    return tuple(
        replace(p, energy_j=twin.energy_j) if p.device == "package-1" else p for p in parts
    )


def load_reaches_in(measurement: Measurement) -> Measurement:
    end_s = measurement.windows[0].interval.start_s + 1
    return replace(measurement, load=replace(measurement.load, end_s=end_s))


def without_ids(measurement: Measurement) -> dict[str, Any]:
    ids = measurement.windows[0].output_token_ids
    return {"output_token_ids": dict(list(ids.items())[1:])}


def few_arrivals(measurement: Measurement) -> dict[str, Any]:
    traffic = measurement.windows[0].traffic
    return {"traffic": replace(traffic, mode="trace", arrived=5, started=5)}


def filling(measurement: Measurement) -> dict[str, Any]:
    return {"traffic": replace(measurement.windows[0].traffic, in_flight=(0, 99))}


def miscounted(measurement: Measurement) -> dict[str, Any]:
    counts = {"server_output_tokens": 129, "returned_output_tokens": 128}
    return {"events": measurement.windows[0].events | counts}


def hosted(**changes: Any) -> Callable[[Measurement], Measurement]:
    return lambda m: replace(m, host=replace(m.host, **changes))


def other_driver(measurement: Measurement) -> Measurement:
    gpus = tuple({**gpu, "driver_version": "another"} for gpu in measurement.host.gpus)
    return replace(measurement, host=replace(measurement.host, gpus=gpus))


# whole sweeps


def one_boot(sweep: Sweep, random: Random) -> Sweep:
    return [hosted(boot_id="boot")(one) for one in sweep]


def cells_in_order(shuffled: bool) -> Callable[[Sweep, Random], Sweep]:
    """Make three cells of five repeats on one boot, each block in one order or in its own."""

    def arrange(sweep: Sweep, random: Random) -> Sweep:
        made, now_s = [], 10_000.0
        for repeat in range(1, 6):
            cells = [f"m--simulated--{name}" for name in ("a", "b", "c")]
            if shuffled:
                random.shuffle(cells)
            for cell in cells:
                made.append(
                    hosted(boot_id="boot")(_moved(as_repeat(sweep[0], repeat, cell), now_s))
                )
                now_s += 10_000.0
        return made

    return arrange


def _moved(measurement: Measurement, by_s: float) -> Measurement:
    """Shift the window of a measurement in time."""
    [window] = measurement.windows
    interval, table = window.interval, window.requests
    interval = replace(interval, start_s=interval.start_s + by_s, end_s=interval.end_s + by_s)
    columns = {
        name: tuple(time_s + by_s for time_s in getattr(table, name))
        for name in ("arrival_s", "first_token_s", "last_token_s")
    }
    ends_s = tuple(end_s + by_s for end_s in window.pass_ends_s)
    moved = replace(
        window, interval=interval, requests=replace(table, **columns), pass_ends_s=ends_s
    )
    return replace(measurement, windows=(moved,))


def repeats_by_temperature(trend: float) -> Callable[[Sweep, Random], Sweep]:
    """Make twelve repeats, each warmer than the one before, whose joules follow by ``trend``."""

    def arrange(sweep: Sweep, random: Random) -> Sweep:
        made = []
        for number in range(12):
            factor = 1 + trend * (number - 5.5) / 11 + random.gauss(0, 0.002)
            [window] = sweep[0].windows
            interval = window.interval
            energy = tuple(
                p if p.energy_j is None else replace(p, energy_j=p.energy_j * factor)
                for p in interval.energy
            )
            warm = tuple(
                replace(b, temperature_c=(40.0 + number, 40.0 + number)) for b in interval.boards
            )
            interval = replace(interval, energy=energy, boards=warm)
            one = replace(sweep[0], windows=(replace(window, interval=interval),))
            made.append(as_repeat(one, number + 1))
        return made

    return arrange


# files


def delete_last(plan_path: Path, paths: list[Path]) -> None:
    paths[-1].unlink()


def cut_last(plan_path: Path, paths: list[Path]) -> None:
    text = paths[-1].read_text(encoding="utf-8")
    paths[-1].write_text(text[: len(text) // 2], encoding="utf-8")


def archive(plan_path: Path, paths: list[Path]) -> None:
    """Take away what a measurement is held against, so that only others of its kind are left."""
    for path in (
        *plan_path.parents[1].glob("models/*/*.json"),
        *plan_path.parent.glob("prompts/*"),
    ):
        path.unlink()


def change_specs(plan_path: Path, paths: list[Path]) -> None:
    for path in plan_path.parent.glob("specs/*/*.json"):
        write_json(path, {"changed": True})
