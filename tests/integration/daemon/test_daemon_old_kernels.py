"""A container's whole life where newer system calls are missing, as on older kernels.

The calls answer ENOSYS to the daemon and all that it starts; each set is what a kernel lacks (OLDEST is what
sampan.linux.kernel asks for).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import Daemon
from support.machine import cgroup_file, eventually, status_field
from support.without import SCRIPT

BEFORE_5_12 = "mount_setattr"
BEFORE_5_9 = "mount_setattr,close_range"
NO_MOUNT_API = "mount_setattr,close_range,open_tree,move_mount,fsopen,fsconfig,fsmount,fspick"
# No kernel has openat2 and not clone3, but filters of other engines do that.
NO_CLONE3 = NO_MOUNT_API + ",clone3"

Names = Callable[[], str]


@pytest.fixture(params=[BEFORE_5_12, BEFORE_5_9, NO_CLONE3], ids=["5.11", "5.8", "5.6"], scope="module")
def old(request: pytest.FixtureRequest, make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    daemon = make_daemon()
    daemon.wrapper = [sys.executable, SCRIPT, request.param]
    daemon.start()
    yield daemon
    daemon.end()


def test_a_life(old: Daemon, name: Names) -> None:
    one = name()
    docker = old.docker
    docker("run", "-d", "--name", one, "--pids-limit", "40", old.busybox, "sh", "-c", "echo up; sleep 600; :")
    pid = old.api.pid(one)
    assert status_field(pid, "Seccomp") == "2"
    assert cgroup_file(pid, "pids", "pids.max", "pids.max") == "40"
    assert docker("exec", one, "sh", "-c", "echo inside; cat /proc/1/comm").lines == ["inside", "sh"]
    inside = cgroup_file(pid, "pids", "cgroup.procs", "cgroup.procs").split()
    with docker.start("exec", one, "sleep", "60") as process:
        eventually(
            lambda: len(cgroup_file(pid, "pids", "cgroup.procs", "cgroup.procs").split()) > len(inside)
        )
        docker("pause", one)
        assert old.api.inspect(one)["State"]["Paused"]
        docker("unpause", one)
        docker("stop", "-t", "0", one)
        process.communicate(timeout=30)
    assert docker("logs", one).lines == ["up"]
    docker("start", one)
    docker("rm", "-f", one)


def test_copies(old: Daemon, name: Names, tmp_path: Path) -> None:
    """Volumes are in their places there too, and read-only ones stay so."""
    one = name()
    (tmp_path / "f").write_text("copied\n")
    mounts = ["-v", "/vol", "-v", f"{tmp_path}:/ro:ro"]
    old.docker("run", "-d", "--name", one, *mounts, old.busybox, "sleep", "600")
    old.docker("cp", str(tmp_path / "f"), f"{one}:/vol/f")
    assert old.docker("exec", one, "cat", "/vol/f").out == "copied\n"
    old.docker("cp", f"{one}:/ro/f", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "copied\n"
    assert "read-only" in old.docker("cp", str(tmp_path / "f"), f"{one}:/ro/", code=1).err


def test_a_life_with_a_terminal(old: Daemon) -> None:
    command = ("run", "--rm", "-it", old.busybox, "sh", "-c", "tty; echo over")
    with old.docker.terminal(*command) as terminal:
        assert b"/dev/pts/0" in terminal.expect(b"over")
        assert terminal.wait() == 0


def test_mounts(old: Daemon, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "file").write_text("from the host\n")
    script = (
        "cat /b/file; touch /b/x || echo b-ro; touch /w/y && echo w-rw; touch /x || echo root-ro;"
        "touch /t/z && echo t-rw; touch /tr/z || echo t-ro;"
        "mount | grep -E ' on (/b|/w|/t|/tr|/proc/sys|/sys) '"
    )
    shown = old.docker(
        *("run", "--rm", "--read-only", "-v", f"{tmp_path}:/b:ro", "-v", f"{tmp_path}:/w"),
        *("--tmpfs", "/t", "--tmpfs", "/tr:ro,noexec", old.busybox, "sh", "-c", script),
    )
    words = [line for line in shown.lines if " on " not in line]
    assert words == ["from the host", "b-ro", "w-rw", "root-ro", "t-rw", "t-ro"]
    options = {line.split(" ")[2]: line.rpartition("(")[2].rstrip(")").split(",") for line in shown.lines[6:]}
    assert options["/b"][0] == "ro" and options["/w"][0] == "rw"
    assert options["/tr"][0] == "ro" and "noexec" in options["/tr"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options["/proc/sys"])
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options["/sys"])


def test_confinement(old: Daemon) -> None:
    # 0, 1, 2, and the directory itself
    assert old.docker("run", "--rm", old.busybox, "ls", "/proc/self/fd").lines == ["0", "1", "2", "3"]
    script = "wc -c </proc/keys; ls -A /sys/firmware /proc/acpi;echo 1 >/proc/sys/kernel/domainname"
    shown = old.docker("run", "--rm", old.busybox, "sh", "-c", script, code=None)
    assert shown.lines[0] == "0"
    assert shown.err.count("Read-only file system") == 1, shown.err


def test_a_recursive_read_only_bind(old: Daemon) -> None:
    mount = "type=bind,src=/dev,dst=/b,readonly,bind-recursive=readonly,bind-propagation=rprivate"
    shown = old.docker("run", "--rm", "--mount", mount, old.busybox, "sh", "-c", "touch /b/shm/x || echo ro")
    assert shown.out == "ro\n"


def test_what_cannot_be_done_without(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.wrapper = [sys.executable, SCRIPT, "openat2"]
    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    daemon.process = None
    (line,) = daemon.log_text().splitlines()
    assert "does not offer openat2" in line and "Linux 5.6 or newer" in line
