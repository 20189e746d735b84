"""Boots Debian's stock kernel under emulation, and runs tests inside: see tools/machine.py.

What runs there is what differs between machines: cgroup v2, v1 and both, AppArmor, quotas, an older kernel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import machine  # noqa: E402  (the path comes first)

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

BOOT_TIMEOUT_S = 840
PYTEST = f"{sys.executable} -m pytest -q -p no:cacheprovider -p no:xdist -o timeout=300 --cli docker"
INSIDE = "tests/machines/inside"
LINUX = "tests/integration/linux"
ATTACK = "tests/attack/test_runtime_confinement.py"
LIMITS = (
    "tests/clients/test_run_limits.py tests/integration/storage/test_storage_limits.py"
    " tests/integration/volumes/test_volume_quota.py tests/clients/test_publish_sctp.py"
)
CHOSEN = (
    "inside or many_are_made or profile_from_a_file or sysctl or descriptor or interpreter or quota"
    " or size_by_project or sockets_of_the_kernels"
)
# The kernel would ask for one after the other, and begin a batch of rules anew after each: twenty seconds.
MODULES = (
    "overlay veth bridge nft_chain_nat nft_nat nft_fib_inet nft_ct nft_masq nft_log macvlan ipvlan 8021q sctp"
)
LOADED = f"/sbin/modprobe -d /run/kernel -a {MODULES}"
# Each is one boot: layout of cgroups, options for the kernel, what to run.
MACHINES = {
    "v2": (
        "v2",
        "apparmor=1 security=apparmor",
        f"{LOADED}; {PYTEST} {INSIDE} {LINUX} {LIMITS} {ATTACK} -k '{CHOSEN}'",
    ),
    "v1": (
        "hybrid",
        "apparmor=0",
        f"{LOADED}; {PYTEST} {INSIDE} {LINUX} && "
        f"umount /sys/fs/cgroup/unified && SAMPAN_MACHINE=v1 {PYTEST} {INSIDE}",
    ),
}


HIERARCHIES = [line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()]
HAS_V1 = "cgroup" in HIERARCHIES
if HAS_V1:
    del MACHINES["v1"]


@pytest.fixture(scope="module")
def booted() -> dict[str, Future[machine.Outcome]]:
    """All machines at once, each on its share of the processors."""
    # What changed since the last run is compiled here: emulated, it would take minutes.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src"], cwd=ROOT, check=True)
    pool = ThreadPoolExecutor(len(MACHINES))
    started = {
        name: pool.submit(
            machine.run,
            ["sh", "-c", script],
            layout,
            append=options,
            timeout_s=BOOT_TIMEOUT_S,
            download=False,
        )
        for name, (layout, options, script) in MACHINES.items()
    }
    pool.shutdown(wait=False)
    return started


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine(name: str, booted: dict[str, Future[machine.Outcome]]) -> None:
    try:
        outcome = booted[name].result()
    except machine.NoMachine as error:
        pytest.skip(f"no emulated machine: {error}")
    counts = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped", outcome.output, re.MULTILINE)
    print(f"{name}: {counts or 'nothing'} in {outcome.seconds:.0f} s")
    assert outcome.status == 0, f"on the machine {name}:\n{outcome.output[-20000:]}"
    assert counts and sum(int(passed) for passed, *_ in counts) > 10, outcome.output[-5000:]


@pytest.mark.skipif(not HAS_V1, reason="this machine has no cgroup v1: an emulated one has")
@pytest.mark.parametrize("layout", ["hybrid", "v1"])
def test_cgroup_v1_here(layout: str) -> None:
    unified = Path("/sys/fs/cgroup/unified")
    if layout == "hybrid" and not unified.is_mount():
        pytest.skip("this machine has no unified hierarchy beside the others")
    # The tests' own /sys covers the machine's, where it is mounted too: see tools/isolation.py.
    alone = f"umount -l /sys; umount {unified}; ! grep -q {unified} /proc/self/mountinfo && "
    alone = alone if layout == "v1" and unified.is_mount() else ""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{alone}{PYTEST} {INSIDE}"],
        cwd=ROOT,
        env={**os.environ, "SAMPAN_MACHINE": layout},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert re.search(r"^[5-9] passed, 0 failed", done.stdout, re.MULTILINE), done.stdout[-5000:]
