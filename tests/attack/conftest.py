"""Shared by the attacks on networks: a daemon's networks in a namespace that is no host's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.database import Database
from sampan.linux.syscalls import CLONE_NEWNET, setns, unshare
from sampan.network import BridgeOptions, NetworkService

Make = Callable[..., NetworkService]


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
