"""The container's root file system while it is furnished and entered: the real `Root` of the operations.

Implements mount_namespaces(7) and pivot_root(2) usage for a container; every path of the container's is
resolved beneath one descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from sampan.linux import beneath, mounts, namespaces, procfs, syscalls
from sampan.linux.mounts import MountOptions
from sampan.runtime.bundle import DeviceSpec

_PROC_ROOT_INODE = 1
# What lxcfs(1) has there, as runc allows it.
_MAY_LIE_IN_PROC = {
    f"proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps", "uptime"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
}
_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class MountedRoot:
    """A root file system in a mount namespace of its own.

    Args:
        path: the directory on the host.
        propagation: of the whole namespace, an OCI `rootfsPropagation`; "" is rslave, so that nothing
            mounted here reaches the host.
    """

    def __init__(self, path: str, propagation: str) -> None:
        self._empty: int | None = None
        self._propagation = propagation
        self._legacy = False
        kind, recursive = mounts.PROPAGATION[propagation or "rslave"]
        _of_whole_namespace(lambda: syscalls.mount(None, "/", None, kind | (syscalls.MS_REC * recursive)))
        # pivot_root wants a mount point whose parent is not shared: bind the root onto itself, privately.
        below = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._attach_copy(below, path, kind == syscalls.MS_SHARED)
        finally:
            os.close(below)
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._place = os.readlink(f"/proc/self/fd/{self.fd}")

    def _attach_copy(self, below: int, path: str, shared: bool) -> None:
        if shared:
            self._make_parent_private(path)
        try:
            tree = mounts.clone_tree(below, "", recursive=True)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            self._legacy = True
            syscalls.mount(path, path, None, syscalls.MS_BIND | syscalls.MS_REC)
            return
        try:
            mounts.attach(tree, below)
        finally:
            os.close(tree)

    @staticmethod
    def _make_parent_private(path: str) -> None:
        with open("/proc/self/mountinfo", "rb") as file:
            points = {os.fsdecode(line.split(b" ")[4]) for line in file}
        at = os.path.realpath(path)
        while at not in points and at != "/":
            at = os.path.dirname(at)
        syscalls.mount(None, at, None, syscalls.MS_PRIVATE)

    def open(self, path: str, follow: bool = True) -> int:
        return beneath.open_path(self.fd, path, os.O_PATH, follow)

    def make_directory(self, path: str, follow: bool = True) -> int:
        return beneath.make_directory(self.fd, path, follow=follow)

    def make_file(self, path: str) -> int:
        return beneath.make_file(self.fd, path)

    def check_place(self, target: int, source: str = "") -> None:
        """What is masked in /proc, and who reads it, must find the real one; runc has the same rule.

        Raises:
            OSError: EPERM, for a VOLUME of an image's, too.
        """
        place = os.readlink(f"/proc/self/fd/{target}").removeprefix(f"{self._place}/")
        if place == "proc":
            if not (source and _is_procfs(source)):
                raise OSError(errno.EPERM, "it cannot be mounted over /proc because it is not of type proc")
        elif place.startswith("proc/") and place not in _MAY_LIE_IN_PROC:
            raise OSError(errno.EPERM, "it cannot be mounted because its place is inside /proc")

    def mount(self, fstype: str, source: str, target: int, options: MountOptions) -> None:
        if self._legacy:
            mounts.legacy_mount(fstype, source, target, options)
            return
        try:
            attributes = options.set & ~options.tree_clear | options.tree_set
            mount_fd = mounts.new_filesystem(fstype, source, options.data, attributes)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            self._legacy = True
            mounts.legacy_mount(fstype, source, target, options)
            return
        try:
            mounts.attach(mount_fd, target)
        finally:
            os.close(mount_fd)

    def bind(self, source: str | int, target: int, options: MountOptions) -> None:
        if self._legacy and options.id_map is None:
            self._bind_by_path(source, target, options)
            return
        directory, path = (source, "") if isinstance(source, int) else (syscalls.AT_FDCWD, source)
        tree = mounts.clone_tree(directory, path, options.recursive)
        try:
            try:
                mounts.change(tree, options)
            except OSError as error:
                if error.errno != errno.ENOSYS or options.id_map is not None:
                    raise  # mount_setattr came with kernel 5.12
                self._legacy = True
                self._bind_by_path(source, target, options)
                return
            mounts.attach(tree, target)
        finally:
            os.close(tree)

    def _bind_by_path(self, source: str | int, target: int, options: MountOptions) -> None:
        path = source if isinstance(source, str) else f"/proc/self/fd/{source}"
        mounts.legacy_bind(path, target, options)
        if not (options.set or options.clear or options.tree_set or options.tree_clear):
            return
        # `target` is of what lies below; a fresh walk, beneath the root and past no link, sees the new mount.
        inside = os.path.relpath(
            os.readlink(f"/proc/self/fd/{target}"), os.readlink(f"/proc/self/fd/{self.fd}")
        )
        mount = self.open(inside, follow=False)
        try:
            mounts.legacy_change(mount, options)
        finally:
            os.close(mount)

    def set_propagation(self, path: str, propagation: list[tuple[int, bool]]) -> None:
        fd = self.open(path)
        try:
            if self._legacy:
                for kind, recursive in propagation:
                    flags = kind | (syscalls.MS_REC if recursive else 0)
                    syscalls.mount(None, f"/proc/self/fd/{fd}", None, flags)
                return
            try:
                mounts.change_propagation(fd, propagation)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                self._legacy = True
                self.set_propagation(path, propagation)
        finally:
            os.close(fd)

    def set_readonly(self, path: str) -> None:
        fd = self.open(path)
        try:
            readonly = MountOptions(set=syscalls.MOUNT_ATTR_RDONLY)
            if self._legacy:
                mounts.legacy_change(fd, readonly)
                return
            try:
                mounts.change(fd, readonly)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                self._legacy = True
                mounts.legacy_change(fd, readonly)
        finally:
            os.close(fd)

    def make_node(self, device: DeviceSpec) -> None:
        directory, _, name = device.path.rstrip("/").rpartition("/")
        parent = self.make_directory(directory)
        try:
            number = os.makedev(device.major, device.minor)
            try:
                os.mknod(name, _TYPES[device.type] | device.mode, number, dir_fd=parent)
            except FileExistsError:
                return
            except PermissionError:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, device.mode, dir_fd=parent))
                target = beneath.open_path(parent, name, os.O_PATH, follow=False)
                try:
                    self.bind(device.path, target, MountOptions())
                finally:
                    os.close(target)
                return
            os.chmod(name, device.mode, dir_fd=parent)  # mknod heeded the umask
            if device.uid or device.gid:
                os.chown(name, device.uid, device.gid, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)

    def make_link(self, target: str, path: str) -> None:
        directory, _, name = path.rpartition("/")
        parent = self.make_directory(directory)
        try:
            os.symlink(target, name, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)

    def copy_up(self, covered: int, path: str) -> None:
        source = beneath.open_path(covered, "/", os.O_RDONLY | os.O_DIRECTORY)
        target = beneath.open_path(self.fd, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _copy_tree(source, target)
        finally:
            os.close(source)
            os.close(target)

    def cover(self, path: str, target: int) -> None:
        """One empty file system serves all masks of a container."""
        readonly = MountOptions(set=syscalls.MOUNT_ATTR_RDONLY)
        if self._empty is not None:
            self.bind(self._empty, target, readonly)
            return
        readonly.data = ["nr_blocks=1", "nr_inodes=1", "mode=755"]
        self.mount("tmpfs", "tmpfs", target, readonly)
        self._empty = self.open(path)

    def stat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def enter(self) -> None:
        """Make this the root directory of the mount namespace and let go of the host's."""
        if self._empty is not None:
            os.close(self._empty)
        # From a chroot, pivot_root would leave the host's root below ours, for an exec to land in.
        namespaces.leave_chroot()
        host = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(self.fd)
        syscalls.pivot_root(".", ".")
        # The old root now lies on top of the new one; unmounting it must not reach the host.
        os.fchdir(host)
        syscalls.mount(None, ".", None, syscalls.MS_SLAVE | syscalls.MS_REC)
        syscalls.umount2(".", syscalls.MNT_DETACH)
        os.close(host)
        os.close(self.fd)
        os.chdir("/")
        if self._propagation in ("shared", "rshared"):
            recursive = syscalls.MS_REC if self._propagation == "rshared" else 0
            syscalls.mount(None, "/", None, syscalls.MS_SHARED | recursive)


def _of_whole_namespace(action: Callable[[], None]) -> None:
    """Do something where "/" is the mount namespace's root, also when we live in a chroot."""
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        namespaces.leave_chroot()
        action()
        os.fchdir(here)
        os.chroot(".")
    finally:
        os.close(here)


def _is_procfs(path: str) -> bool:
    """Whether a path of the host's is the root of a procfs."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return procfs.filesystem_magic(fd) == procfs.PROC_SUPER_MAGIC and (
            os.fstat(fd).st_ino == _PROC_ROOT_INODE
        )
    finally:
        os.close(fd)


def _copy_tree(source: int, target: int) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            name, info = entry.name, entry.stat(follow_symlinks=False)
            mode = stat.S_IMODE(info.st_mode)
            if stat.S_ISLNK(info.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
                continue
            if stat.S_ISDIR(info.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inner, copy = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
                _copy_tree(inner, copy)
            elif stat.S_ISREG(info.st_mode):
                inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
                copy = os.open(
                    name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target
                )
                while os.sendfile(copy, inner, None, 1 << 20):
                    pass
            else:
                os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
                os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
                continue
            os.fchown(copy, info.st_uid, info.st_gid)
            os.fchmod(copy, mode)
            os.close(inner)
            os.close(copy)
