"""What the kernel says: processes, cgroups, mounts, links, firewall tables; seen without our code."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
EMULATED = "SAMPAN_EMULATED" in os.environ  # all takes its time there
# An emulated processor is kept from what is waited for by every look.
LOOK_S = 0.3 if EMULATED else 0.02


def eventually(condition: Callable[[], object], timeout: float = 10, what: str = "") -> None:
    """Wait for something to come true; what takes longer is asked for less often: most ask by a program."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < timeout, f"did not happen within {timeout:g} s: {what or condition}"
        time.sleep(min(LOOK_S + waited / 10, max(LOOK_S, 0.1)))


def status_field(pid: int, name: str) -> str:
    """One field of /proc/<pid>/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise KeyError(name)


def namespace(pid: int | str, kind: str) -> str:
    """The identity of one of a process's namespaces."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def cgroup_file(pid: int, controller: str, v1: str, v2: str) -> str:
    """The content of a cgroup's file, by its name in either version, for the cgroup that a process is in."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, controllers, path in lines:
        if controller in controllers.split(","):
            return (CGROUP_ROOT / controllers / path.lstrip("/") / v1).read_text().strip()
    for _, controllers, path in lines:
        if not controllers:
            return (CGROUP_ROOT / path.lstrip("/") / v2).read_text().strip()
    raise AssertionError(f"no cgroup for {controller}: {lines}")


def on_v2(pid: int, controller: str) -> bool:
    """Whether the controller of this process's cgroup is one of version 2."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return not any(controller in controllers.split(",") for _, controllers, _ in lines)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return status_field(pid, "State")[0] != "Z"
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return False


def mounts(under: str = "/") -> list[str]:
    """The mount points below a directory (proc_pid_mountinfo(5))."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(point for point in points if point == under or point.startswith(under.rstrip("/") + "/"))


def free_subnet(prefix: str = "10.231") -> str:
    """An address with prefix for a bridge, in a /24 that no route of this machine covers."""
    taken = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        destination, mask = (int.from_bytes(bytes.fromhex(line.split()[n]), "little") for n in (1, 7))
        if mask:
            taken.append((destination, mask))
    for third in range(os.getpid() % 200, os.getpid() % 200 + 256):
        network = f"{prefix}.{third % 256}.0"
        address = int.from_bytes(socket.inet_aton(network), "big")
        if network not in _handed_out and not any(
            address & mask == destination or destination & 0xFFFFFF00 == address
            for destination, mask in taken
        ):
            _handed_out.add(network)
            return network[:-1] + "1/24"
    raise AssertionError(f"no free /24 in {prefix}.0.0/16")


_handed_out: set[str] = set()


@dataclass
class Snapshot:
    """Everything of a kind that a container engine could leave behind."""

    mounts: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    cgroups: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    processes: set[str] = field(default_factory=set)

    @classmethod
    def take(cls, base: str, token: str) -> Snapshot:
        """Look now; mounts below `base`, cgroups below one called `token`, processes that name either."""
        return cls(set(mounts(base)), _links(), _cgroups(token), _tables(), _processes(base, token))

    def leaked_since(self, before: Snapshot) -> list[str]:
        """What is here and was not there before, in words."""
        return [
            f"{kind[:-1]} {item}"
            for kind in ("mounts", "links", "cgroups", "tables", "processes")
            for item in sorted(getattr(self, kind) - getattr(before, kind))
        ]


def _links() -> set[str]:
    return set(os.listdir("/sys/class/net"))


def _cgroups(parent: str) -> set[str]:
    return {directory for directory, _, _ in os.walk(CGROUP_ROOT) if f"/{parent}/" in directory}


def remove_cgroup_parents(name: str) -> None:
    """Remove the empty cgroup in every hierarchy that the containers of this session were below."""
    for pattern in (name, f"*/{name}"):
        for directory in CGROUP_ROOT.glob(pattern):
            directory.rmdir()


def _tables() -> set[str]:
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return set(listed.stdout.splitlines())


def _processes(base: str, token: str) -> set[str]:
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if base.encode() in command or token.encode() in environment:
            found.add(f"{entry} {command.replace(bytes(1), b' ').decode(errors='replace')[:120]}")
    return found
