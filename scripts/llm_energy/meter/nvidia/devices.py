"""Find the NVIDIA GPUs of this host, and hold those that are metered."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.nvidia.energy_counter import Gpu, NvmlSensor
from llm_energy.meter.nvidia.state import ask

NVML_GPU_VIRTUALIZATION_MODE_VGPU = 2  # nvmlGpuVirtualizationMode_t


class NvmlGpus:
    """Know the GPUs of this host, each by its UUID and never by an index.

    Begins with the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves visible; ``restrict`` then narrows
    to the GPUs that the engine reports. Without a driver it is there all the same, and says why
    it cannot measure. ``nvml`` is used in place of the module ``pynvml``. ``reason`` says why no
    GPU is in use, wherever none is.
    """

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        nvml: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._clock = clock
        self._nvml = nvml
        self._known: tuple[Gpu, ...] = ()
        self._gpus: tuple[Gpu, ...] = ()
        self.reason = self._open()
        if not self.reason:
            self._gpus = self._visible(environ)
            self.reason = "CUDA_VISIBLE_DEVICES hides every GPU"

    @property
    def found(self) -> bool:
        """Return whether this host has a GPU at all, in use or not."""
        return bool(self._known)

    def sensor(self) -> NvmlSensor:
        """Return the sensor of the GPUs in use now; restricting later leaves it as it is."""
        return NvmlSensor(self._nvml, self._gpus, self.reason, self._clock)

    def restrict(self, device_uuids: Iterable[str]) -> None:
        """Keep only the GPUs with these UUIDs, in sensors that are asked for from now on.

        A MIG instance stands for the GPU it is on. The ``GPU-`` prefix may be missing. Raises
        LlmEnergyError for a UUID that NVML does not know.
        """
        if not self._known:
            return
        gpus = []
        for uuid in device_uuids:
            gpu = self._find(uuid)
            if gpu is None:
                known = ", ".join(b.uuid for b in self._known)
                raise LlmEnergyError(
                    f"meter: the engine reports GPU {uuid!r}, which NVML does not know; "
                    f"GPUs on this host: {known}"
                )
            if gpu not in gpus:
                gpus.append(gpu)
        self._gpus = tuple(gpus)
        self.reason = "the engine uses no GPU"

    def gpus(self) -> tuple[dict[str, Any], ...]:
        """Return the identity and state of the GPUs in use; what NVML cannot say is None."""
        return tuple(self._describe(gpu) for gpu in self._gpus)

    def close(self) -> None:
        """Release NVML."""
        if self._nvml is not None:
            self._ask(self._nvml.nvmlShutdown)
            self._nvml, self._known, self._gpus = None, (), ()
            self.reason = "the meter is closed"

    def _open(self) -> str:
        """Initialise NVML and list the GPUs; give the reason if there is none, else ''."""
        module = self._nvml or import_pynvml()
        self._nvml = None  # until it is initialised
        if module is None:
            return "pynvml is not installed; NVIDIA GPUs need the package nvidia-ml-py"
        try:
            module.nvmlInit()
        except module.NVMLError as error:
            return f"NVML: {error}"
        self._nvml = module
        found = [self._identify(i) for i in range(self._ask(module.nvmlDeviceGetCount) or 0)]
        # CUDA's PCI_BUS_ID order, which indices in CUDA_VISIBLE_DEVICES may refer to.
        self._known = tuple(sorted((b for b in found if b), key=lambda gpu: gpu.pci_bus_id))
        return "" if self._known else "NVML finds no GPU"

    def _identify(self, index: int) -> Gpu | None:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError:
            return None  # a GPU that fell off the bus is invisible to CUDA too
        pci_bus_id = self._ask(lambda: _text(nvml.nvmlDeviceGetPciInfo(handle).busId)) or ""
        mig = self._ask(lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]))
        mode = self._ask(lambda: nvml.nvmlDeviceGetVirtualizationMode(handle))
        virtual = mode == NVML_GPU_VIRTUALIZATION_MODE_VGPU
        shared = "mig" if mig else "vgpu" if virtual else None
        c2c = self._ask(lambda: bool(nvml.nvmlDeviceGetC2cModeInfoV(handle).isC2cEnabled))
        return Gpu(index, uuid, pci_bus_id, mig, shared, bool(c2c), handle)

    def _visible(self, environ: Mapping[str, str]) -> tuple[Gpu, ...]:
        """Choose GPUs as CUDA does: the list ends at its first entry that is no device."""
        value = environ.get("CUDA_VISIBLE_DEVICES")
        if value is None:
            return self._known
        chosen: list[Gpu] = []
        for entry in (part.strip() for part in value.split(",")):
            if entry.isdigit() and int(entry) < len(self._known):
                if environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
                    # CUDA numbers the fastest GPU first, an order that NVML cannot tell; the
                    # engine's own report narrows the set later.
                    return self._known
                gpu = self._known[int(entry)]
            else:
                gpu = self._find(entry)
            if gpu is None:
                break
            if gpu not in chosen:
                chosen.append(gpu)
        return tuple(chosen)

    def _find(self, uuid: str) -> Gpu | None:
        """Find the GPU of a GPU's or MIG instance's UUID, or of a unique beginning of it."""
        if uuid.startswith("MIG-GPU-"):  # the old form: MIG-GPU-<GPU>/<instance>/<instance>
            uuid = uuid.removeprefix("MIG-").partition("/")[0]
        for name in (uuid, f"GPU-{uuid}"):
            found = [gpu for gpu in self._known if uuid and gpu.uuid.startswith(name)]
            if len(found) == 1:
                return found[0]
        nvml = self._nvml
        for name in (uuid, f"MIG-{uuid}"):
            try:
                instance = nvml.nvmlDeviceGetHandleByUUID(name)
                parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)
                parent_uuid = _text(nvml.nvmlDeviceGetUUID(parent))
            except nvml.NVMLError:
                continue
            return next((b for b in self._known if b.uuid == parent_uuid), None)
        return None

    def _ask(self, question: Callable[[], Any]) -> Any:
        return ask(self._nvml, question)

    def _describe(self, gpu: Gpu) -> dict[str, Any]:
        nvml, handle, ask = self._nvml, gpu.handle, self._ask
        limit_mw = ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        default_mw = ask(lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle))
        return {
            "index": gpu.index,
            "pci_bus_id": gpu.pci_bus_id or None,
            "uuid": gpu.uuid,
            "name": ask(lambda: _text(nvml.nvmlDeviceGetName(handle))),
            "driver_version": ask(lambda: _text(nvml.nvmlSystemGetDriverVersion())),
            "vbios": ask(lambda: _text(nvml.nvmlDeviceGetVbiosVersion(handle))),
            "power_limit_w": None if limit_mw is None else limit_mw / 1e3,
            "default_power_limit_w": None if default_mw is None else default_mw / 1e3,
            "persistence_mode": ask(lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle))),
            "ecc_mode": ask(lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0])),
            "mig_mode": ask(lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0])),
            "temperature_c": ask(
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            "sm_clock_mhz": ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "mem_clock_mhz": ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        }


def import_pynvml() -> Any:
    """Import the binding; None where it is not installed."""
    try:
        with warnings.catch_warnings():
            # The old distribution named pynvml warns about its own name at import.
            warnings.simplefilter("ignore", FutureWarning)
            import pynvml
    except ImportError:
        return None
    return pynvml


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
