"""These run where test_machines.py says: they are about a machine's kernel and layout of cgroups."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

LOADER = Path("/proc/sys/kernel/modprobe")
LAYOUT = os.environ.get("SAMPAN_MACHINE", "")
ONLY_V2 = ("v2", "apparmor", "clock", "doctor", "lans")
collect_ignore = [
    *([] if LAYOUT == "v2" else [f"test_inside_{name}.py" for name in ONLY_V2]),
    *([] if LAYOUT in ("hybrid", "v1") else ["test_inside_v1.py"]),
]


@pytest.fixture
def no_veth() -> Iterator[None]:
    """The kernel's veth pairs are a module that cannot be loaded."""
    before = LOADER.read_text()
    LOADER.write_text("/bin/false")
    subprocess.run(["rmmod", "veth"], check=False)  # it may never have been loaded
    assert not Path("/sys/module/veth").exists()
    yield
    LOADER.write_text(before)
