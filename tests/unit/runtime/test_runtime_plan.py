"""The plan of mounts: its order, its words, what it asks of the kernel (a recording one), what it refuses."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

import pytest

from sampan.errors import InvalidParameter, Unsupported
from sampan.linux.mounts import MountOptions, parse_options
from sampan.linux.syscalls import MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MS_PRIVATE, MS_SLAVE
from sampan.runtime.bundle import DeviceSpec, parse_config
from sampan.runtime.operations import Mask, MountFilesystem, Operation, Plan, Root
from sampan.runtime.plan import build_plan


def config(**changes: Any) -> dict[str, Any]:
    linux = {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "network", "uts")],
        "cgroupsPath": "/s/c",
    }
    linux.update(changes.pop("linux", {}))
    return {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["true"], "cwd": "/srv"},
        "linux": linux,
        **changes,
    }


class RecordingRoot:
    """A `Root` that keeps what it was asked for. Descriptors are numbers, `files` says what a path is."""

    def __init__(self, files: dict[str, int] | None = None) -> None:
        self.calls: list[str] = []
        self.files = files or {}
        self.opened: dict[int, str] = {}

    def _fd(self, path: str) -> int:
        self.opened[len(self.opened) + 3] = path
        return len(self.opened) + 2

    def open(self, path: str, follow: bool = True) -> int:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._fd(path)

    def make_directory(self, path: str, follow: bool = True) -> int:
        if not follow and path in self.files and stat.S_ISLNK(self.files[path]):
            raise OSError(errno.ELOOP, "loop", path)
        return self._fd(path)

    def make_file(self, path: str) -> int:
        return self._fd(path)

    def check_place(self, target: int, source: str = "") -> None:
        pass

    def mount(self, fstype: str, source: str, target: int, options: MountOptions) -> None:
        self.calls.append(f"mount {fstype} {self.opened[target]} {options.set} {','.join(options.data)}")

    def bind(self, source: str | int, target: int, options: MountOptions) -> None:
        name = source if isinstance(source, str) else self.opened[source]
        self.calls.append(f"bind {name} {self.opened[target]} {options.set | options.tree_set}")

    def set_propagation(self, path: str, propagation: list[tuple[int, bool]]) -> None:
        self.calls.append(f"propagation {path} {propagation}")

    def set_readonly(self, path: str) -> None:
        self.calls.append(f"readonly {path}")

    def make_node(self, device: DeviceSpec) -> None:
        self.calls.append(f"node {device.path}")

    def make_link(self, target: str, path: str) -> None:
        self.calls.append(f"link {path}")

    def copy_up(self, covered: int, path: str) -> None:
        self.calls.append(f"copy {path}")

    def cover(self, path: str, target: int) -> None:
        self.calls.append(f"cover {path}")

    def stat(self, fd: int) -> os.stat_result:
        mode = self.files.get(self.opened[fd], stat.S_IFDIR | 0o755)
        return os.stat_result((mode, *[0] * 15)) if mode else os.stat("/dev/null")

    def close(self, fd: int) -> None:
        pass


def execute(steps: list[Operation], root: Root) -> None:
    Plan(steps).execute(root)


def test_the_order_of_a_whole_plan() -> None:
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        {"destination": "/data", "type": "bind", "source": "/host", "options": ["rbind", "rprivate"]},
    ]
    linux = {"maskedPaths": ["/proc/keys"], "readonlyPaths": ["/proc/sys"]}
    value = config(mounts=mounts, linux=linux, root={"path": "r", "readonly": True})
    paths = {"cpu": "/sys/fs/cgroup/cpu,cpuacct/s/c", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/s/c"}
    lines = build_plan(parse_config(value), paths, 1).describe().splitlines()
    assert [line for line in lines if not line.startswith(("device", "link /dev"))] == [
        "mount proc at /proc (nosuid)",
        "mount tmpfs at /sys/fs/cgroup (mode=755)",
        "bind /sys/fs/cgroup/cpu,cpuacct/s/c to /sys/fs/cgroup/cpu,cpuacct (ro)",
        "link /sys/fs/cgroup/cpu -> cpu,cpuacct",
        "link /sys/fs/cgroup/cpuacct -> cpu,cpuacct",
        "read-only mount /sys/fs/cgroup",
        "bind /host to /data (rbind,rprivate)",
        "directory /srv",
        "read-only /proc/sys",
        "mask /proc/keys",
        "read-only mount /",
    ]
    assert "device /dev/null c 1:3 mode 666" in lines and "link /dev/ptmx -> pts/ptmx" in lines


def test_version_2_mounts_one_hierarchy() -> None:
    mounts = [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}]
    namespaces = [{"type": kind} for kind in ("mount", "cgroup")]
    spec = parse_config(config(mounts=mounts, linux={"namespaces": namespaces}))
    assert build_plan(spec, {}, 2).describe().startswith("mount cgroup2 at /sys/fs/cgroup (ro)")
    spec = parse_config(config(mounts=mounts))
    assert build_plan(spec, {}, 2).describe().startswith("bind /sys/fs/cgroup to /sys/fs/cgroup (ro)")


def test_a_bound_dev_is_left_alone() -> None:
    mounts = [{"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}]
    assert "device" not in build_plan(parse_config(config(mounts=mounts)), {}, 2).describe()


def test_what_is_asked_of_the_kernel() -> None:
    root = RecordingRoot(
        {
            "/proc/sys": stat.S_IFDIR,
            "/proc/acpi": stat.S_IFDIR,
            "/proc/keys": stat.S_IFREG,
            "/tmp": stat.S_IFDIR | 0o755,
        }
    )
    root.files["/dev/null"] = 0
    linux = {"maskedPaths": ["/proc/acpi", "/proc/keys", "/proc/none"], "readonlyPaths": ["/proc/sys", "/no"]}
    mounts = [
        {"destination": "/tmp", "type": "tmpfs", "options": ["nosuid", "size=1m", "rslave", "tmpcopyup"]}
    ]
    build_plan(parse_config(config(mounts=mounts, linux=linux)), {}, 2).execute(root)
    assert [call for call in root.calls if not call.startswith(("node", "link"))] == [
        f"mount tmpfs /tmp {MOUNT_ATTR_NOSUID} size=1m,mode=755",
        f"propagation /tmp [({MS_SLAVE}, True)]",
        "copy /tmp",
        f"bind /proc/sys /proc/sys {MOUNT_ATTR_RDONLY}",
        "cover /proc/acpi",
        f"bind /dev/null /proc/keys {MOUNT_ATTR_RDONLY}",
    ]


def test_a_false_null_device_and_a_linked_proc_are_refused() -> None:
    root = RecordingRoot({"/proc/keys": stat.S_IFREG, "/dev/null": stat.S_IFREG, "/proc": stat.S_IFLNK})
    with pytest.raises(OSError, match=r"mask /proc/keys: /dev/null in the container is not the null device"):
        execute([Mask("/proc/keys")], root)
    with pytest.raises(OSError, match="ordinary directory"):
        execute([MountFilesystem("proc", "proc", "/proc", [], MountOptions(), plain=True)], root)
    assert root.calls == []


def test_later_options_win() -> None:
    options = parse_options(
        ["ro", "nosuid", "rw", "rbind", "private", "rro", "size=4k", "noatime", "relatime"]
    )
    assert options.set == MOUNT_ATTR_NOSUID
    assert options.clear & MOUNT_ATTR_RDONLY
    assert (options.bind, options.recursive, options.tree_set) == (True, True, MOUNT_ATTR_RDONLY)
    assert (options.propagation, options.data) == ([(MS_PRIVATE, False)], ["size=4k"])


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"linux": {"namespaces": []}}, Unsupported, "mount namespace"),
        ({"linux": {"intelRdt": {"closID": "x"}}}, Unsupported, "linux.intelRdt"),
        ({"linux": {"sysctl": {"kernel.panic": "1"}}}, InvalidParameter, "kernel.panic"),
        ({"linux": {"sysctl": {"fs.mqueue.msg_max": "1"}}}, InvalidParameter, "ipc namespace"),
        ({"linux": {"devices": [{"path": "/dev/x", "type": "z"}]}}, InvalidParameter, "unknown type 'z'"),
        ({"process": {"args": [], "cwd": "/"}}, InvalidParameter, "args"),
        ({"process": {"args": ["x"], "cwd": "rel"}}, InvalidParameter, "absolute"),
        ({"process": {"args": ["x"], "cwd": "/", "selinuxLabel": "l"}}, Unsupported, "selinuxLabel"),
        ({"hooks": {"sometime": []}}, Unsupported, "hooks.sometime"),
        ({"ociVersion": "2.0"}, InvalidParameter, "ociVersion"),
        ({"root": {}}, InvalidParameter, "root.path"),
    ],
)
def test_a_config_that_cannot_be_honoured(changes: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        parse_config(config(**changes))


def test_a_tmpfs_where_the_image_has_nothing_is_for_everybody() -> None:
    root = RecordingRoot()
    mounts = [{"destination": "/scratch", "type": "tmpfs", "options": ["nosuid"]}]
    build_plan(parse_config(config(mounts=mounts)), {}, 2).execute(root)
    assert f"mount tmpfs /scratch {MOUNT_ATTR_NOSUID} mode=1777" in root.calls
