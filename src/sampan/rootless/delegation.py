"""A cgroup for the containers of a daemon without root (cgroup-v2.rst, "Delegation").

A scope of the user's systemd (org.freedesktop.systemd1(5), systemd.resource-control(5), `Delegate=`), which
is asked for by systemd's own program busctl(1); where that does not answer, the cgroup that we are in, if it
is marked as ours (systemd's CGROUP_DELEGATION.md, the attribute `user.delegate`). What lives in it sits in
leaves: a cgroup with processes of its own has no controllers for those below it.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

from sampan import places
from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.linux.cgroups import files, layout

KEEPER, DAEMON = "keeper", "daemon"  # leaves
VERSION_1 = "this machine has cgroup v1, of which users get nothing"
UNIFIED = "systemd.unified_cgroup_hierarchy=1"
WANTED = ("cpu", "cpuset", "io", "memory", "pids")
_DROP_IN = "/etc/systemd/system/user@.service.d/delegate.conf"
_MANAGER = (
    "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
)  # fmt: skip
_ANSWER_S, _MOVE_S = 30, 20.0
_WITHOUT_LIMIT = str(2**64 - 1)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One that is ours.

    Attributes:
        root: where the hierarchy is mounted.
        path: below it.
        unit: of the user's systemd; "" where it is none.
    """

    root: str
    path: str
    unit: str = ""

    @property
    def directory(self) -> str:
        """Where its files are."""
        return self.root + self.path


class _Refused(Exception):
    """What the user's systemd, or the way to it, says."""


def obtain(exec_root: Path) -> Cgroup:
    """Get this process, and no other, into a cgroup that is ours.

    Args:
        exec_root: names the scope.

    Raises:
        SampanError: none is to be had: why, and what helps.
    """
    machine = layout.detect()
    if machine.version != 2 or machine.unified is None:
        raise SampanError(f"{VERSION_1}: the boot option {UNIFIED} makes it v2")
    try:
        return _scope(machine.unified, exec_root)
    except _Refused as refusal:
        own = Cgroup(machine.unified, _own())
        if _is_given(own.directory):
            return own
        raise SampanError(str(refusal)) from None


def move_into(cgroup: Cgroup, leaf: str) -> None:
    """Move this process into a leaf.

    Raises:
        SampanError: it may not, and systemd does not do it either.
    """
    place = f"{cgroup.directory}/{leaf}"
    try:
        os.makedirs(place, exist_ok=True)
        files.write(f"{place}/cgroup.procs", "0")
    except OSError as error:
        if not isinstance(error, PermissionError) or not cgroup.unit:
            raise SampanError(f"the cgroup {place} cannot be entered: {error.strerror}") from None
        # From a login's cgroup, which is root's, only root can take a process away: systemd lets it be done.
        try:
            _call("AttachProcessesToUnit", "ssau", cgroup.unit, f"/{leaf}", "1", str(os.getpid()))
        except _Refused as refusal:
            raise SampanError(f"the cgroup {place} cannot be entered: {refusal}") from None


def shortcomings(cgroup: Cgroup) -> list[str]:
    """Which controllers we were not given, and what brings them."""
    found = set((files.read_optional(f"{cgroup.directory}/cgroup.controllers") or "").split())
    lacking = [name for name in WANTED if name not in found]
    if not lacking:
        return []
    return [
        f"users are not given the cgroup controllers {', '.join(lacking)}, whose limits are discarded: put "
        f"[Service] and Delegate={' '.join(WANTED)}, a line each, into {_DROP_IN}, "
        "`sudo systemctl daemon-reload`, and log in anew"
    ]


def _scope(root: str, exec_root: Path) -> Cgroup:
    name = unit_name(exec_root)
    try:
        _start(name)
    except _Refused as refusal:
        if "already" not in str(refusal):
            raise
        # Somebody lives on in it who is in none of our namespaces: that one cannot be the root of new ones.
        name = f"{name.removesuffix('.scope')}-{os.getpid()}.scope"
        _start(name)
    deadline = time.monotonic() + _MOVE_S
    asked = time.monotonic()
    while not (path := _own()).endswith(f"/{name}"):
        if time.monotonic() - asked > 0.5:
            _call("GetUnit", "s", name)  # it has gone when the move failed
            asked = time.monotonic()
        if time.monotonic() > deadline:
            raise _Refused(f"systemd does not move us into {name}: see `journalctl --user -u {name}`")
        time.sleep(0.01)
    return Cgroup(root, path, name)


def unit_name(exec_root: Path) -> str:
    """The scope of a daemon."""
    try:
        usual = str(exec_root) == places.of_user().exec_root
    except SampanError:
        usual = False
    mark = "" if usual else f"-{hashlib.sha256(os.fsencode(exec_root)).hexdigest()[:8]}"
    return f"sampan{mark}.scope"


def _start(name: str) -> None:
    _call(
        *("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", "5"),
        *("Description", "s", "Containers of Sampan"),
        *("Delegate", "b", "true"),
        *("PIDs", "au", "1", str(os.getpid())),
        *("TasksMax", "t", _WITHOUT_LIMIT),
        *("CollectMode", "s", "inactive-or-failed"),
        "0",
    )


def _call(method: str, *words: str) -> None:
    """Call a method of the user's systemd.

    Raises:
        _Refused: there is none, or it says no.
    """
    program = shutil.which("busctl", path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin")
    if program is None:
        raise _Refused("this machine has no systemd that would hand cgroups down to users")
    runtime = places.runtime_directory()
    bus = f"{runtime}/bus"
    if not os.path.exists(bus):
        raise _Refused(_no_bus(runtime))
    environment = {**os.environ, "XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"}
    command = [program, "--user", "--quiet", f"--timeout={_ANSWER_S}", "call", *_MANAGER, method, *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * _ANSWER_S,
            env=environment, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Refused(f"{program}: {error}") from None
    if done.returncode != 0:
        said = done.stderr.strip().removeprefix("Call failed: ") or f"it ends with {done.returncode}"
        raise _Refused(f"the user's systemd refuses {method}: {said}")


def _no_bus(runtime: str) -> str:
    """Why the user's systemd cannot be asked, and what helps."""
    if runtime and os.path.exists(f"{runtime}/systemd/private"):
        return (
            "the user's systemd has no bus to be asked at: `sudo apt-get install dbus-user-session`, and "
            "log in anew"
        )
    return f"no systemd of the user's runs: `sudo loginctl enable-linger {_name()}`"


def _name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _own() -> str:
    """The cgroup of this process, below the root of the hierarchy."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return next((line.rstrip("\n")[3:].rstrip("/") for line in file if line.startswith("0::")), "")


def _is_given(directory: str) -> bool:
    """Whether a cgroup has been handed down to us by who made it."""
    try:
        return os.getxattr(directory, "user.delegate") == b"1" and os.stat(directory).st_uid == os.getuid()
    except OSError:
        return False
