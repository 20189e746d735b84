"""`run`: resources, rights and isolation, as the kernel shows them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support import needs
from support.cli import Cli
from support.engine import Engine
from support.machine import alive, cgroup_file, namespace, on_v2, status_field

Names = Callable[[], str]
CAP_NET_ADMIN, CAP_CHOWN, CAP_SYS_ADMIN = 12, 0, 21
MIB = 1024 * 1024


@pytest.fixture
def running(cli: Cli, engine: Engine, busybox: str, name: Names) -> Callable[..., int]:
    """Starts a sleeping container with options; its pid."""

    def start(*options: str) -> int:
        one = name()
        cli("run", "-d", "--name", one, *options, busybox, "sleep", "60")
        return engine.api.pid(one)

    return start


def effective(pid: int) -> int:
    return int(status_field(pid, "CapEff"), 16)


@needs.controller("memory")
def test_memory(running: Callable[..., int]) -> None:
    pid = running("--memory", "64m")
    assert cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)


@needs.controller("memory")
def test_memory_is_enforced_and_told(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    hungry = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo ${#x}"
    cli(
        "run", "--name", one, "--memory", "20m", "--memory-swap", "20m", busybox, "sh", "-c", hungry, code=137
    )
    assert engine.api.inspect(one)["State"]["OOMKilled"] is True


@needs.controller("cpu")
def test_cpus(running: Callable[..., int]) -> None:
    pid = running("--cpus", "0.5")
    if on_v2(pid, "cpu"):
        assert cgroup_file(pid, "cpu", "", "cpu.max") == "50000 100000"
    else:
        assert cgroup_file(pid, "cpu", "cpu.cfs_quota_us", "") == "50000"


@needs.controller("cpuset")
def test_cpuset(running: Callable[..., int]) -> None:
    pid = running("--cpuset-cpus", "0")
    assert cgroup_file(pid, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert os.sched_getaffinity(pid) == {0}


@needs.controller("pids")
def test_pids_limit(cli: Cli, busybox: str, running: Callable[..., int]) -> None:
    pid = running("--pids-limit", "17")
    assert cgroup_file(pid, "pids", "pids.max", "pids.max") == "17"
    many = "i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done"
    done = cli("run", "--rm", "--pids-limit", "10", busybox, "sh", "-c", many, code=None)
    assert "can't fork" in done.err


def test_ulimit(cli: Cli, busybox: str) -> None:
    done = cli("run", "--rm", "--ulimit", "nofile=123:456", busybox, "sh", "-c", "ulimit -Sn; ulimit -Hn")
    assert done.lines == ["123", "456"]


def test_shm_size(cli: Cli, busybox: str) -> None:
    done = cli("run", "--rm", "--shm-size", "8m", busybox, "df", "-k", "/dev/shm")
    assert done.lines[-1].split()[1] == "8192"


def test_default_capabilities(running: Callable[..., int]) -> None:
    assert effective(running()) == 0xA80425FB


def test_cap_add_and_drop(running: Callable[..., int]) -> None:
    seen = effective(running("--cap-add", "NET_ADMIN", "--cap-drop", "CAP_CHOWN"))
    assert seen >> CAP_NET_ADMIN & 1
    assert not seen >> CAP_CHOWN & 1
    assert effective(running("--cap-drop", "ALL")) == 0


def test_a_user_who_is_not_root_has_no_capabilities(running: Callable[..., int]) -> None:
    pid = running("-u", "1000")
    assert effective(pid) == 0
    assert status_field(pid, "Uid").split() == ["1000"] * 4


def test_privileged(running: Callable[..., int], cli: Cli, busybox: str) -> None:
    pid = running("--privileged")
    ours = int(status_field(os.getpid(), "CapBnd"), 16)
    assert effective(pid) == ours
    assert status_field(pid, "Seccomp") == "0"
    script = "mkdir /m && mount -t tmpfs none /m && grep -c ' /m ' /proc/mounts; grep ' /sys ' /proc/mounts"
    done = cli("run", "--rm", "--privileged", busybox, "sh", "-c", script)
    assert done.lines[0] == "1"
    assert done.lines[1].split()[3].startswith("rw")


def test_seccomp_and_no_new_privileges(running: Callable[..., int], tmp_path: Path) -> None:
    plain = running()
    assert status_field(plain, "Seccomp") == "2"
    assert status_field(plain, "NoNewPrivs") == "0"
    assert status_field(running("--security-opt", "seccomp=unconfined"), "Seccomp") == "0"
    assert status_field(running("--security-opt", "no-new-privileges"), "NoNewPrivs") == "1"


def test_seccomp_profile_from_a_file(cli: Cli, busybox: str, tmp_path: Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    option = f"seccomp={profile}"
    done = cli("run", "--rm", "--security-opt", option, busybox, "mkdir", "/tmp/x", code=1)
    assert "Operation not permitted" in done.err


def test_default_seccomp_refuses(cli: Cli, busybox: str) -> None:
    done = cli("run", "--rm", busybox, "unshare", "-m", "true", code=1)
    assert "Operation not permitted" in done.err


def test_masked_and_read_only_paths(cli: Cli, busybox: str) -> None:
    masked = "for f in kcore keys timer_list; do test ! -e /proc/$f || wc -c </proc/$f; done"
    empty = "for d in /proc/acpi /proc/scsi /sys/firmware; do test ! -e $d || ls $d | wc -l; done"
    write = "echo 1 >/proc/sys/kernel/panic"
    done = cli("run", "--rm", busybox, "sh", "-c", f"{masked}; {empty}; {write}", code=1)
    assert set(done.out.split()) == {"0"}
    assert "Read-only file system" in done.err


def test_read_only_root_and_tmpfs(cli: Cli, busybox: str) -> None:
    script = "echo a >/tmp/file && echo written; grep ' /tmp ' /proc/mounts; echo b >/file"
    options = ("--read-only", "--tmpfs", "/tmp:size=1m,mode=1770")
    done = cli("run", "--rm", *options, busybox, "sh", "-c", script, code=1)
    assert done.lines[0] == "written"
    assert "size=1024k" in done.lines[1] and "mode=1770" in done.lines[1]
    assert "Read-only file system" in done.err


def test_device(cli: Cli, busybox: str) -> None:
    done = cli(
        "run",
        "--rm",
        "--device",
        "/dev/zero:/dev/nothing:r",
        busybox,
        "sh",
        "-c",
        "head -c 3 /dev/nothing | wc -c",
    )
    assert done.out.strip() == "3"
    done = cli("run", "--rm", busybox, "sh", "-c", "mknod /tmp/k c 1 2 && cat /tmp/k", code=1)
    assert "Operation not permitted" in done.err


def test_default_devices(cli: Cli, busybox: str) -> None:
    listed = set(cli("run", "--rm", busybox, "ls", "/dev").out.split())
    expected = {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "pts",
        "ptmx",
        "shm",
        "mqueue",
        "fd",
        "stdin",
    }
    assert expected <= listed
    assert not {name for name in listed if name.startswith(("vd", "sd", "mem", "kmsg"))}


def test_sysctl(cli: Cli, busybox: str) -> None:
    option = "net.ipv4.ip_unprivileged_port_start=80"
    done = cli(
        "run", "--rm", "--sysctl", option, busybox, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    )
    assert done.out == "80\n"


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_host_namespaces(running: Callable[..., int], kind: str) -> None:
    assert namespace(running(f"--{kind}", "host"), kind) == namespace("self", kind)


@pytest.mark.parametrize("kind", ["pid", "ipc"])
def test_another_containers_namespace(
    cli: Cli, engine: Engine, busybox: str, name: Names, running: Callable[..., int], kind: str
) -> None:
    first = name()
    cli("run", "-d", "--name", first, "--ipc", "shareable", busybox, "sleep", "60")
    second = running(f"--{kind}", f"container:{first}")
    assert namespace(second, kind) == namespace(engine.api.pid(first), kind)
    assert alive(second)


def test_cgroup_namespace(running: Callable[..., int]) -> None:
    assert namespace(running("--cgroupns", "private"), "cgroup") != namespace("self", "cgroup")
    assert namespace(running("--cgroupns", "host"), "cgroup") == namespace("self", "cgroup")


def test_oom_score(running: Callable[..., int]) -> None:
    pid = running("--oom-score-adj", "500")
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"


def test_nothing_of_ours_is_open_inside(cli: Cli, busybox: str) -> None:
    script = "cd /proc/self/fd && for f in *; do readlink $f; done"
    done = cli("run", "--rm", busybox, "sh", "-c", script, code=None)
    foreign = [line for line in done.lines if not line.startswith(("pipe:", "/dev/null", "/proc/"))]
    assert foreign == []
