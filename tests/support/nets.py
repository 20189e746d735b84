"""Networks as the kernel has them: links, addresses and routes of the host and of containers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.engine import Engine
from support.machine import eventually

# A program for python3: prints what the TCP port at an address says first.
FETCH = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as c:
    print(c.recv(100).decode(), end="")
"""


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


def answer(port: int, address: str = "127.0.0.1") -> bytes:
    """What a TCP port says first; nothing when nobody does."""
    try:
        with socket.create_connection((address, port), 5) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def links() -> set[str]:
    return set(os.listdir("/sys/class/net"))


@contextmanager
def another_machine() -> Iterator[tuple[str, str, Callable[..., str]]]:
    """Another machine: our address towards it, its own, and a way to run a command there."""
    link, peer = f"lan{os.getpid() % 9999}", f"far{os.getpid() % 9999}"
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        eventually(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        for words in (
            ["link", "add", link, "type", "veth", "peer", "name", peer, "netns", str(holder.pid)],
            ["addr", "add", "198.51.100.1/24", "dev", link],
            ["link", "set", link, "up"],
        ):
            subprocess.run(["ip", *words], check=True)
        inside = ["nsenter", "--target", str(holder.pid), "--net"]
        for words in (["addr", "add", "198.51.100.9/24", "dev", peer], ["link", "set", peer, "up"]):
            subprocess.run([*inside, "ip", *words], check=True)

        def run(*words: str) -> str:
            done = subprocess.run([*inside, *words], capture_output=True, text=True, timeout=20, check=False)
            return done.stdout

        yield "198.51.100.1", "198.51.100.9", run
    finally:
        subprocess.run(["ip", "link", "delete", link], check=False)  # the namespace's end would take its time
        holder.kill()
        holder.wait()
