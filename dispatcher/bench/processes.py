"""Processor time and memory of processes, from /proc; only on Linux, and only of this machine."""

import os
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_COMMAND_ENDS = ") "  # what follows the command's name, which may hold anything else


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(_COMMAND_ENDS)[2].split()


def parent(pid: int) -> int:
    """Return the parent of a process."""
    return int(_stat(pid)[1])


def seconds(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended."""
    # 11 to 14: own user and system time, and those of reaped children.
    return sum(map(int, _stat(pid)[11:15])) * _TICK


def peak_memory(pid: int) -> int:
    """Return the most memory a process has had resident, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if parent(int(entry.name)) == pid:
                    children.append(int(entry.name))
            except (OSError, IndexError):  # it has ended meanwhile
                continue
    return [pid, *children]


def server_seconds(postmaster: int) -> float:
    """Return the processor time of a PostgreSQL server: every backend and helper, ended or not."""
    total = 0.0
    for pid in family(postmaster):
        try:
            total += seconds(pid)
        except (OSError, IndexError):  # it has ended meanwhile, and counts as the parent's
            continue
    return total


def machine_seconds() -> float:
    """Return the processor time of everything on this machine, and what a host has taken of it."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, first[1:9])
    return (user + nice + system + irq + softirq + steal) * _TICK
