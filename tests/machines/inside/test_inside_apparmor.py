"""AppArmor: the default profile is loaded, containers and execs are in it, and it refuses what it must."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from support.engine import Daemon

Names = Callable[[], str]
PROFILES = Path("/sys/kernel/security/apparmor/profiles")
NOTHING_ELSE = ("--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined")
# What only AppArmor refuses: every capability, no system call filter, nothing masked or read-only.
LOOSE = ("--cap-add", "ALL", *NOTHING_ELSE)
TRIES = (
    "echo x >/proc/sys/kernel/domainname && echo WROTE sys;"
    "mount -t tmpfs t /tmp && echo MOUNTED;"
    "cat /sys/kernel/security/apparmor/profiles >/dev/null && echo READ security;"
    "head -c 1 /proc/kcore >/dev/null && echo READ kcore;"
    "echo 3 >/proc/sys/vm/drop_caches && echo WROTE vm;"
    "cat /proc/self/attr/apparmor/current"
)


def current(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/apparmor/current").read_text().strip()


def test_a_container_is_confined(daemon: Daemon, name: Names) -> None:
    assert "name=apparmor" in daemon.api.get("/info")["SecurityOptions"]
    assert "docker-default (enforce)" in PROFILES.read_text()
    one = name()
    daemon.docker("run", "-d", "--name", one, daemon.busybox, "sleep", "600")
    assert current(daemon.api.pid(one)) == "docker-default (enforce)"
    assert daemon.api.inspect(one)["AppArmorProfile"] == "docker-default"
    for options in ((), ("--privileged",)):
        shown = daemon.docker("exec", *options, one, "cat", "/proc/self/attr/apparmor/current").out
        assert shown.strip("\0\n") == "docker-default (enforce)", options
    daemon.docker("kill", "-s", "USR1", one)
    daemon.docker("stop", "-t", "0", one)


def test_what_only_the_profile_refuses(daemon: Daemon) -> None:
    shown = daemon.docker("run", "--rm", *LOOSE, daemon.busybox, "sh", "-c", TRIES, code=None)
    assert shown.out.strip("\0\n") == "docker-default (enforce)", shown.err
    free = (*LOOSE, "--security-opt", "apparmor=unconfined")
    shown = daemon.docker("run", "--rm", *free, daemon.busybox, "sh", "-c", TRIES, code=None)
    assert {"WROTE sys", "MOUNTED", "WROTE vm"} <= set(shown.lines), shown.err
    assert shown.lines[-1].strip("\0") == "unconfined"


def test_ordinary_life_goes_on_under_it(daemon: Daemon) -> None:
    script = (
        "sleep 60 & kill $!; wait $! 2>/dev/null; echo data >/f && cat /f && ps >/dev/null && chmod 600 /f;"
        "mkdir /d && ln -s /f /d/l && cat /d/l; echo 100 >/proc/self/oom_score_adj && echo own;"
        "nc -l -p 99 -e echo over & sleep 1; nc 127.0.0.1 99"
    )
    shown = daemon.docker("run", "--rm", daemon.busybox, "sh", "-c", script)
    assert shown.lines == ["data", "data", "own", "over"], shown.err


def test_a_profile_by_name(daemon: Daemon, name: Names) -> None:
    text = "profile sampan-test-quiet flags=(attach_disconnected) {\n  file,\n  capability,\n"
    text += "  deny /etc/group r,\n}\n"
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache"], input=text, text=True, check=True)
    options = ("--security-opt", "apparmor=sampan-test-quiet")
    one = name()
    shown = daemon.docker("run", "--name", one, *options, daemon.busybox, "cat", "/etc/group", code=1)
    assert "Permission denied" in shown.err
    assert daemon.api.inspect(one)["AppArmorProfile"] == "sampan-test-quiet"
    missing = daemon.docker(
        "run", "--rm", "--security-opt", "apparmor=nope", daemon.busybox, "true", code=125
    )
    assert "not loaded" in missing.err


def test_privileged_is_unconfined(daemon: Daemon, name: Names) -> None:
    one = name()
    daemon.docker("run", "-d", "--privileged", "--name", one, daemon.busybox, "sleep", "600")
    assert current(daemon.api.pid(one)) == "unconfined"
    assert daemon.api.inspect(one)["AppArmorProfile"] == "unconfined"


def test_a_profile_that_was_unloaded_comes_back(daemon: Daemon) -> None:
    text = "profile docker-default {\n}\n"
    subprocess.run(["apparmor_parser", "--remove"], input=text, text=True, check=True)
    assert "docker-default" not in PROFILES.read_text()
    shown = daemon.docker("run", "--rm", daemon.busybox, "cat", "/proc/self/attr/apparmor/current").out
    assert shown.strip("\0\n") == "docker-default (enforce)"
