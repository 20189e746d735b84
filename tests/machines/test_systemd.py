"""Boots a Debian 13 with Sampan's package in it: the kernel's own start, systemd as process 1, cgroup v2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.images import busybox_tar, machine_tar
from support.packages import built

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import machine  # noqa: E402  (the path comes first)

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

# What a user does first, and what must hold. `set -e`: the first line that fails is the last that is printed.
SCRIPT = """
set -eux
exec 2>&1
systemctl is-active sampan.socket sampan.service
grep -q '^nft_masq ' /proc/modules
test "$(cat /proc/sys/fs/inotify/max_user_instances)" = 1024
sampan run --rm hello-world
sampan import /busybox.tar busybox
sampan run -d --name lives --memory 64m -p 80:80 busybox sleep 999
process=$(sampan inspect -f '{{.State.Pid}}' lives)
test "$(cat /sys/fs/cgroup$(cut -d: -f3 /proc/$process/cgroup)/memory.max)" = 67108864
systemctl stop sampan.service
test "$(cat /proc/$process/comm)" = sleep
sampan exec lives echo after the restart
systemctl is-active sampan.service
systemctl --failed --no-legend
test -z "$(systemctl --failed --no-legend)"
"""
# The console has no getty: without udev its device would be waited for, in vain and for 90 seconds. Nothing
# needs these modules either.
IDLE = (
    "serial-getty@ttyS0.service",
    *(f"modprobe@{module}.service" for module in ("drm", "efi_pstore", "configfs", "fuse")),
)
UNIT = """
[Unit]
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh /judge
ExecStopPost=/bin/sh -c 'echo "$EXIT_STATUS" >/run/out/status; sync; systemctl poweroff -ff'
StandardOutput=tty
TTYPath=/dev/console

[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A Debian in a directory, with the package and what judges it when it is up."""
    place = tmp_path / "root"
    place.mkdir()
    subprocess.run(["tar", "--numeric-owner", "-C", place, "-xpf", machine_tar("trixie")], check=True)
    package = built(tmp_path / "packages")["sampan"]
    package.rename(place / "sampan.deb")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    install = ["chroot", str(place), "dpkg", "-i", "/sampan.deb"]
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (place / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (place / "busybox.tar").write_bytes(busybox_tar())
    (place / "judge").write_text(SCRIPT)
    (place / "etc/systemd/system/judge.service").write_text(UNIT)
    wanted = place / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "judge.service").symlink_to("../judge.service")
    (place / "usr/lib/modules").symlink_to("/run/kernel/lib/modules")
    return place


def test_systemd_starts_what_the_package_brings(root: Path) -> None:
    try:
        outcome = machine.run(
            ["exec", "/lib/systemd/systemd"],
            root=root,
            timeout_s=600,
            download=False,
            append=" ".join(["systemd.unit=multi-user.target", *(f"systemd.mask={unit}" for unit in IDLE)]),
        )
    except machine.NoMachine as error:
        pytest.skip(f"no emulated machine: {error}")
    print(f"up, judged and down in {outcome.seconds:.0f} s")
    assert outcome.status == 0, outcome.output[-10000:]
    assert "after the restart" in outcome.output
