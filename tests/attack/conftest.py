"""Shared by attacks on networks: a daemon's networks in a namespace of their own, and a world outside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.database import Database
from sampan.linux.syscalls import CLONE_NEWNET, setns, unshare
from sampan.network import BridgeOptions, NetworkService
from support.engine import Engine
from support.outside import Outside

Make = Callable[..., NetworkService]
Names = Callable[[], str]
Start = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes services, each time the same daemon started again, in a network namespace that is no host's."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    unshare(CLONE_NEWNET)
    made: list[NetworkService] = []

    def service(live: tuple[str, ...] = (), **options: Any) -> NetworkService:
        new = NetworkService(Database(tmp_path / "db"), tmp_path / "netns", BridgeOptions(**options))
        new.start(live)
        made.append(new)
        return new

    try:
        yield service
        for one in reversed(made):
            one.remove_all()
    finally:
        setns(before, CLONE_NEWNET)
        os.close(before)


@pytest.fixture
def start(engine: Engine, name: Names, busybox: str, world: Outside) -> Start:
    """Starts a privileged container, with a policy if there is one; its name."""

    def run(policy: str, *options: str) -> str:
        one = name()
        label = ("--label", f"sampan.egress={policy}") if policy else ()
        words = ("run", "-d", "--name", one, "--stop-timeout", "0", "--privileged", *label)
        engine.docker(*words, "--dns", world.dns, *options, busybox, "sleep", "600")
        return one

    return run


@pytest.fixture
def net(engine: Engine, name: Names) -> Iterator[str]:
    """A network; it goes, with all in it, at the end."""
    one = name()
    engine.docker("network", "create", one)
    yield one
    for container in engine.api.containers():
        if one in container["NetworkSettings"]["Networks"]:
            engine.api.remove(container["Id"])
    engine.api("DELETE", f"/networks/{one}")
