"""The data root: its file system, what that allows, the room in it, and an overlay."""

from __future__ import annotations

import os

from sampan.doctor.trials.place import Place
from sampan.doctor.trials.running import Fails, NotTried, Trial
from sampan.linux import features, quota, syscalls

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


def _driver(place: Place) -> str:
    """The best storage driver that works here, by the daemon's own probes."""
    from sampan.storage.opening import obstacles

    found = obstacles(place.make("drivers"))
    usable = [name for name, why in found.items() if not why]
    if usable[0] == "vfs":
        reasons = [why for why in found.values() if why]
        raise Fails(
            "only vfs does: " + "; ".join(reasons),
            f"{features.diagnose('overlay').remedy}; or a data root on ext4, XFS or btrfs; or the program "
            "fuse-overlayfs (Debian: the package of that name)",
        )
    return f"{usable[0]}; also {' and '.join(usable[1:])}"


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
    """Project quotas, by which a container's files are limited."""
    from sampan.storage.overlay2 import backing_file_system

    if backing_file_system(place.near) == "btrfs":
        raise NotTried("btrfs has limits of its own")
    why = quota.obstacle(place.near)
    if why:
        raise Fails(f"{place.near}: {why}", "a data root on ext4 or XFS that is mounted with prjquota")
    return ""


TRIALS = (
    Trial("data root", _data_root, "any container", needed=True, here=True),
    Trial("space in the data root", _space, "pulling larger images", here=True, rootless=True),
    Trial("storage driver", _driver, "layers that are shared: vfs copies each of them", needed=True,
          apart=syscalls.CLONE_NEWNS),
    Trial("overlay (overlay2)", _overlay, "the storage driver overlay2", "overlay",
          apart=syscalls.CLONE_NEWNS),
    Trial("project quotas", _quota, "--storage-opt size with overlay2 and vfs", here=True),
    Trial("/dev/fuse", _fuse, "--device /dev/fuse", "fuse"),
    Trial("inotify", _inotify, "programs that watch files",
          remedy="`sysctl -w fs.inotify.max_user_instances=1024`", rootless=True),
)  # fmt: skip
