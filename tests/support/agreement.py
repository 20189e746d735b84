"""Whether a daemon, its database, its directories and the kernel tell the same story of its containers."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from support.engine import Daemon
from support.machine import alive, mounts


def disagreements(daemon: Daemon) -> list[str]:
    """What does not fit together, in words; empty when all does."""
    found: list[str] = []
    shown = {one["Id"]: daemon.api.inspect(one["Id"]) for one in daemon.api.containers()}
    with closing(sqlite3.connect(f"file:{daemon.data_root}/sampan.db?mode=ro", uri=True)) as database:
        recorded = {row[0] for row in database.execute("SELECT id FROM containers")}
        endpoints = {row[0] for row in database.execute("SELECT container_id FROM endpoints")}
        published = {row[0] for row in database.execute("SELECT container_id FROM published")}
    running = {name for name, one in shown.items() if one["State"]["Running"]}
    mounted = {
        Path(place).parent.name for place in mounts(str(daemon.data_root)) if place.endswith("/merged")
    }
    places = {
        "the database": (recorded, set(shown)),
        "containers/": (_names(daemon.data_root / "containers"), set(shown)),
        "overlay2/containers/": (_names(daemon.data_root / "overlay2/containers"), set(shown)),
        "the run directories": (_names(daemon.exec_root / "containers"), running),
        "the network namespaces": (_names(daemon.exec_root / "netns"), running),
        "the mounts": (mounted, running),
        "the endpoints": (endpoints, running),
        "the published ports": (published, {name for name in running if _bound(shown[name])}),
    }
    for place, (there, wanted) in places.items():
        found += [f"{place}: {name[:12]} is there" for name in sorted(there - wanted)]
        found += [f"{place}: {name[:12]} is missing" for name in sorted(wanted - there)]
    table = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
    for name, one in shown.items():
        pid = one["State"]["Pid"]
        if (pid > 0 and alive(pid)) != (name in running):
            found.append(f"{name[:12]} is {one['State']['Status']}, and its process {pid} says otherwise")
        if _paused(pid) != one["State"]["Paused"]:
            found.append(f"{name[:12]} is {one['State']['Status']}, and the freezer says otherwise")
        for _, port in _bound(one):
            if f"tcp . {port} :" not in table:
                found.append(f"{name[:12]}: port {port} is not in the firewall")
    ports = {port for one in shown.values() for _, port in _bound(one)}
    for line in table.splitlines():
        words = line.replace("elements = {", "").split()
        if words[:2] == ["tcp", "."] and words[3:4] == [":"] and words[2] not in ports:
            found.append(f"the firewall: port {words[2]} is published for nobody")
    return found


def _names(directory: Path) -> set[str]:
    return set(os.listdir(directory)) if directory.is_dir() else set()


def _bound(shown: dict[str, Any]) -> list[tuple[str, str]]:
    ports = shown["NetworkSettings"]["Ports"] or {}
    return [(one["HostIp"], one["HostPort"]) for places in ports.values() for one in places or ()]


def _paused(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "freezer" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").read_text() != "THAWED\n"
    place = next((line[3:] for line in lines if line.startswith("0::")), "")
    events = Path(f"/sys/fs/cgroup{place}/cgroup.events")
    return events.exists() and "frozen 1" in events.read_text()
