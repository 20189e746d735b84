"""Where the time of one start went: the steps as the engine took them, for `sampan run --explain`.

Times are the kernel's monotonic clock, which daemon, launcher and monitor share (clock_gettime(2)). The
monitor tells its own steps with every start anyway; nothing is noted here unless a client asked.
"""

from __future__ import annotations

import time
from dataclasses import field
from typing import Any

from sampan.dataclasses import dataclass
from sampan.engine.core import Core
from sampan.engine.model import Container
from sampan.runtime import Process

# What the monitor's steps are to a reader (runtime/launcher.py, start.py, monitor.py).
_RUNTIME = {
    "config read": "configuration checked",
    "monitor forked": "monitor forked",
    "cgroups made": "cgroup made",
    "cloned": "process cloned",
    "parent done": "process adopted",
    "executed": "program executed",
    "monitor set": "streams connected",
}


@dataclass(slots=True)
class Step:
    """One step: how long after the request it was done, and what it took (seconds)."""

    name: str
    at_s: float
    took_s: float
    detail: str = ""


@dataclass(slots=True)
class Explanation:
    """The steps of one start, in their order."""

    began: float = field(default_factory=time.monotonic)
    steps: list[Step] = field(default_factory=list)
    namespaces: str = ""
    _last: float = -1.0

    def note(self, name: str, detail: str = "") -> None:
        """A step is done; it began when the one before it was done."""
        self._at(name, time.monotonic(), detail)

    def note_runtime(self, process: Process) -> None:
        """The steps of launcher and monitor, as the monitor has told them."""
        if process.began:
            self._at("launcher reached", process.began)
        at = process.began or self._now()
        for name, seconds in process.timings:
            at += seconds
            self._at(_RUNTIME.get(name, name), at)
        self.note("daemon told")
        self.describe("monitor forked", f"process {process.monitor_pid}")
        self.describe("process cloned", f"process {process.pid}, {self.namespaces}")

    def note_configuration(self, spec: dict[str, Any]) -> None:
        """The runtime's configuration is written."""
        self.note("config.json written")
        new = [one["type"] for one in spec["linux"]["namespaces"] if not one.get("path")]
        joined = [one["type"] for one in spec["linux"]["namespaces"] if one.get("path")]
        self.namespaces = f"new namespaces: {', '.join(new)}"
        if joined:
            self.namespaces += f"; joined: {', '.join(joined)}"

    def describe(self, name: str, detail: str) -> None:
        """Say more of a step that was noted."""
        for step in self.steps:
            if step.name == name:
                step.detail = detail

    def leave_out(self, seconds: float) -> None:
        """Of the time that follows, so much was not the start's."""
        self.began += seconds
        self._last += seconds

    def _now(self) -> float:
        return self._last if self._last >= 0 else self.began

    def _at(self, name: str, moment: float, detail: str = "") -> None:
        self.steps.append(Step(name, moment - self.began, moment - self._now(), detail))
        self._last = moment

    def encoded(self) -> list[list[Any]]:
        """[name, detail, microseconds since the request, microseconds it took] each."""
        return [
            [step.name, step.detail, round(step.at_s * 1e6), round(step.took_s * 1e6)] for step in self.steps
        ]


def look_at_kernel(core: Core, container: Container, explanation: Explanation) -> None:
    """Say more of the root and of the networks, while nothing runs yet: a short program takes both with it.

    The time that the looking takes is left out of what is told.
    """
    begin = time.monotonic()
    explanation.describe("layers mounted", _mounted(core, container.id))
    explanation.describe("network connected", _connected(container))
    explanation.leave_out(time.monotonic() - begin)


def look_closer(core: Core, container: Container, explanation: Explanation) -> None:
    """Say more of the other steps; afterwards. The container may be gone by then."""
    image = f"{container.config.image} {container.image_id.removeprefix('sha256:')[:12]}"
    explanation.describe("container found", f"{container.id[:12]} of the image {image}")
    explanation.describe("cgroup made", core.cgroups_path(container))
    command = " ".join([container.path, *container.args])
    explanation.describe("program executed", command if len(command) <= 60 else f"{command[:59]}…")


def _mounted(core: Core, identifier: str) -> str:
    """The file system of the root, and how many layers the kernel stacks there."""
    path = f"/{identifier}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.readlines()
    for line in lines:
        before, _, after = line.partition(" - ")
        place = before.split(" ")[4]
        if path in f"{place}/" and "merged" in place:
            kind, _, options = after.strip().split(" ", 2)
            lower = [option for option in options.split(",") if option.startswith("lowerdir")]
            count = sum(option.count(":") + 1 for option in lower) if lower else 0
            return f"{kind}, {count} read-only below a writable one" if count else kind
    return core.driver.name


def _connected(container: Container) -> str:
    parts = []
    for name, endpoint in container.networks.items():
        four = f" {endpoint.ip_address}/{endpoint.ip_prefix_len}" if endpoint.ip_address else ""
        six = f" {endpoint.global_ipv6_address}/{endpoint.global_ipv6_prefix_len}"
        address = four + (six if endpoint.global_ipv6_address else "")
        gateways = " and ".join(filter(None, (endpoint.gateway, endpoint.ipv6_gateway)))
        link = f", {endpoint.mac_address}, gateway {gateways}" if gateways else ""
        parts.append(f"{name}{address}{link}")
    for port, bindings in container.ports.items():
        parts += [
            f"{one.host_ip}:{one.host_port} -> {port}" if one.host_port else f"{port} at its own address"
            for one in bindings or ()
        ]
    return "; ".join(parts)
