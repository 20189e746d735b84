"""What the kernel has counted for the machine and for a network namespace (proc_stat(5), proc_pid_net(5))."""

from __future__ import annotations

import os

from sampan.dataclasses import dataclass

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_BUSY_AND_IDLE = 7  # user, nice, system, idle, iowait, irq, softirq; guests are within user and nice


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """What one interface has received and sent, as its own namespace sees it."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def machine_cpu() -> tuple[int, int]:
    """Time of all processors since boot, idle or not, in nanoseconds; and how many are online."""
    with open("/proc/stat", encoding="ascii") as file:
        words = file.readline().split()
        online = 0
        for line in file:
            if not line.startswith("cpu"):
                break
            online += 1
    return sum(int(word) for word in words[1 : 1 + _BUSY_AND_IDLE]) * _TICK_NS, online


def interfaces(pid: int) -> dict[str, InterfaceCounters]:
    """The interfaces of a process's network namespace by name, loopback left out; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/net/dev", encoding="utf-8", errors="replace") as file:
            lines = file.readlines()[2:]
    except OSError:
        return {}
    found: dict[str, InterfaceCounters] = {}
    for line in lines:
        name, _, rest = line.rpartition(":")
        numbers = [int(word) for word in rest.split()]
        name = name.strip()
        if name != "lo" and len(numbers) >= 12:
            found[name] = InterfaceCounters(*numbers[:4], *numbers[8:12])
    return found
