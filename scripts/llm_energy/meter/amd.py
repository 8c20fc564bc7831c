"""Sense the energy of AMD GPUs through the package ``amdsmi``, where it can be imported.

The counter is ``amdsmi_get_energy_count``: an accumulator and its resolution in uJ
(https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html). On some parts it
is wrong by more than ten times (https://github.com/ROCm/amdsmi/issues/38), so it is held against
the power sensor before it is used. Of the two dies of an MI250(X), the first counts for both, and
partitions of one card may all show its one counter. This has been tested against a stand-in for the
package only, never on an AMD GPU. State at the edges, the power trace and process lists are not
read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.units import joules_from_microjoules
from llm_energy.meter.host.processes import Processes
from llm_energy.meter.host.snapshot import GpuGlance, Look
from llm_energy.meter.sensors import Count, Counter, timed, unavailable
from llm_energy.records import ComponentEnergy, GpuActivity

METHOD = "amdsmi_energy_count"
CARD_METHOD = f"{METHOD}_whole_card"
POWER_KEYS = ("socket_power", "current_socket_power", "average_socket_power")  # by version and part
# How long counters are held against power sensors when they are opened, and how far the two may be
# apart: power sensors are filtered, and a GPU that has just been used cools down.
EXAMINED_S, POWER_READINGS, MOST_APART = 1.0, 5, 3.0
# GPUs are read one after the other: two views of one counter differ by what was used in between.
SAME_COUNTER_UJ = 1e6
TWO_DIES = "MI250"  # and MI250X


@dataclass(frozen=True, eq=False)
class _Gpu:
    """One GPU; ``names`` are all by which an engine may call it.

    ``problem`` says why its counter is of no use, ``holder`` names the GPU whose counter holds
    its joules, and ``others`` are the GPUs whose joules its own counter holds too.
    """

    uuid: str
    names: tuple[str, ...]
    handle: Any
    problem: str | None = None
    holder: str | None = None
    others: tuple[str, ...] = ()


Reading = dict[_Gpu, Count]  # in uJ: the accumulator times its resolution


class AmdGpus:
    """Know the AMD GPUs of this host, and hold those that are metered.

    Examines their counters for a second. ``problem`` says why the package, where it is installed,
    finds none.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._amdsmi: Any = None
        self._clock = clock
        self._known: tuple[_Gpu, ...] = ()
        self.problem: str | None = None
        try:
            import amdsmi

            amdsmi.amdsmi_init()
            self._amdsmi = amdsmi
            found = tuple(map(self._identify, amdsmi.amdsmi_get_processor_handles()))
            self._known = self._examine(found, clock, sleep)
        except ModuleNotFoundError:
            pass  # as on every host without such GPUs
        except Exception as error:  # without its system library the import itself may raise any
            self.problem = f"amdsmi: {type(error).__name__}: {error}"
        self._gpus = self._known

    @property
    def found(self) -> bool:
        """Return whether this host has a GPU that can be sensed."""
        return bool(self._known)

    def sensor(self) -> AmdSensor:
        """Return the sensor of the GPUs in use now; restricting later leaves it as it is."""
        return AmdSensor(self._amdsmi, self._gpus, self._clock)

    def restrict(self, device_uuids: Iterable[str]) -> None:
        """Keep only these GPUs, in sensors that are asked for from now on.

        A GPU may be named by its UUID, HIP's UUID or its PCI address. Raises LlmEnergyError for
        a name that no GPU has, and for a GPU whose joules another one counts that is not named.
        """
        chosen: list[_Gpu] = []
        for name in device_uuids:
            gpu = next((b for b in self._known if name.removeprefix("GPU-") in b.names), None)
            if gpu is None:
                known = ", ".join(b.uuid for b in self._known)
                raise LlmEnergyError(
                    f"meter: the engine reports GPU {name!r}, which amdsmi does not know; "
                    f"GPUs on this host: {known}"
                )
            if gpu not in chosen:
                chosen.append(gpu)
        uuids = {gpu.uuid for gpu in chosen}
        for gpu in chosen:
            if gpu.holder is not None and gpu.holder not in uuids:
                raise LlmEnergyError(
                    f"meter: the engine uses GPU {gpu.uuid!r}, which has no counter of its own: "
                    f"its joules are in those of {gpu.holder!r}, the first die of the same card; "
                    f"run on {gpu.holder!r}, or on both"
                )
        self._gpus = tuple(chosen)

    def gpus(self) -> tuple[dict[str, Any], ...]:
        """Return the identity of the GPUs in use."""
        return tuple(self._describe(gpu) for gpu in self._gpus)

    def close(self) -> None:
        """Release the library."""
        if self._amdsmi is not None:
            self._ask(self._amdsmi.amdsmi_shut_down)
            self._amdsmi, self._known, self._gpus = None, (), ()

    def _identify(self, handle: Any) -> _Gpu:
        smi = self._amdsmi
        uuid = smi.amdsmi_get_gpu_device_uuid(handle)
        others = (
            self._ask(lambda: smi.amdsmi_get_gpu_enumeration_info(handle)["hip_uuid"]),
            self._ask(lambda: smi.amdsmi_get_gpu_device_bdf(handle)),
        )
        names = (str(name).removeprefix("GPU-") for name in (uuid, *others) if name)
        return _Gpu(uuid, tuple(names), handle)

    def _examine(
        self, gpus: Sequence[_Gpu], clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> tuple[_Gpu, ...]:
        """Hold each GPU's counter against its power sensor and the counters of the others."""
        sensor = AmdSensor(self._amdsmi, gpus, clock)
        begin_s, first = clock(), sensor.read()
        powers_w: dict[_Gpu, list[float | None]] = {gpu: [] for gpu in gpus}
        for _ in range(POWER_READINGS):
            sleep(EXAMINED_S / POWER_READINGS)
            for gpu, seen in powers_w.items():
                seen.append(sensor.power_w(gpu))
        duration_s, last = clock() - begin_s, sensor.read()
        problems: dict[_Gpu, str | None] = {}
        holders: dict[_Gpu, _Gpu] = {}
        others: dict[_Gpu, list[str]] = {gpu: [] for gpu in gpus}
        for number, gpu in enumerate(gpus):
            problems[gpu] = _implausible(
                first[gpu].value, last[gpu].value, powers_w[gpu], duration_s
            )
            earlier = gpus[number - 1] if number else None
            name = self._describe(gpu)["name"] or ""
            if first[gpu].value == last[gpu].value and TWO_DIES in name and earlier is not None:
                if not (problems[earlier] or earlier in holders):
                    problems[gpu], holders[gpu] = None, earlier
                    others[earlier].append(gpu.uuid)
                continue
            for twin in gpus[:number]:
                if _same_counter(gpu, twin, first, last):
                    others[twin].append(gpu.uuid)
                    others[gpu].append(twin.uuid)
        return tuple(
            replace(
                gpu,
                problem=problems[gpu],
                holder=holders[gpu].uuid if gpu in holders else None,
                others=tuple(others[gpu]),
            )
            for gpu in gpus
        )

    def _describe(self, gpu: _Gpu) -> dict[str, Any]:
        smi, handle = self._amdsmi, gpu.handle
        return {
            "uuid": gpu.uuid,
            "pci_bus_id": self._ask(lambda: smi.amdsmi_get_gpu_device_bdf(handle)),
            "name": self._ask(lambda: smi.amdsmi_get_gpu_asic_info(handle)["market_name"]),
            "driver_version": self._ask(
                lambda: smi.amdsmi_get_gpu_driver_info(handle)["driver_version"]
            ),
        }

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (self._amdsmi.AmdSmiException, AttributeError, KeyError):
            return None


class AmdSensor:
    """Read a fixed set of AMD GPUs; it has the methods of ``NvmlSensor``."""

    def __init__(self, amdsmi: Any, in_use: Sequence[_Gpu], clock: Callable[[], float]):
        self._clock = clock
        self._amdsmi = amdsmi
        self._gpus = tuple(in_use)

    @property
    def devices(self) -> tuple[str, ...]:
        """Return no GPU: the sampler of power knows only NVIDIA's."""
        return ()

    def read(self) -> Reading:
        """Read the energy counter of every GPU (one call each)."""
        return {gpu: timed(self._clock, lambda gpu=gpu: self._read(gpu)) for gpu in self._gpus}

    def energy(
        self, first: Reading, last: Reading, duration_s: float
    ) -> tuple[ComponentEnergy, ...]:
        """Return one component a GPU, in J."""
        if not self._gpus:
            return (unavailable("gpu", "the engine uses no GPU"),)
        counted: list[ComponentEnergy] = []
        in_use = {gpu.uuid for gpu in self._gpus}
        for i, gpu in enumerate(self._gpus):
            twins = (b for b in self._gpus[:i] if _same_counter(gpu, b, first, last))
            twin = next(twins, None)
            if gpu.problem:
                counted.append(unavailable("gpu", gpu.problem, gpu.uuid))
            elif gpu.holder or twin:
                holder = gpu.holder or twin.uuid
                reason = f"has no counter of its own: its joules are in those of {holder}"
                counted.append(unavailable("gpu", reason, gpu.uuid))
            else:
                strangers = [uuid for uuid in gpu.others if uuid not in in_use]
                counted.append(_difference(gpu, first[gpu].value, last[gpu].value, strangers))
        return tuple(counted)

    def counts(self, readings: Sequence[Reading]) -> Iterator[tuple[Counter, Sequence[Count]]]:
        """Yield the counter of every GPU with its counts, one a reading."""
        for gpu in self._gpus:
            yield Counter("gpu", gpu.uuid, "uJ"), [reading[gpu] for reading in readings]

    def read_states(self) -> None:
        """Read nothing: a GPU's state is not read here."""

    def activity(
        self,
        first: None,
        last: None,
        tables: tuple[Processes | None, Processes | None],
        looks: Sequence[Look],
    ) -> tuple[GpuActivity, ...]:
        """Return nothing, as ``read_states`` reads nothing."""
        return ()

    def glance(self, table: Processes | None) -> tuple[GpuGlance, ...]:
        """Look at the power of every GPU once."""
        return tuple(GpuGlance(b.uuid, power_w=self.power_w(b)) for b in self._gpus)

    def counters(self) -> dict[str, Callable[[], float | None]]:
        """Return, by GPU, how to read its counter."""
        return {b.uuid: lambda b=b: self._read_for_tick(b) for b in self._gpus}

    def _read(self, gpu: _Gpu) -> float | str:
        """Return the counter in uJ, or the reason why it cannot be read."""
        try:
            found = self._amdsmi.amdsmi_get_energy_count(gpu.handle)
        except self._amdsmi.AmdSmiException as error:
            return f"amdsmi's energy counter: {error}"
        # Called power before ROCm 6.
        accumulated = found.get("energy_accumulator", found.get("power"))
        if accumulated is None:
            return f"amdsmi's energy counter: no accumulator in {sorted(found)}"
        return accumulated * found["counter_resolution"]

    def _read_for_tick(self, gpu: _Gpu) -> float | None:
        energy_uj = self._read(gpu)
        return None if isinstance(energy_uj, str) else energy_uj

    def power_w(self, gpu: _Gpu) -> float | None:
        """Return the power of one GPU in W, None where it has no such sensor."""
        try:
            found = self._amdsmi.amdsmi_get_power_info(gpu.handle)
        except self._amdsmi.AmdSmiException:
            return None
        # What a part does not have reads as a text.
        return next(
            (float(found[key]) for key in POWER_KEYS if isinstance(found.get(key), int | float)),
            None,
        )


def _difference(
    gpu: _Gpu, first: float | str, last: float | str, strangers: Sequence[str]
) -> ComponentEnergy:
    """Return what a counter moved by; ``strangers`` are in it, and the engine does not use them."""
    for reading in (first, last):
        if isinstance(reading, str):
            return unavailable("gpu", reading, gpu.uuid)
    if last < first:
        reason = f"amdsmi's energy counter went backwards, from {first:.0f} to {last:.0f} uJ"
        return unavailable("gpu", reason, gpu.uuid)
    energy_j = joules_from_microjoules(last - first)
    method, reason = METHOD, None
    if strangers:
        method = CARD_METHOD
        reason = f"the counter is that of a whole card, with {', '.join(strangers)} in it"
    return ComponentEnergy("gpu", gpu.uuid, "measured", method, energy_j, reason)


def _same_counter(gpu: _Gpu, other: _Gpu, first: Reading, last: Reading) -> bool:
    """Return whether two GPUs show one counter, as partitions of one card do."""
    pairs = [(reading[gpu].value, reading[other].value) for reading in (first, last)]
    return all(
        not isinstance(a, str) and not isinstance(b, str) and abs(a - b) <= SAME_COUNTER_UJ
        for a, b in pairs
    )


def _implausible(
    first: float | str, last: float | str, powers_w: Sequence[float | None], duration_s: float
) -> str | None:
    """Say why a counter is of no use by the power seen meanwhile; None where all is well."""
    seen_w = [power_w for power_w in powers_w if power_w is not None]
    if isinstance(first, str) or isinstance(last, str) or not (seen_w and duration_s > 0):
        return None  # what cannot be read says so when it is, and what has no power has no second
    counted_w = joules_from_microjoules(last - first) / duration_s
    power_w = fmean(seen_w)
    if power_w / MOST_APART <= counted_w <= power_w * MOST_APART:
        return None
    return (
        f"amdsmi's energy counter cannot be believed: it counted {counted_w:.1f} W while the power "
        f"sensor showed {power_w:.1f} W (https://github.com/ROCm/amdsmi/issues/38)"
    )
