"""Mounts by descriptor, with mount(2) as the fallback: options by their names, new file systems, bind mounts.

Option names are those of mount(8) and of the OCI runtime spec's table of "Linux mount options". The mount API
by descriptors needs kernel 5.2, changing attributes of a whole tree 5.12 (mount_setattr(2)).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.linux import syscalls as sys

_ATIME_MASK = 0x70
_NODIRATIME = 0x80

# name: (attributes to set, attributes to clear)
_ATTRIBUTES = {
    "ro": (sys.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, sys.MOUNT_ATTR_RDONLY),
    "nosuid": (sys.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, sys.MOUNT_ATTR_NOSUID),
    "nodev": (sys.MOUNT_ATTR_NODEV, 0),
    "dev": (0, sys.MOUNT_ATTR_NODEV),
    "noexec": (sys.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, sys.MOUNT_ATTR_NOEXEC),
    "noatime": (sys.MOUNT_ATTR_NOATIME, _ATIME_MASK),
    "atime": (0, _ATIME_MASK),
    "relatime": (0, _ATIME_MASK),
    "norelatime": (0, 0),
    "strictatime": (sys.MOUNT_ATTR_STRICTATIME, _ATIME_MASK),
    "nostrictatime": (0, _ATIME_MASK),
    "nodiratime": (_NODIRATIME, 0),
    "diratime": (0, _NODIRATIME),
    "nosymfollow": (sys.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, sys.MOUNT_ATTR_NOSYMFOLLOW),
}
_RECURSIVE = {
    "r" + name: value
    for name, value in _ATTRIBUTES.items()
    if name not in ("elatime", "norelatime", "nostrictatime")
}
PROPAGATION = {
    "private": (sys.MS_PRIVATE, False),
    "rprivate": (sys.MS_PRIVATE, True),
    "shared": (sys.MS_SHARED, False),
    "rshared": (sys.MS_SHARED, True),
    "slave": (sys.MS_SLAVE, False),
    "rslave": (sys.MS_SLAVE, True),
    "unbindable": (sys.MS_UNBINDABLE, False),
    "runbindable": (sys.MS_UNBINDABLE, True),
}
_OTHERS = ("bind", "rbind", "tmpcopyup", "idmap", "ridmap", "defaults")
_LEGACY_FLAGS = {
    sys.MOUNT_ATTR_RDONLY: sys.MS_RDONLY,
    sys.MOUNT_ATTR_NOSUID: sys.MS_NOSUID,
    sys.MOUNT_ATTR_NODEV: sys.MS_NODEV,
    sys.MOUNT_ATTR_NOEXEC: sys.MS_NOEXEC,
    sys.MOUNT_ATTR_NOATIME: sys.MS_NOATIME,
    sys.MOUNT_ATTR_STRICTATIME: sys.MS_STRICTATIME,
    _NODIRATIME: 0x800,
    sys.MOUNT_ATTR_NOSYMFOLLOW: sys.MS_NOSYMFOLLOW,
}


@dataclass(slots=True)
class MountOptions:
    """A list of mount options, sorted by what becomes of them.

    Attributes:
        bind: the mount shows a part of another file system instead of a new one.
        recursive: a bind takes the mounts below its source along.
        set, clear: attributes (`MOUNT_ATTR_…`) of this mount.
        tree_set, tree_clear: attributes of this mount and all below it.
        propagation: `MS_…` kind and whether it goes for the whole tree, in order.
        data: what is left: options of the file system.
        copy_up: fill a new tmpfs with what it covers.
        id_map: a user namespace through whose map the files' owners are seen; None for none.
        id_map_tree: the same for the mounts below.
    """

    bind: bool = False
    recursive: bool = False
    set: int = 0
    clear: int = 0
    tree_set: int = 0
    tree_clear: int = 0
    propagation: list[tuple[int, bool]] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    copy_up: bool = False
    id_map: int | None = None
    id_map_tree: bool = False


def parse_options(names: Iterable[str]) -> MountOptions:
    """Sort a mount's options; a later one wins over an earlier one."""
    options = MountOptions()
    for name in names:
        if name in _ATTRIBUTES:
            given, cleared = _ATTRIBUTES[name]
            options.set = options.set & ~cleared | given
            options.clear = options.clear & ~given | cleared
        elif name in ("bind", "rbind"):
            options.bind = True
            options.recursive = name == "rbind"
        elif name in PROPAGATION:
            options.propagation.append(PROPAGATION[name])
        elif name in _RECURSIVE:
            given, cleared = _RECURSIVE[name]
            options.tree_set = options.tree_set & ~cleared | given
            options.tree_clear = options.tree_clear & ~given | cleared
        elif name == "tmpcopyup":
            options.copy_up = True
        elif name in ("idmap", "ridmap"):
            options.id_map_tree = name == "ridmap"
        elif name not in ("", "defaults"):
            options.data.append(name)
    return options


def new_filesystem(fstype: str, source: str, data: Iterable[str], attributes: int) -> int:
    """A detached mount of a new instance of `fstype`.

    Args:
        fstype: as in /proc/filesystems.
        source: what mountinfo shows as the source.
        data: options of the file system, `name` or `name=value`.
        attributes: `MOUNT_ATTR_…`.

    Raises:
        OSError: as fsopen(2), fsconfig(2); the message names the option that was refused.
    """
    context = sys.fsopen(fstype)
    try:
        if source:
            sys.fsconfig(context, sys.FSCONFIG_SET_STRING, "source", source)
        for option in data:
            name, equals, value = option.partition("=")
            try:
                if equals:
                    sys.fsconfig(context, sys.FSCONFIG_SET_STRING, name, value)
                else:
                    sys.fsconfig(context, sys.FSCONFIG_SET_FLAG, name)
            except OSError as error:
                raise OSError(error.errno, f"{fstype} option {option!r}: {error.strerror}") from None
        sys.fsconfig(context, sys.FSCONFIG_CMD_CREATE)
        return sys.fsmount(context, attributes)
    finally:
        os.close(context)


