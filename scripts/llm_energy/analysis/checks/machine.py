"""Checks of the host: was it fit when the repeat began, and did it do nothing else."""

from __future__ import annotations

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.evidence.windows import WindowEvidence
from llm_energy.records import HostActivity

# Half a processor is what a host's own services may take; on a large one they may take more.
FOREIGN_CPUS, FOREIGN_SHARE, STEAL_SHARE = 0.5, 0.05, 0.02
# Tasks waited in a quarter of the time though our own left a fifth of the processors free.
STALLED_SHARE, FULLY_BUSY = 0.25, 0.8
# A page is 4 KiB: 1 MiB of swap. A page fault from disk takes a millisecond or so: 1 % of the time.
SWAPPED_PAGES, FAULTS_PER_S = 256, 10.0
DISK_BYTES, DISK_BYTES_PER_S = 100e6, 1e6
CLIENT_CPUS = 0.05
# Conditions of the preflight that bear on no joule, or that another check judges.
# The load average of a minute still holds the previous repeat; H07 judges the window itself.
HARMLESS_CONDITIONS = ("disk", "board_temperature", "board_mig", "host_load")


@check(
    "H07",
    "window",
    "warning",
    "processors shared with others",
    "End what else runs on this host; a virtual machine needs processors of its own.",
)
def contended_processors(case: WindowEvidence) -> Finding | None:
    """Find processor time of other processes and of the hypervisor, and tasks that had to wait."""
    host, duration_s = _host(case)
    count = case.measurement.host.cpu_count
    if host is None or count < 1:
        return None
    capacity_s = count * duration_s
    found = {}
    if host.busy_s is not None and host.own_busy_s is not None:
        foreign_cpus = (host.busy_s - host.own_busy_s) / duration_s
        if foreign_cpus > max(FOREIGN_CPUS, FOREIGN_SHARE * count):
            found["processors_of_others"] = foreign_cpus
    if host.steal_s is not None and host.steal_s > STEAL_SHARE * capacity_s:
        found["stolen_share"] = host.steal_s / capacity_s
    ours_fill_it = host.own_busy_s is None or host.own_busy_s >= FULLY_BUSY * capacity_s
    if not ours_fill_it and (host.stalled_s or 0.0) > STALLED_SHARE * duration_s:
        found["stalled_share"] = host.stalled_s / duration_s
    return Finding(found | {"processors": count}) if found else None


@check(
    "H08",
    "window",
    "warning",
    "swapping",
    "Leave more memory free: pages that come from disk are waited for at full power.",
)
def swapping(case: WindowEvidence) -> Finding | None:
    """Find pages read back from swap, and page faults that had to read the disk."""
    host, duration_s = _host(case)
    if host is None:
        return None
    swapped = (host.pages_swapped_in or 0) > SWAPPED_PAGES
    if not swapped and not (host.major_faults or 0) > FAULTS_PER_S * duration_s:
        return None
    evidence = {"pages_swapped_in": host.pages_swapped_in, "major_faults": host.major_faults}
    return Finding(evidence | {"duration_s": duration_s})


@check(
    "H09",
    "window",
    "invalid",
    "disk read in the window",
    "Something was still being loaded: end downloads and other work before measuring.",
)
def disk_read(case: WindowEvidence) -> Finding | None:
    """Find over 100 MB read from disk; spread thinly over a long window it is a warning."""
    host, duration_s = _host(case)
    read = (host.disk_read_bytes or 0) if host else 0
    if not read > DISK_BYTES:
        return None
    slow = read < DISK_BYTES_PER_S * duration_s
    return Finding({"bytes": read, "duration_s": duration_s}, "warning" if slow else None)


@check(
    "H13",
    "window",
    "warning",
    "host not fit when the repeat began",
    "See to the named conditions, or raise protocol.preflight_max_wait_s.",
)
def unfit_host(case: WindowEvidence) -> Finding | None:
    """Name the conditions of the preflight that did not hold; a note where none bears on joules."""
    preflight = case.measurement.preflight
    unmet = {c.name: c for c in preflight.conditions if not c.ok} if preflight else {}
    if not unmet:
        return None
    told = {name: {"found": c.found, "allowed": c.allowed} for name, c in unmet.items()}
    harmless = all(name in HARMLESS_CONDITIONS for name in unmet)
    evidence = {"conditions": told, "wait_s": preflight.wait_s}
    return Finding(evidence, "note" if harmless else None)


@check(
    "H17",
    "window",
    "warning",
    "client busy beside the server",
    "Ask with fewer requests in flight, or on a host with more processors: the client is metered.",
)
def busy_client(case: WindowEvidence) -> Finding | None:
    """Find a client of a served engine that took more than a twentieth of a processor."""
    host, duration_s = _host(case)
    used = case.measurement.effective
    served = used.get("flow") == "server" or "server_kind" in used
    if not served or host is None:
        return None
    if host.self_busy_s is None or host.self_busy_s <= CLIENT_CPUS * duration_s:
        return None
    server_s = None if host.own_busy_s is None else host.own_busy_s - host.self_busy_s
    return Finding({"client_cpus": host.self_busy_s / duration_s, "server_busy_s": server_s})


def _host(case: WindowEvidence) -> tuple[HostActivity | None, float]:
    """Return what the host did, None where unknown, and over how many seconds.

    With timed traffic that is the whole stretch, ramp and drain included. Older records do not say
    how long it was; there it is taken to be the window, so that such findings come too soon.
    """
    interval = case.window.interval
    host = interval.host if interval.duration_s > 0 else None
    return host, (host and host.duration_s) or interval.duration_s
