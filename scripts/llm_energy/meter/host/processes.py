"""Tell this process and its descendants from the other processes of the host, by procfs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Processes:
    """The processes of the host at one moment, as far as this process may see them.

    ``own`` are this process and its descendants. ``own_busy_s`` is the processor time that they,
    and those of their children that have ended, have used since they began, ``self_busy_s`` that of
    this process alone.
    """

    everyone: frozenset[int]
    own: frozenset[int]
    own_busy_s: float
    self_busy_s: float | None = None


class _Stat(NamedTuple):
    pid: int
    parent: int
    self_ticks: int
    busy_ticks: int


def read_processes(procfs: Path, root: str = "self") -> Processes | None:
    """Read the table of processes (microseconds each); None where procfs does not show it.

    ``root`` is the id of the process whose tree is our own.
    """
    me = _read_stat(procfs / root)
    try:
        folders = [procfs / name for name in os.listdir(procfs) if name.isdigit()]
    except OSError:
        return None
    if me is None:
        return None
    found = {stat.pid: stat for stat in map(_read_stat, folders) if stat} | {me.pid: me}
    children: dict[int, list[int]] = {}
    for stat in found.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    own, new = {me.pid}, [me.pid]
    while new:
        new = [pid for parent in new for pid in children.get(parent, ()) if pid not in own]
        own.update(new)
    busy_ticks = sum(found[pid].busy_ticks for pid in own)
    self_busy_s = me.self_ticks / TICKS_PER_S
    return Processes(frozenset(found), frozenset(own), busy_ticks / TICKS_PER_S, self_busy_s)


def _read_stat(folder: Path) -> _Stat | None:
    """Read one process's ``stat`` (proc(5)); None where it has ended or may not be seen."""
    try:
        text = (folder / "stat").read_text()
        # The command stands in brackets, and may hold spaces and brackets itself.
        rest = text.rpartition(")")[2].split()
        # utime, stime and those of the children that were waited for
        user, system, *of_children = map(int, rest[11:15])
        alone = user + system
        pid, parent = int(text.split(maxsplit=1)[0]), int(rest[1])
        return _Stat(pid, parent, alone, alone + sum(of_children))
    except (OSError, ValueError, IndexError):
        return None
