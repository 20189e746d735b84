"""Control groups: one is made as a container's is, each kind of limit set in it, and it is removed again."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sampan.doctor.trials.place import Place, dead
from sampan.doctor.trials.running import Fails, NotTried, Trial
from sampan.linux import cgroups, features
from sampan.linux.cgroups import Manager

_OURS = re.compile(r"sampan-doctor-(\d+)")


def _hierarchy(_: Place) -> str:
    try:
        layout = cgroups.detect()
    except OSError:
        with open("/proc/filesystems", encoding="ascii") as file:
            known = file.read().split()
        if "cgroup2" not in known and "cgroup" not in known:
            found = features.diagnose("cgroups")
            raise Fails(found.cause, found.remedy) from None
        raise Fails("no cgroup file system is mounted", "`mount -t cgroup2 cgroup2 /sys/fs/cgroup`") from None
    _sweep()
    if layout.version == 2:
        return f"v2 at {layout.unified}"
    return "v1 and v2 beside each other (hybrid)" if layout.unified else "v1"


def _directories() -> Iterator[str]:
    layout = cgroups.detect()
    yield from dict.fromkeys([*layout.hierarchies.values(), *([layout.unified] if layout.unified else [])])


def _sweep() -> None:
    """Take away what a doctor left that was killed."""
    for root in _directories():
        for path in Path(root).glob("sampan-doctor-*"):
            found = _OURS.fullmatch(path.name)
            if found and dead(int(found[1])):
                with contextlib.suppress(OSError):  # by somebody else in the meantime
                    path.rmdir()


@contextlib.contextmanager
def _group(resources: dict[str, Any]) -> Iterator[Manager]:
    manager = cgroups.manager_for(f"/sampan-doctor-{os.getpid()}")
    manager.create(resources)
    try:
        yield manager
    finally:
        manager.remove()


def _container(_: Place) -> None:
    """With a process in it, which is frozen and killed."""
    with _group({}) as manager:
        pid = os.fork()
        if pid == 0:
            while True:
                signal.pause()
        try:
            manager.add(pid)
            if pid not in manager.pids():
                raise Fails("a process that was moved into a cgroup is not in it")
            manager.kill_all()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _freezer(_: Place) -> None:
    with _group({}) as manager:
        manager.freeze()
        manager.thaw()


def _devices(place: Place) -> None:
    """A device that no driver has answers ENXIO, unless the cgroup refuses it before."""
    node = place.make("device") / "node"
    os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(240, 1))
    with _group({"devices": [{"allow": False, "access": "rwm"}]}) as manager:
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                manager.add(0)
                os.close(os.open(node, os.O_RDONLY | os.O_NONBLOCK))
                code = 1
            except OSError as error:
                code = {errno.EPERM: 0, errno.ENXIO: 1, errno.EACCES: 3}.get(error.errno or 0, 2)
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 1:
            raise Fails("a device that is not allowed could be opened all the same")
        if code == 3:
            raise NotTried(f"{place.near} is mounted nodev")
        if code:
            raise Fails("a process could not be moved into a cgroup with a list of devices")


_CONTROLLERS = {  # of the limits below, on v1 and v2
    "memory": ("memory", "memory"), "swap": ("memory", "memory"), "shares": ("cpu", "cpu"),
    "quota": ("cpu", "cpu"), "cpuset": ("cpuset", "cpuset"), "pids": ("pids", "pids"), "io": ("blkio", "io"),
}  # fmt: skip


def _limit(kind: str, flag: str, resources: dict[str, Any]) -> Callable[[Place], None]:
    def work(_: Place) -> None:
        layout = cgroups.detect()
        controller = _CONTROLLERS[kind][layout.version - 1]
        if not getattr(cgroups.features(), flag):
            raise Fails(*_absent(controller, kind, layout))
        with _group(resources):
            pass

    return work


def _absent(controller: str, kind: str, layout: cgroups.Layout) -> tuple[str, str]:
    """Why a controller is not to be had, and what brings it."""
    if kind == "swap" and layout.version == 1:
        return "swap is not counted (memory.memsw.limit_in_bytes)", "the boot option swapaccount=1"
    row = _controllers().get(controller if layout.version == 1 else _V1_NAMES.get(controller, controller))
    if row == "0":
        return (
            f"the controller {controller} was switched off at boot",
            f"take cgroup_disable={controller} from the boot options, or add cgroup_enable={controller}"
            + (" (on a Raspberry Pi in cmdline.txt)" if controller == "memory" else ""),
        )
    if layout.version == 2 and row is not None:
        return (
            f"the controller {controller} is not in {layout.unified}/cgroup.controllers",
            "if it is mounted as cgroup v1, unmount it there; if this is a container itself, its cgroup "
            "must be delegated (systemd: Delegate=yes)",
        )
    if layout.version == 1 and row is not None and controller not in layout.hierarchies:
        at = f"/sys/fs/cgroup/{controller}"
        return (
            f"the controller {controller} is mounted nowhere",
            f"`mkdir -p {at} && mount -t cgroup -o {controller} cgroup {at}`",
        )
    names = {"memory": "memory_v1" if layout.version == 1 else "memory", "blkio": "io", "swap": "memory"}
    feature = {"shares": "cpu", "quota": "cpu_quota", "memory": names["memory"]}.get(kind, kind)
    found = features.diagnose(names.get(feature, feature))
    return found.cause, found.remedy


_V1_NAMES = {"io": "blkio"}


def _controllers() -> dict[str, str]:
    """/proc/cgroups: name of the v1 controller to whether it is enabled (cgroups(7))."""
    try:
        with open("/proc/cgroups", encoding="ascii") as file:
            return {words[0]: words[3] for line in file if len(words := line.split()) == 4}
    except OSError:
        return {}


def _delegation(_: Place) -> str:
    """cgroup v2: whether controllers can be handed down from our root."""
    layout = cgroups.detect()
    if layout.unified is None:
        return "nothing to hand down on cgroup v1"
    try:
        with open(f"{layout.unified}/cgroup.subtree_control", "a", encoding="ascii"):
            pass
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Fails(
                f"{layout.unified} cannot be written: {error.strerror}",
                "`mount -o remount,rw /sys/fs/cgroup`; a container around us must be a privileged one",
            ) from None
        raise
    return "" if layout.version == 2 else "the v2 half"


_MEMORY = 64 << 20
TRIALS = (
    Trial("cgroup hierarchy", _hierarchy, "any container", "cgroups", True, rootless=True, here=True),
    Trial("cgroup of a container", _container, "any container", "cgroups", True),
    Trial("cgroup delegation", _delegation, "limits, on cgroup v2"),
    Trial("device list", _devices, "keeping containers from devices",
          "cgroup_bpf", True),
    Trial("freezer", _freezer, "pause", "freezer"),
    Trial("memory limit", _limit("memory", "memory", {"memory": {"limit": _MEMORY}}), "--memory"),
    Trial("swap limit", _limit("swap", "swap", {"memory": {"limit": _MEMORY, "swap": _MEMORY}}),
          "--memory-swap"),
    Trial("processor shares", _limit("shares", "cpu_shares", {"cpu": {"shares": 512}}), "--cpu-shares"),
    Trial("processor quota", _limit("quota", "cpu_cfs", {"cpu": {"quota": 50_000, "period": 100_000}}),
          "--cpus and --cpu-quota"),
    Trial("processor set", _limit("cpuset", "cpuset", {"cpu": {"cpus": "0"}}), "--cpuset-cpus"),
    Trial("process limit", _limit("pids", "pids", {"pids": {"limit": 100}}), "--pids-limit"),
    Trial("block device limits", _limit("io", "blkio_throttle", {}), "--device-read-bps and its like"),
)  # fmt: skip
