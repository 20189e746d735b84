"""Namespaces one by one and all at once, and the file systems and the root that a container gets in them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from sampan.doctor.trials.place import Place
from sampan.doctor.trials.running import Fails, Trial, grandchild
from sampan.linux import features, namespaces, syscalls

_CONTAINER = ("mount", "uts", "ipc", "pid", "network", "cgroup")
_NOBODY = 65534


def _one(kind: str) -> Callable[[Place], None]:
    def work(_: Place) -> None:
        try:
            syscalls.unshare(namespaces.flag(kind))
        except OSError as error:
            found = features.namespace_refusal([kind], error.errno or 0)
            if found is None:
                raise
            raise Fails(f"{error.strerror}: {found.cause}", found.remedy) from None

    return work


def _unprivileged(_: Place) -> None:
    """A user namespace of somebody who is not root (user_namespaces(7))."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError as error:
        cause, remedy = _why_not(error.errno or 0)
        raise Fails(cause or str(error.strerror), remedy) from None


def _why_not(number: int) -> tuple[str, str]:
    for path, bad in (
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("user/max_user_namespaces", "0"),
    ):
        try:
            with open(f"/proc/sys/{path}", encoding="utf-8") as file:
                value = file.read().strip()
        except OSError:
            continue
        if value == bad:
            key = path.replace("/", ".")
            wanted = {"0": "1", "1": "0"}[bad] if "max" not in path else "10000"
            return f"{key} is {value}", f"`sysctl -w {key}={wanted}`"
    found = features.namespace_refusal(["user"], number)
    return (found.cause, found.remedy) if found else ("", "")


def _together(_: Place) -> None:
    flags = 0
    for kind in _CONTAINER:
        flags |= namespaces.flag(kind)
    grandchild(flags, lambda: None)


def _filesystem(fstype: str, data: str | None = None) -> Callable[[Place], None]:
    def work(place: Place) -> None:
        target = str(place.make("mount"))
        flags = syscalls.MS_NOSUID | syscalls.MS_NOEXEC

        def mount() -> None:
            syscalls.mount(fstype, target, fstype, flags, data)

        grandchild(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID, mount)

    return work


def _pivot_root(place: Place) -> None:
    new = str(place.make("root"))
    syscalls.mount("tmpfs", new, "tmpfs", 0, "size=65536")
    os.chdir(new)
    try:
        namespaces_root()
        syscalls.pivot_root(".", ".")
    except OSError as error:
        if error.errno == errno.EINVAL and _on_rootfs():
            raise Fails(
                "the machine's root is the initramfs, which cannot be pivoted away from",
                "let the initramfs switch_root to a tmpfs or a disk",
            ) from None
        raise
    syscalls.umount2(".", syscalls.MNT_DETACH)


def namespaces_root() -> None:
    """From a chroot, pivot_root is refused: the root of the mount namespace becomes ours first."""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        namespaces.leave_chroot()
        os.fchdir(here)
    finally:
        os.close(here)


def _on_rootfs() -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        roots = [line for line in file if line.split(" ")[4] == "/"]
    return bool(roots) and " - rootfs " in roots[-1]


def _id_mapped(place: Place) -> str:
    """The data root's file system, seen with other ids (mount_setattr(2), MOUNT_ATTR_IDMAP)."""
    directory = str(place.make("ids"))
    ready, go = os.pipe2(os.O_CLOEXEC)
    from sampan.linux import process

    pid, pidfd = process.clone(syscalls.CLONE_NEWUSER)
    if pid == 0:
        os.close(go)
        os.read(ready, 1)  # until the other end is closed
        os._exit(0)
    try:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w", encoding="utf-8") as file:
                file.write("0 100000 65536")
        user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(go)
        os.close(ready)
        os.waitpid(pid, 0)
        os.close(pidfd)
    tree = syscalls.open_tree(syscalls.AT_FDCWD, directory, syscalls.OPEN_TREE_CLONE | os.O_CLOEXEC)
    try:
        syscalls.mount_setattr(
            tree, "", syscalls.AT_EMPTY_PATH, set_=syscalls.MOUNT_ATTR_IDMAP, userns_fd=user
        )
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        from sampan.storage.overlay2 import backing_file_system

        kind = backing_file_system(place.near)
        raise Fails(f"{kind}, the file system of {place.near}, has none in this kernel") from None
    finally:
        os.close(tree)
        os.close(user)
    return ""


_NS = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNET
TRIALS = (
    *(Trial(f"{kind} namespace", _one(kind), "any container", f"ns_{kind}", True) for kind in _CONTAINER),
    Trial("user namespace", _one("user"), "user namespaces inside of containers", "ns_user", rootless=True),
    Trial("user namespace without root", _unprivileged, "programs that shut themselves in (browsers, bwrap)",
          "ns_user", rootless=True),
    Trial("time namespace", _one("time"), "clocks of a container's own", "ns_time"),
    Trial("all namespaces at once", _together, "any container", needed=True),
    Trial("mount proc", _filesystem("proc"), "any container", needed=True, apart=syscalls.CLONE_NEWNS),
    Trial("mount sysfs", _filesystem("sysfs"), "any container", needed=True, apart=_NS),
    Trial("mount tmpfs", _filesystem("tmpfs", "size=4096"), "any container", "tmpfs", True,
          apart=syscalls.CLONE_NEWNS),
    Trial("mount devpts", _filesystem("devpts", "newinstance,ptmxmode=0666,mode=0620"), "any container",
          needed=True, apart=syscalls.CLONE_NEWNS),
    Trial("mount mqueue", _filesystem("mqueue"), "any container", "mqueue", True, apart=_NS),
    Trial("pivot_root", _pivot_root, "any container", needed=True, apart=syscalls.CLONE_NEWNS),
    Trial("id-mapped mount", _id_mapped, "the option idmap of volumes and binds", "idmap",
          apart=syscalls.CLONE_NEWNS),
)  # fmt: skip
