"""Networks as the kernel has them: links, addresses and routes of the host and of containers."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from support.engine import Engine


def shown(engine: Engine, container: str, network: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.api.inspect(container)["NetworkSettings"]["Networks"][network]
    return found


def bridge_of(engine: Engine, network: str) -> str:
    return "br-" + str(engine.api.get(f"/networks/{network}")["Id"])[:12]


def inside(engine: Engine, container: str, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of the host's in a container's network namespace."""
    return subprocess.run(
        ["nsenter", f"--net=/proc/{engine.api.pid(container)}/ns/net", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def pings(engine: Engine, container: str, address: str, wait: str = "5") -> bool:
    return inside(engine, container, "busybox", "ping", "-c1", "-W", wait, address).returncode == 0


def routes(engine: Engine, container: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(inside(engine, container, "ip", "-j", "-4", "route").stdout)
    return found


def default_route(engine: Engine, container: str) -> str:
    found = [route["gateway"] for route in routes(engine, container) if route["dst"] == "default"]
    return str(found[0]) if found else ""


def links() -> set[str]:
    return set(os.listdir("/sys/class/net"))
