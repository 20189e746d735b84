"""A root file system with mounts of its own, seen through one descriptor (mount_namespaces(7), open_tree(2)).

The mounts are made in a mount namespace that nobody lives in: a thread makes it, furnishes it and ends, and
the namespace lasts as long as the view holds its descriptor. Nothing mounted there is seen by the machine or
by a container, and nothing has to be unmounted. Mount points are found beneath the root, so that whoever
swaps links there meanwhile only misleads himself.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

from sampan.dataclasses import dataclass
from sampan.linux import beneath, mounts, procfs, syscalls
from sampan.linux.mounts import MountOptions
from sampan.linux.threads import in_own_thread

_CLONE_FS = 0x200
_TMPFS = 0x01021994  # TMPFS_MAGIC of statfs(2)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bind:
    """One mount of a view.

    Attributes:
        source: a path of the machine's, or the descriptor of a detached mount (which stays the caller's).
        target: where, beneath the root; made when it is missing.
        recursive: whether mounts below the source come along.
        readonly: whether nothing may be written there.
        readonly_below: whether the same goes for the mounts below the source, where the kernel can (5.12).
        id_map: a user namespace through whose map the files' owners are seen (stays the caller's).
    """

    source: str | int
    target: str
    recursive: bool = True
    readonly: bool = False
    readonly_below: bool = False
    id_map: int | None = None


class View:
    """A root file system with its mounts. Use as a context.

    Args:
        rootfs: path of the root directory, which is a mount.
        binds: what is mounted in it, in this order.
        readonly: whether the root itself may be written, once the mount points are there.

    Attributes:
        root: descriptor (O_PATH) of the root directory; paths taken from it see the mounts.

    Raises:
        OSError: a source is missing, or its place cannot be made.
    """

    def __init__(self, rootfs: str, binds: Sequence[Bind], readonly: bool = False) -> None:
        self.root = self._namespace = -1
        try:
            in_own_thread(lambda: self._furnish(rootfs, binds, readonly))
        except BaseException:
            self.close()
            raise

    def _furnish(self, rootfs: str, binds: Sequence[Bind], readonly: bool) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        self._namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        # The daemon may live in a chroot, whose root is no mount: "/" has to be the namespace's for a moment.
        here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.setns(self._namespace, syscalls.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_SLAVE | syscalls.MS_REC)
            os.fchdir(here)
            os.chroot(".")
        finally:
            os.close(here)
        self.root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for bind in binds:
            self._bind(bind)
        if readonly:
            _restrict(self.root, MountOptions(set=syscalls.MOUNT_ATTR_RDONLY))

    def _bind(self, bind: Bind) -> None:
        directory = stat.S_ISDIR(os.stat(bind.source).st_mode)
        make = beneath.make_directory if directory else beneath.make_file
        target = make(self.root, bind.target)
        try:
            if isinstance(bind.source, int):
                mounts.attach(bind.source, target)
                return
            options = MountOptions(
                bind=True, recursive=bind.recursive, id_map=bind.id_map, id_map_tree=bind.recursive
            )
            if bind.readonly:
                options.set = syscalls.MOUNT_ATTR_RDONLY
                options.tree_set = syscalls.MOUNT_ATTR_RDONLY if bind.readonly_below else 0
            try:
                tree = mounts.clone_tree(syscalls.AT_FDCWD, bind.source, bind.recursive)
            except OSError as error:
                if error.errno != errno.ENOSYS or bind.id_map is not None:
                    raise
                self._bind_by_path(bind, target, options)
                return
            try:
                if bind.readonly or bind.id_map is not None:
                    mounts.change(tree, options)
                mounts.attach(tree, target)
            except OSError as error:
                if error.errno != errno.ENOSYS or bind.id_map is not None:
                    raise  # mount_setattr came with kernel 5.12
                self._bind_by_path(bind, target, options)
            finally:
                os.close(tree)
        finally:
            os.close(target)

    def _bind_by_path(self, bind: Bind, target: int, options: MountOptions) -> None:
        assert isinstance(bind.source, str)
        mounts.legacy_bind(bind.source, target, options)
        if bind.readonly:
            # `target` is of what lies below: the mount is found by a fresh walk, and known by its source.
            mounted = beneath.open_path(self.root, bind.target)
            try:
                if not os.path.samestat(os.fstat(mounted), os.stat(bind.source)):
                    raise OSError(errno.EAGAIN, "the mount point was moved meanwhile", bind.target)
                mounts.legacy_change(mounted, options)
            finally:
                os.close(mounted)

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` in a thread of the view's own namespace.

        There the kernel refuses to remove what is a mount point of the view; elsewhere it would unmount it.
        """

        def inside() -> T:
            syscalls.unshare(_CLONE_FS)
            syscalls.setns(self._namespace, syscalls.CLONE_NEWNS)
            return work()

        return in_own_thread(inside)

    def close(self) -> None:
        """Let go of the mounts."""
        for fd in (self.root, self._namespace):
            if fd >= 0:
                os.close(fd)
        self.root = self._namespace = -1

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _restrict(mount_fd: int, options: MountOptions) -> None:
    try:
        mounts.change(mount_fd, options)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        mounts.legacy_change(mount_fd, options)


def tmpfs_of(pid: int, path: str, belongs: Callable[[], bool]) -> int | None:
    """A detached copy of the tmpfs that a process has mounted at a path: the same files, for a `View`.

    Args:
        pid: the process.
        path: as the process's mount namespace has it.
        belongs: asked once the namespace is open: whether the pid is still the one that was meant.

    Returns:
        None when the process is gone, or something else is at that place by now.

    Raises:
        OSError: ENOSYS on kernels before 5.2.
    """
    try:
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        if not belongs():
            return None

        def clone() -> int | None:
            syscalls.unshare(_CLONE_FS)
            syscalls.setns(namespace, syscalls.CLONE_NEWNS)
            try:
                tree = mounts.clone_tree(syscalls.AT_FDCWD, path, recursive=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if procfs.filesystem_magic(tree) == _TMPFS:
                return tree
            os.close(tree)
            return None

        return in_own_thread(clone)
    finally:
        os.close(namespace)
