"""The data root: its file system, what that allows, the room in it, and an overlay."""

from __future__ import annotations

import os

from sampan.doctor.trials.place import Place
from sampan.doctor.trials.running import Fails, NotTried, Trial
from sampan.linux import syscalls

_LEAST_BYTES, _LEAST_FILES = 1 << 30, 20_000
_ST_RDONLY, _ST_NOSUID, _ST_NODEV, _ST_NOEXEC = 1, 2, 4, 8


def _data_root(place: Place) -> str:
    from sampan.storage.overlay2 import backing_file_system

    kind = backing_file_system(place.near)
    if place.directory is None:
        raise Fails(
            f"{place.near} ({kind}) cannot be written: {place.refusal}",
            "remount it read-write, or choose another by --data-root or `data-root` in daemon.json",
        )
    flags = os.statvfs(place.near).f_flag
    bad = [name for name, bit in (("noexec", _ST_NOEXEC), ("nodev", _ST_NODEV)) if flags & bit]
    if bad:
        raise Fails(
            f"{place.near} ({kind}) is mounted {' and '.join(bad)}",
            f"`mount -o remount,{','.join(name.removeprefix('no') for name in bad)} …`, or another data root",
        )
    return f"{place.root}, {kind}" + (", nosuid: su and sudo do not work" if flags & _ST_NOSUID else "")


def _space(place: Place) -> str:
    found = os.statvfs(place.near)
    free, files = found.f_bavail * found.f_frsize, found.f_favail
    if free < _LEAST_BYTES:
        raise Fails(
            f"{free >> 20} MB are free in {place.near}", "`sampan system prune`, or another data root"
        )
    if found.f_files and files < _LEAST_FILES:
        raise Fails(f"{files} more files fit in {place.near}", "`sampan system prune`, or another data root")
    return f"{free / (1 << 30):.1f} GB free" + (f", room for {files} files" if found.f_files else "")


def _overlay(place: Place) -> str:
    from sampan.storage import overlay2, overlay_mount

    overlay2.probe(place.make("overlay"))
    return " ".join(f"{key}={value}" for key, value in overlay_mount.options().items())


def _inotify(_: Place) -> None:
    fd = syscalls.libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        syscalls.raise_errno("inotify_init1")
    os.close(fd)


def _fuse(_: Place) -> None:
    os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))


def _quota(place: Place) -> str:
    """Project quotas, by the options that the file system is mounted with (xfs(5), ext4(5))."""
    from sampan.storage.overlay2 import backing_file_system

    kind = backing_file_system(place.near)
    if kind not in ("xfs", "extfs"):
        raise NotTried(f"{kind} has none")
    real = os.path.realpath(place.near)
    best, options = "", ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            point = fields[4]
            if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
                best, options = point, fields[-1].strip()
    if any(name in options.split(",") for name in ("prjquota", "pquota")):
        return "project quotas are on"
    return "off; Sampan offers no limit on the size of a container's files"


TRIALS = (
    Trial("data root", _data_root, "any container", needed=True, here=True),
    Trial("space in the data root", _space, "pulling larger images", here=True, rootless=True),
    Trial("overlay (overlay2)", _overlay, "overlay2; vfs will, which copies every layer", "overlay", True,
          apart=syscalls.CLONE_NEWNS),
    Trial("project quotas", _quota, here=True, rootless=True),
    Trial("/dev/fuse", _fuse, "--device /dev/fuse", "fuse"),
    Trial("inotify", _inotify, "programs that watch files",
          remedy="`sysctl -w fs.inotify.max_user_instances=1024`", rootless=True),
)  # fmt: skip
