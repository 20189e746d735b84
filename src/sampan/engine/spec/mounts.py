"""The mounts of a container: the kernel's file systems, the engine's files, and what the user asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sampan.engine.model import MountPoint
from sampan.engine.spec.inputs import SpecInputs
from sampan.errors import InvalidParameter
from sampan.linux import userns

Mount = dict[str, Any]

INIT_PATH = "/sbin/docker-init"
_ALL_IDS = 2**32 - 1
_WRITABLE_ALWAYS = ("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
_FILES = (("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"))

_TMPFS_FLAGS = {
    "ro": "access", "rw": "access", "exec": "exec", "noexec": "exec", "suid": "suid", "nosuid": "suid",
    "dev": "dev", "nodev": "dev", "atime": "atime", "noatime": "atime", "relatime": "relatime",
    "norelatime": "relatime", "strictatime": "strictatime", "nostrictatime": "strictatime",
    "diratime": "diratime", "nodiratime": "diratime", "sync": "sync", "async": "sync", "dirsync": "dirsync",
    "mand": "mand", "nomand": "mand", "noswap": "noswap", "inode64": "inode", "inode32": "inode",
    "private": "propagation", "rprivate": "propagation", "shared": "propagation", "rshared": "propagation",
    "slave": "propagation", "rslave": "propagation", "tmpcopyup": "copyup",
}  # fmt: skip
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"))


def container_mounts(
    inputs: SpecInputs, init: str | None, writable_cgroups: bool, user: tuple[int, int] = (0, 0)
) -> list[Mount]:
    """OCI `mounts`, in the order in which they are mounted.

    Args:
        user: uid and gid that the container runs as.
        init: the host's path of the program for `--init`; None without it.
        writable_cgroups: leave the container's own cgroup files writable.

    Raises:
        InvalidParameter: a tmpfs option that means nothing, or a propagation that the source does not allow.
    """
    host_config = inputs.container.host_config
    privileged, readonly = host_config.privileged, host_config.readonly_rootfs
    points = sorted(inputs.mounts, key=lambda point: point.destination.count("/"))
    taken = {point.destination for point in points}
    mounts = []
    for mount in _defaults(host_config.shm_size):
        place = mount["destination"]
        if place in taken or ("/dev" in taken and place.startswith("/dev/")):
            continue
        if place == "/dev/shm" and host_config.ipc_mode == "none":
            continue
        if place == "/proc" and host_config.pid_mode == "host" and userns.nested():
            # A new one would show a PID namespace that is not ours.
            mount |= {"type": "bind", "source": place, "options": ["rbind", *mount["options"]]}
        if place == "/sys/fs/cgroup" and not inputs.cgroups_path:
            continue  # without a cgroup of its own it would see everybody's
        if (privileged and place in ("/sys", "/sys/fs/cgroup")) or (
            writable_cgroups and place == "/sys/fs/cgroup"
        ):
            mount["options"].remove("ro")
        elif readonly and place not in _WRITABLE_ALWAYS and "ro" not in mount["options"]:
            mount["options"].append("ro")
        mounts.append(mount)
    for point in points:
        mounts.append(_tmpfs(point) if point.type == "tmpfs" else _bind(point, user))
    for name, place in _FILES if inputs.files_dir is not None else ():
        source = f"{inputs.files_dir}/{name}"
        if place not in taken and os.path.exists(source):
            options = ["rbind", "ro", "rprivate"] if readonly else ["rbind", "rprivate"]
            mounts.append({"destination": place, "type": "bind", "source": source, "options": options})
    if init is not None:
        options = ["bind", "ro"]
        mounts.append({"destination": INIT_PATH, "type": "bind", "source": init, "options": options})
    return mounts


@cache
def _tty_group() -> str:
    """Whose terminals are, where that group exists."""
    return ",gid=5" if not userns.nested() or userns.has(0, 5) else ""


def _defaults(shm_size: int) -> Iterable[Mount]:
    def mount(destination: str, fstype: str, options: str, source: str = "") -> Mount:
        return {
            "destination": destination,
            "type": fstype,
            "source": source or fstype,
            "options": options.split(","),
        }

    return (
        mount("/proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", f"nosuid,noexec,newinstance,ptmxmode=0666,mode=0620{_tty_group()}"),
        mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/dev/shm", "tmpfs", f"nosuid,noexec,nodev,mode=1777,size={shm_size or 64 << 20}", "shm"),
    )


def _bind(point: MountPoint, user: tuple[int, int]) -> Mount:
    options = ["bind" if "non-recursive" in point.options else "rbind"]
    propagation = point.propagation or "rprivate"
    if not point.rw:
        options.append("ro")
        if "ro-force-recursive" in point.options:
            if not _recursive_readonly():
                raise InvalidParameter(
                    f"{point.destination}: bind-recursive=readonly needs Linux 5.12 or newer"
                )
            if propagation != "rprivate":
                raise InvalidParameter(
                    f"{point.destination}: bind-recursive=readonly needs bind-propagation=rprivate"
                )
        if options[0] == "rbind" and "ro-non-recursive" not in point.options and _recursive_readonly():
            options.append("rro")
    options.append(propagation)
    mount: Mount = {
        "destination": point.destination,
        "type": "bind",
        "source": point.source,
        "options": options,
    }
    if point.disk_owner:
        mappings = mappings_of(point, user)
        if mappings is not None:
            if not _recursive_readonly():
                raise InvalidParameter(
                    f"{point.destination}: idmap needs Linux 5.12 or newer; the option U changes the files' "
                    "owners instead"
                )
            options.append("ridmap" if options[0] == "rbind" else "idmap")
            mount["uidMappings"], mount["gidMappings"] = mappings
    return mount


Mappings = list[dict[str, int]]


def mappings_of(point: MountPoint, user: tuple[int, int]) -> tuple[Mappings, Mappings] | None:
    """The uid and gid mappings of a mount whose files are another's on the disk; None for one without."""
    uid, _, gid = point.disk_owner.partition(":")
    if not uid or (int(uid), int(gid)) == user:
        return None
    return id_mappings(int(uid), user[0]), id_mappings(int(gid), user[1])


