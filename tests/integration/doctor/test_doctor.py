"""The doctor on the machine that the tests run on: as it is, with parts of the kernel taken away, as nobody.

Seen from outside: whatever it tries, nothing is left of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.machine import eventually
from support.without import SCRIPT

pytestmark = pytest.mark.root

SOURCE = Path(__file__).parents[3] / "src"
# Runs a command as on a kernel without nf_tables' netlink: socket(2) refuses that family alone.
NO_NETFILTER = """
import errno, os, sys
pairs = (0, 16), (2, 12)  # AF_NETLINK, NETLINK_NETFILTER
from sampan.linux import seccomp
rule = {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPROTONOSUPPORT,
        "args": [{"index": index, "value": value, "op": "SCMP_CMP_EQ"} for index, value in pairs]}
seccomp.load(seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def examine(*words: str, wrapper: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """The exit code and the report."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "sampan.cli", "doctor", "--json", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def trials(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {trial["Name"]: trial for trial in report["Trials"]}


def state_of_the_machine() -> dict[str, Any]:
    """All that trying might leave behind."""
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "links": sorted(os.listdir("/sys/class/net")),
        "tables": subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout,
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob("**/sampan-doctor*")],
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "hostname": os.uname().nodename,
        "processes": [
            entry
            for entry in os.listdir("/proc")
            if entry.isdigit() and b"sampan.doctor" in _command_line(entry)
        ],
    }


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_this_machine_is_fit_and_as_it_was(tmp_path: Path) -> None:
    before = state_of_the_machine()
    code, report = examine("--data-root", str(tmp_path / "not" / "there"))
    assert report["Failed"] == [] and code == 0 and report["Fit"]
    assert report["Kernel"] == os.uname().release
    tried = trials(report)
    assert len(tried) > 45
    for name in (
        *("openat2", "pidfd", "mount namespace", "network namespace", "mount proc", "pivot_root"),
        *("overlay (overlay2)", "cgroup of a container", "device list", "veth", "bridge"),
        *("container on a bridge", "nftables", "firewall table with NAT", "egress policies"),
        *("egress policies with IPv6", "system call filter (seccomp)"),
    ):
        assert tried[name]["State"] == "works", tried[name]
    assert state_of_the_machine() == before
    assert list(tmp_path.iterdir()) == []
    (limits,) = (section for section in report["Sections"] if section["Title"] == "Limits")
    for item in limits["Items"]:
        assert item["State"] == Path(item["Name"]).read_text().strip()


@pytest.mark.parametrize(
    ("calls", "fit", "named"),
    [
        ("unshare", False, {"mount namespace", "network namespace"}),
        (
            "openat2,seccomp,pivot_root,pidfd_open",
            False,
            {"openat2", "system call filter (seccomp)", "pivot_root", "pidfd"},
        ),
        ("clone3,mount_setattr,fsopen", True, set()),
    ],
)
def test_without_a_system_call(calls: str, fit: bool, named: set[str], tmp_path: Path) -> None:
    before = state_of_the_machine()
    code, report = examine("--data-root", str(tmp_path), wrapper=(sys.executable, SCRIPT, calls))
    assert (code, report["Fit"]) == ((0, True) if fit else (1, False))
    assert named <= set(report["Failed"])
    for name in calls.split(","):
        told = [trial for trial in report["Trials"] if trial["State"] == "fails" and name in trial["Detail"]]
        assert told and all(trial["Without"] for trial in told), name
    assert state_of_the_machine() == before


def test_without_nf_tables(tmp_path: Path) -> None:
    wrapper = (sys.executable, "-c", NO_NETFILTER)
    os.environ["PYTHONPATH"] = str(SOURCE)
    try:
        code, report = examine("--data-root", str(tmp_path), wrapper=wrapper)
    finally:
        del os.environ["PYTHONPATH"]
    assert code == 1
    assert set(report["Failed"]) == {"nftables", "firewall table with NAT"}
    told = trials(report)["nftables"]
    assert "no nf_tables" in told["Detail"] and "published ports" in told["Without"] and told["Remedy"]


def test_not_root() -> None:
    """Somebody whom no file names, and who may read ours: what root alone can try is named, not guessed."""
    wrapper = (
        *("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"),
        *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    )
    _, report = examine(wrapper=wrapper)
    tried = trials(report)
    assert tried["openat2"]["State"] == tried["system call filter (seccomp)"]["State"] == "works"
    for name in ("mount namespace", "veth", "overlay (overlay2)", "cgroup of a container"):
        assert (tried[name]["State"], tried[name]["Detail"]) == ("not tried", "needs root")
    assert "capabilities" not in report["Failed"]
    ids = tried["without root: subordinate ids (subuid, subgid)"]
    assert ids["State"] == "fails"
    assert "usermod --add-subuids" in ids["Remedy"] or "apt-get install uidmap" in ids["Remedy"]
    cgroups = tried["without root: cgroups"]
    assert cgroups["State"] == "fails"
    assert "enable-linger 54321" in cgroups["Remedy"] or "unified_cgroup_hierarchy" in cgroups["Remedy"]


def test_a_data_root_where_no_overlay_can_be(tmp_path: Path) -> None:
    """An overlay cannot stand on an overlay, and without fuse-overlayfs nothing else but vfs can."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
    hidden = (
        *("unshare", "--mount", "sh", "-c"),
        'program=$(command -v fuse-overlayfs) && mount --bind /dev/null "$program"; exec "$@"',
        "sh",
    )
    try:
        code, report = examine("--data-root", str(tmp_path / "merged"), wrapper=hidden)
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)
    told = trials(report)["overlay (overlay2)"]
    assert told["State"] == "fails" and "cannot stand on an overlay" in told["Detail"]
    assert code == 1 and report["Failed"] == ["storage driver"]
    driver = trials(report)["storage driver"]
    assert "only vfs" in driver["Detail"] and "fuse-overlayfs" in driver["Remedy"]


def test_a_data_root_that_forbids_programs(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,size=1m", "tmpfs", tmp_path], check=True)
    try:
        code, report = examine("--data-root", str(tmp_path))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    tried = trials(report)
    assert code == 1 and "data root" in report["Failed"]
    assert "noexec" in tried["data root"]["Detail"] and "remount" in tried["data root"]["Remedy"]
    assert tried["space in the data root"]["State"] == "fails"


def test_a_doctor_that_was_killed_leaves_nothing_for_long(tmp_path: Path) -> None:
    before = state_of_the_machine()
    doctor = subprocess.Popen(
        [sys.executable, "-m", "sampan.doctor", "--data-root", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: any(tmp_path.iterdir()))
    doctor.send_signal(signal.SIGKILL)
    doctor.wait(timeout=10)
    code, _ = examine("--data-root", str(tmp_path))
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    eventually(lambda: state_of_the_machine() == before)


def test_a_broken_configuration_of_the_daemon(tmp_path: Path) -> None:
    wrapper = (
        *("unshare", "--mount", "sh", "-c"),
        "mount -t tmpfs tmpfs /etc/sampan 2>/dev/null || { mount -t tmpfs tmpfs /mnt && "
        "cp -a /etc/. /mnt/ && mount --move /mnt /etc && mkdir -p /etc/sampan; }; "
        'echo "{" > /etc/sampan/daemon.json; exec "$@"',
        "sh",
    )
    code, report = examine(wrapper=wrapper)
    assert code == 1 and report["Failed"] == ["daemon.json"]
