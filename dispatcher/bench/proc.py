"""Processor time and memory of processes on this machine, from /proc (Linux only)."""

import os
from pathlib import Path

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_COMMAND_END = ") "  # follows the command's name, which may hold any other characters


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(_COMMAND_END)[2].split()


def parent(pid: int) -> int:
    """Return the parent of a process."""
    return int(_stat(pid)[1])


def seconds(pid: int) -> float:
    """Return the processor seconds of a process and of its ended children."""
    # 11 to 14: own user and system time, and those of reaped children.
    return sum(map(int, _stat(pid)[11:15])) * _TICK_SECONDS


def peak_memory(pid: int) -> int:
    """Return the peak resident memory of a process, in bytes."""
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
            except (OSError, IndexError):  # the process has ended
                continue
    return [pid, *children]


def server_seconds(parent_process: int) -> float:
    """Return the processor seconds of a process and its children, ended ones too.

    Such are a PostgreSQL server and receivers that share a port.
    """
    total = 0.0
    for pid in family(parent_process):
        try:
            total += seconds(pid)
        except (OSError, IndexError):  # the process has ended and is part of its parent's time
            continue
    return total


def machine_seconds() -> float:
    """Return the processor seconds of all processes here, and those stolen by the host."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, first[1:9])
    return (user + nice + system + irq + softirq + steal) * _TICK_SECONDS