def id_mappings(disk: int, seen: int) -> Mappings:
    """The mapping of an id-mapped mount: `disk` shows up as `seen`, and what `seen` makes belongs to `disk`.

    All others stay themselves, but for these two: the file that belongs to `seen` on the disk shows up as
    nobody's, and who is `disk` in the container can make none. Were the two exchanged, a container's user
    could write as the disk's root.
    """
    if disk == seen:
        return [{"containerID": 0, "hostID": 0, "size": _ALL_IDS}]
    mappings = [{"containerID": disk, "hostID": seen, "size": 1}]
    first = 0
    for taken in (min(disk, seen), max(disk, seen), _ALL_IDS):
        if taken > first:
            mappings.append({"containerID": first, "hostID": first, "size": taken - first})
        first = taken + 1
    return mappings


@cache
def _recursive_readonly() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)))) >= (5, 12)


def _tmpfs(point: MountPoint) -> Mount:
    options = merge_tmpfs_options([*point.options, *(() if point.rw else ("ro",))])
    return {"destination": point.destination, "type": "tmpfs", "source": "tmpfs", "options": options}


def merge_tmpfs_options(options: Sequence[str]) -> list[str]:
    """One option of each kind, the last one given.

    Raises:
        InvalidParameter: an option that tmpfs does not have.
    """
    merged: dict[str, str] = {}
    for option in options:
        name, equals, _ = option.partition("=")
        if not equals and name in _TMPFS_FLAGS:
            kind = _TMPFS_FLAGS[name]
        elif equals and name in _TMPFS_VALUES:
            kind = name
        elif option in ("", "defaults"):
            continue
        else:
            quoted = " ".join(f'"{part}"' for part in option.split("=", 1))
            raise InvalidParameter(f"invalid tmpfs option [{quoted}]")
        merged.pop(kind, None)
        merged[kind] = option
    return list(merged.values())


def root_propagation(points: Iterable[MountPoint]) -> str:
    """OCI `linux.rootfsPropagation` that the binds' propagation needs.

    "" is the runtime's default, a recursive slave: enough for all but those that share.

    Raises:
        InvalidParameter: a bind wants to share, and its source is not on a shared mount.
    """
    needed = ""
    for point in points:
        if point.type != "bind" or point.propagation not in ("shared", "rshared", "slave", "rslave"):
            continue
        shared = point.propagation.endswith("shared")
        place, tags = _mount_of(point.source)
        if not any(tag.startswith("shared:") or (not shared and tag.startswith("master:")) for tag in tags):
            kind = "shared" if shared else "shared or slave"
            raise InvalidParameter(f"path {point.source} is mounted on {place} but it is not a {kind} mount")
        needed = "shared" if shared else needed
    return needed


def _mount_of(path: str) -> tuple[str, list[str]]:
    """The mount that holds a path, and its propagation tags (proc_pid_mountinfo(5))."""
    real = os.path.realpath(path)
    best: tuple[str, list[str]] = ("/", [])
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" - ")[0].split()
            place = fields[4].replace("\\040", " ")
            if (place == "/" or real == place or real.startswith(place + "/")) and len(place) >= len(best[0]):
                best = (place, fields[6:])
    return best