def clone_tree(directory: int, path: str, recursive: bool) -> int:
    """A detached copy of the mount at `path` (beneath the descriptor `directory`, or itself when empty)."""
    flags = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC
    flags |= (0 if path else sys.AT_EMPTY_PATH) | (sys.AT_RECURSIVE if recursive else 0)
    return sys.open_tree(directory, path, flags)


def change(mount_fd: int, options: MountOptions) -> None:
    """Apply the attributes and propagation of `options` to a mount given by descriptor."""
    if options.set or options.clear:
        sys.mount_setattr(mount_fd, "", sys.AT_EMPTY_PATH, set_=options.set, clear=options.clear)
    if options.tree_set or options.tree_clear:
        whole = sys.AT_EMPTY_PATH | sys.AT_RECURSIVE
        sys.mount_setattr(mount_fd, "", whole, set_=options.tree_set, clear=options.tree_clear)
    if options.id_map is not None:
        _map_ids(mount_fd, options.id_map, options.id_map_tree)


def _map_ids(mount_fd: int, user_namespace: int, tree: bool) -> None:
    flags = sys.AT_EMPTY_PATH | (sys.AT_RECURSIVE if tree else 0)
    try:
        sys.mount_setattr(mount_fd, "", flags, set_=sys.MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        below = ", or one that is mounted below it," if tree else ""
        raise OSError(
            error.errno,
            f"its file system{below} offers no id-mapped mounts in this kernel (or is id-mapped already); "
            "the option U changes the files' owners instead",
        ) from None


def change_propagation(mount_fd: int, propagation: Iterable[tuple[int, bool]]) -> None:
    """Apply propagation kinds, in order, to an attached mount given by descriptor."""
    for kind, recursive in propagation:
        flags = sys.AT_EMPTY_PATH | (sys.AT_RECURSIVE if recursive else 0)
        sys.mount_setattr(mount_fd, "", flags, propagation=kind)


def attach(mount_fd: int, target: int) -> None:
    """Attach a detached mount on the directory or file behind the descriptor `target`."""
    sys.move_mount(mount_fd, "", target, "", sys.MOVE_MOUNT_F_EMPTY_PATH | sys.MOVE_MOUNT_T_EMPTY_PATH)


def legacy_flags(attributes: int) -> int:
    """`MOUNT_ATTR_…` as `MS_…` flags for mount(2)."""
    flags = 0
    for attribute, flag in _LEGACY_FLAGS.items():
        if attributes & attribute:
            flags |= flag
    return flags


def legacy_mount(fstype: str, source: str, target: int, options: MountOptions) -> None:
    """Mount a new file system with mount(2) on the descriptor `target`, by way of the host's /proc."""
    path = f"/proc/self/fd/{target}"
    flags = legacy_flags(options.set | options.tree_set)
    sys.mount(source or fstype, path, fstype, flags, ",".join(options.data) or None)


def legacy_bind(source: str, target: int, options: MountOptions) -> None:
    """Bind with mount(2) on the descriptor `target`; the attributes are then for `legacy_change`."""
    path = f"/proc/self/fd/{target}"
    sys.mount(source, path, None, sys.MS_BIND | (sys.MS_REC if options.recursive else 0))


def legacy_change(mount_fd: int, options: MountOptions) -> None:
    """As `change`, with mount(2), which replaces all attributes: those that are not named are read before.

    A tree is changed mount by mount, which others may see half done.

    Args:
        mount_fd: O_PATH descriptor of a mount's own root directory or file.
    """
    given, cleared = legacy_flags(options.set), legacy_flags(options.clear)
    tree_given, tree_cleared = legacy_flags(options.tree_set), legacy_flags(options.tree_clear)
    _remount(f"/proc/self/fd/{mount_fd}", given | tree_given, cleared | tree_cleared)
    if not (tree_given or tree_cleared):
        return
    for point in points_below(os.readlink(f"/proc/self/fd/{mount_fd}")):
        fd = os.open(point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _remount(f"/proc/self/fd/{fd}", tree_given, tree_cleared)
        finally:
            os.close(fd)


# statvfs(3) has the same bits as mount(2), but for this one
_ST_RELATIME = 0x1000
_KEPT = sys.MS_RDONLY | sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC | sys.MS_NOATIME | 0x800


def _remount(path: str, given: int, cleared: int) -> None:
    found = os.statvfs(path).f_flag
    flags = found & _KEPT | (sys.MS_RELATIME if found & _ST_RELATIME else 0)
    flags = flags & ~cleared | given
    sys.mount(None, path, None, sys.MS_BIND | sys.MS_REMOUNT | flags)


def points_below(path: str) -> list[str]:
    """The mount points below a directory in this mount namespace, parents first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescape(line.split(" ", 5)[4]) for line in file]
    return [point for point in points if point.startswith(f"{path.rstrip('/')}/")]


def _unescape(text: str) -> str:
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text


def option_names() -> list[str]:
    """Every mount option that is understood here, not by a file system."""
    return sorted(
        {*_ATTRIBUTES, *_RECURSIVE, *PROPAGATION, "bind", "rbind", "tmpcopyup", "idmap", "ridmap", "defaults"}
    )
