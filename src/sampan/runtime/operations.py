"""The steps that furnish a root file system, as data: each can be carried out, printed, ordered and tested.

A step never names a path of the container to the kernel: targets are opened beneath the root first, and the
mount is attached to the descriptor (CVE-2021-30465, CVE-2025-31133, CVE-2025-52565).
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import field
from typing import Protocol

from sampan.dataclasses import dataclass
from sampan.linux import syscalls
from sampan.linux.mounts import MountOptions
from sampan.runtime.bundle import DeviceSpec, IdMappings


class Root(Protocol):
    """What operations need of the kernel: a root, and mounts upon it. Tests record these calls."""

    def open(self, path: str, follow: bool = True) -> int:
        """Open `path` beneath the root with O_PATH."""
        ...

    def make_directory(self, path: str, follow: bool = True) -> int:
        """Open the directory `path` beneath the root, made if missing."""
        ...

    def make_file(self, path: str) -> int:
        """Open the file `path` beneath the root, made if missing."""
        ...

    def check_place(self, target: int, source: str = "") -> None:
        """Refuse to mount on `target` what would lie over the container's /proc, or in it.

        Args:
            source: of the host, where it may be its /proc.
        """
        ...

    def mount(self, fstype: str, source: str, target: int, options: MountOptions) -> None:
        """Mount a new file system on `target`."""
        ...

    def bind(self, source: str | int, target: int, options: MountOptions) -> None:
        """Mount a copy of the mount at the host path, or behind the descriptor, `source` on `target`."""
        ...

    def set_propagation(self, path: str, propagation: list[tuple[int, bool]]) -> None:
        """Change the propagation of the mount at `path` beneath the root."""
        ...

    def set_readonly(self, path: str) -> None:
        """Make the mount at `path`, and none below it, read-only."""
        ...

    def make_node(self, device: DeviceSpec) -> None:
        """Make a device node beneath the root; one that is already there stays."""
        ...

    def make_link(self, target: str, path: str) -> None:
        """Make a symbolic link beneath the root; something that is already there stays."""
        ...

    def copy_up(self, covered: int, path: str) -> None:
        """Copy what the descriptor `covered` holds into the directory `path` beneath the root."""
        ...

    def cover(self, path: str, target: int) -> None:
        """Hide the directory `path`, open as `target`, behind an empty one that is read-only."""
        ...

    def stat(self, fd: int) -> os.stat_result:
        """fstat(2)."""
        ...

    def close(self, fd: int) -> None:
        """close(2)."""
        ...


class Operation(Protocol):
    """One step."""

    def execute(self, root: Root) -> None:
        """Do it."""
        ...

    def describe(self) -> str:
        """One line for people; also the context of an error."""
        ...


def _names(options: MountOptions, names: list[str]) -> str:
    return f" ({','.join(names)})" if names else ""


@dataclass(slots=True)
class MountFilesystem:
    """Mount a new file system. With `plain` no link may lead to its place, which other code trusts."""

    fstype: str
    source: str
    destination: str
    names: list[str]
    options: MountOptions
    plain: bool = False

    def execute(self, root: Root) -> None:
        unmoded = self.fstype == "tmpfs" and not any(name.startswith("mode=") for name in self.options.data)
        inherits = unmoded and _is_there(root, self.destination)
        try:
            target = root.make_directory(self.destination, follow=not self.plain)
        except OSError as error:
            if self.plain and error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise OSError(
                    error.errno, f"{self.destination!r} in the image must be an ordinary directory"
                ) from None
            raise
        try:
            options = self.options
            if self.fstype != "proc":
                root.check_place(target)
            if unmoded:
                # The image's directory lends its mode; where it has none, everybody may write, as in /tmp.
                mode = stat.S_IMODE(root.stat(target).st_mode) if inherits else 0o1777
                options.data.append(f"mode={mode:o}")
            root.mount(self.fstype, self.source, target, options)
            if options.propagation:
                root.set_propagation(self.destination, options.propagation)
            if options.copy_up:
                root.copy_up(target, self.destination)
        finally:
            root.close(target)

    def describe(self) -> str:
        return f"mount {self.fstype} at {self.destination}{_names(self.options, self.names)}"


def _is_there(root: Root, path: str) -> bool:
    try:
        root.close(root.open(path))
    except FileNotFoundError:
        return False
    return True


_MISMATCH = (
    "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the "
    "specified host path exists and is the expected type"
)


@dataclass(slots=True)
class BindMount:
    """Show a file or directory of the host in the container, its owners mapped if there are `id_mappings`.

    Whoever carries it out has put a user namespace with these into the options before.
    """

    source: str
    destination: str
    names: list[str]
    options: MountOptions
    id_mappings: IdMappings | None = None

    def execute(self, root: Root) -> None:
        directory = stat.S_ISDIR(os.stat(self.source).st_mode)
        try:
            target = (root.make_directory if directory else root.make_file)(self.destination)
        except NotADirectoryError as error:
            raise OSError(error.errno, _MISMATCH) from error
        try:
            root.check_place(target, self.source)
            self._bind(root, target, directory)
            if self.options.propagation:
                root.set_propagation(self.destination, self.options.propagation)
        finally:
            root.close(target)

    def _bind(self, root: Root, target: int, directory: bool) -> None:
        try:
            root.bind(self.source, target, self.options)
        except OSError as error:
            if directory or not stat.S_ISDIR(os.fstat(target).st_mode):
                raise
            raise OSError(error.errno, _MISMATCH) from error

    def describe(self) -> str:
        return f"bind {self.source} to {self.destination}{_names(self.options, self.names)}"


@dataclass(slots=True)
class MakeDevice:
    """Make a device node, or bind the host's where making one is refused."""

    device: DeviceSpec

    def execute(self, root: Root) -> None:
        root.make_node(self.device)

    def describe(self) -> str:
        device = self.device
        return f"device {device.path} {device.type} {device.major}:{device.minor} mode {device.mode:o}"


