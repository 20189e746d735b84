"""Boots a Debian 13 with Sampan's package in it: the kernel's own start, systemd as process 1, cgroup v2.

First the machine's daemon, then that of a user who lingers, whose cgroup is looked at by root.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.images import machine_tar
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
box="-v /bin/busybox:/busybox:ro --entrypoint /busybox hello-world"
sampan run -d --name lives --memory 64m -p 80:80 $box sleep 999
place=$(echo /sys/fs/cgroup/sampan/*/)
test "$(cat $place/memory.max)" = 67108864
process=$(cat $place/cgroup.procs)
systemctl stop sampan.service
test "$(cat /proc/$process/comm)" = busybox
sampan exec lives /busybox echo after the restart
systemctl is-active sampan.service
install -d -m 700 -o mate /tmp/mate
chmod 666 /dev/net/tun # as udev has it
loginctl enable-linger mate
until systemctl is-active user@1000.service; do sleep 1; done
export HOME=/tmp/mate XDG_RUNTIME_DIR=/run/user/1000
mate() { setpriv --reuid 1000 --regid 1000 --init-groups "$@"; }
mate systemctl --user start sampan.service
mate sampan run -d --name mine --memory 64m --cpus 0.5 --pids-limit 30 $box sleep 999
place=$(echo /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/sampan.scope/sampan/*/)
test "$(cat $place/memory.max $place/cpu.max $place/pids.max)" = "67108864
50000 100000
30"
test "$(cat /proc/$(cat $place/cgroup.procs)/comm)" = busybox
mate sampan pause mine
grep -q 'frozen 1' $place/cgroup.events
scope=${place%/sampan/*}
# By hand from a cgroup that is root's, as a login's is: systemd moves it.
grep -q system.slice /proc/self/cgroup
mate /usr/lib/sampan/bin/python3 -I -c "
from sampan.rootless.delegation import Cgroup, move_into
move_into(Cgroup('/sys/fs/cgroup', '${scope#/sys/fs/cgroup}', 'sampan.scope'), 'hand')
print(open('/proc/self/cgroup').read())" | grep sampan.scope/hand
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
# A third of the time that the machine takes to come up, for what nobody asks for here.
NOT_NEEDED = (
    *("serial-getty@ttyS0.service", "getty.target", "modprobe@drm.service", "modprobe@configfs.service"),
    *("modprobe@efi_pstore.service", "modprobe@fuse.service", "sys-kernel-config.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount"),
    *("systemd-remount-fs.service", "systemd-journal-flush.service", "dev-hugepages.mount"),
    *("dev-mqueue.mount", "systemd-random-seed.service", "systemd-binfmt.service"),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A Debian in a directory, with the package and what judges it when it is up."""
    place = tmp_path / "root"
    place.mkdir()
    subprocess.run(["tar", "--numeric-owner", "-C", place, "-xpf", machine_tar("trixie")], check=True)
    package = built(tmp_path / "packages")["sampan"]
    package.rename(place / "sampan.deb")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    for words in (
        ("dpkg", "-i", "/sampan.deb"),
        ("useradd", "--home-dir", "/tmp/mate", "--uid", "1000", "mate"),
    ):
        command = ["chroot", str(place), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy("/bin/busybox", place / "bin/busybox")
    (place / "judge").write_text(SCRIPT)
    (place / "etc/systemd/system/judge.service").write_text(UNIT)
    wanted = place / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "judge.service").symlink_to("../judge.service")
    for unit in NOT_NEEDED:
        (place / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for manager in ("system", "user"):  # everything takes long here, and longer beside other tests
        patience = place / f"etc/systemd/{manager}.conf.d/patience.conf"
        patience.parent.mkdir()
        patience.write_text("[Manager]\nDefaultTimeoutStartSec=500\n")
    (place / "usr/lib/modules").symlink_to("/run/kernel/lib/modules")
    return place


def test_systemd_starts_what_the_package_brings(root: Path) -> None:
    try:
        outcome = machine.run(
            ["exec", "/lib/systemd/systemd"],
            root=root,
            timeout_s=780,
            download=False,
            append=" ".join(["systemd.unit=multi-user.target", *(f"systemd.mask={unit}" for unit in IDLE)]),
        )
    except machine.NoMachine as error:
        pytest.skip(f"no emulated machine: {error}")
    print(f"up, judged and down in {outcome.seconds:.0f} s")
    assert outcome.status == 0, outcome.output[-10000:]
    assert "after the restart" in outcome.output
