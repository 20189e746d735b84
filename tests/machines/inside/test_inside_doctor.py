"""A kernel whose veth pairs are a module that cannot be loaded: never a riddle, always a remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engine import SOURCE, Daemon

LOADER = Path("/proc/sys/kernel/modprobe")


def doctor() -> tuple[int, dict[str, Any]]:
    """Its exit code and what came of each trial."""
    done = subprocess.run(
        [sys.executable, "-m", "sampan.doctor", "--json"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    return done.returncode, {trial["Name"]: trial for trial in report["Trials"]}


@pytest.fixture
def no_veth() -> Iterator[None]:
    before = LOADER.read_text()
    LOADER.write_text("/bin/false")
    subprocess.run(["rmmod", "veth"], check=False)  # it may never have been loaded
    assert not Path("/sys/module/veth").exists()
    yield
    LOADER.write_text(before)


def test_without_veth(no_veth: None, make_daemon: Callable[..., Daemon]) -> None:
    code, tried = doctor()
    assert code == 1
    assert tried["veth"]["State"] == tried["container on a bridge"]["State"] == "fails"
    assert tried["mount namespace"]["State"] == tried["device list"]["State"] == "works"
    assert "modprobe veth" in tried["veth"]["Remedy"] and "CONFIG_VETH" in tried["veth"]["Detail"]
    daemon = make_daemon().start()
    try:
        refused = daemon.docker("run", "--rm", daemon.busybox, "true", code=125).err
        assert "no veth pairs" in refused and "modprobe veth" in refused and "CONFIG_VETH" in refused
        assert daemon.docker("run", "--rm", "--network", "none", daemon.busybox, "echo", "up").lines == ["up"]
        assert any("no veth pairs" in line for line in daemon.api.get("/info")["Warnings"])
    finally:
        daemon.end()