@dataclass(slots=True)
class MakeLink:
    """Make a symbolic link."""

    target: str
    path: str

    def execute(self, root: Root) -> None:
        root.make_link(self.target, self.path)

    def describe(self) -> str:
        return f"link {self.path} -> {self.target}"


@dataclass(slots=True)
class MakeDirectory:
    """Make a directory, the working directory say."""

    path: str

    def execute(self, root: Root) -> None:
        root.close(root.make_directory(self.path))

    def describe(self) -> str:
        return f"directory {self.path}"


_READONLY = MountOptions(set=syscalls.MOUNT_ATTR_RDONLY)
_TREE_READONLY = MountOptions(bind=True, recursive=True, tree_set=syscalls.MOUNT_ATTR_RDONLY)


@dataclass(slots=True)
class MakeReadonly:
    """Cover a path with a read-only view of itself. One that does not exist needs none."""

    path: str

    def execute(self, root: Root) -> None:
        try:
            target = root.open(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            root.bind(target, target, _TREE_READONLY)
        finally:
            root.close(target)

    def describe(self) -> str:
        return f"read-only {self.path}"


@dataclass(slots=True)
class Mask:
    """Hide a path: a directory behind an empty one, a file behind the container's /dev/null.

    The null device is the container's own (the host's inode could be changed through the mask), so an image
    might have put something else there: only a character device 1:3 is accepted.
    """

    path: str

    def execute(self, root: Root) -> None:
        try:
            target = root.open(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if stat.S_ISDIR(root.stat(target).st_mode):
                root.cover(self.path, target)
                return
            null = root.open("/dev/null")
            try:
                found = root.stat(null)
                if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
                    raise OSError(errno.EINVAL, "/dev/null in the container is not the null device")
                root.bind(null, target, _READONLY)
            finally:
                root.close(null)
        finally:
            root.close(target)

    def describe(self) -> str:
        return f"mask {self.path}"


@dataclass(slots=True)
class MountReadonly:
    """Make one mount read-only, the root's say, and not those on it."""

    path: str

    def execute(self, root: Root) -> None:
        root.set_readonly(self.path)

    def describe(self) -> str:
        return f"read-only mount {self.path}"


@dataclass(slots=True)
class Plan:
    """Steps in their order."""

    steps: list[Operation] = field(default_factory=list)

    def execute(self, root: Root) -> None:
        """Carry out all steps.

        Raises:
            OSError: the first step's that failed; its text names the step.
        """
        for step in self.steps:
            try:
                step.execute(root)
            except OSError as error:
                where = f": {error.filename}" if error.filename else ""
                raise OSError(error.errno, f"{step.describe()}: {error.strerror}{where}") from error

    def describe(self) -> str:
        """The whole plan, a line a step."""
        return "\n".join(step.describe() for step in self.steps)
