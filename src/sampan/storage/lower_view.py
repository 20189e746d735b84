"""What a stack of overlay layers shows, without mounting it: lookups by the kernel's own rules for overlays.

A character device 0:0 hides what is below it; a directory marked opaque hides the directories below it
(Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import os
import stat

from sampan.linux import userns
from sampan.storage.errors import ParentNeeded

# In a user namespace trusted attributes cannot be written: overlays have `userxattr` there (5.11).
XATTR_PREFIX = "user.overlay." if userns.nested() else "trusted.overlay."
OPAQUE_XATTR = f"{XATTR_PREFIX}opaque"
_OPAQUE_XATTRS = (OPAQUE_XATTR, "user.fuseoverlayfs.opaque") if userns.nested() else (OPAQUE_XATTR,)


def is_whiteout(info: os.stat_result) -> bool:
    """Whether a file of a layer is overlay's mark for one that is gone."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: str | bytes | int) -> bool:
    """Whether a directory of a layer hides those below it."""
    for name in _OPAQUE_XATTRS:
        try:
            return os.getxattr(path, name) == b"y"
        except OSError:
            continue
    return False


class LowerView:
    """A read-only look at layers.

    Args:
        roots: the directories of the layers, topmost first. They must not change while in use.
    """

    def __init__(self, roots: list[bytes]) -> None:
        self._stacks: dict[bytes, list[bytes]] = {b"": roots}

    def lookup(self, path: bytes) -> os.stat_result | None:
        """What is at `path` (as `b"usr/bin"`): its own metadata, links not followed; None for nothing."""
        return self._find(path)[0]

    def location(self, path: bytes) -> bytes | None:
        """Where the topmost file at `path` really is."""
        info, stack = self._find(path)
        return stack[0] if info is not None else None

    def names(self, path: bytes) -> set[bytes]:
        """The names in the directory at `path`; none when it is no directory."""
        found: set[bytes] = set()
        hidden: set[bytes] = set()
        for directory in self._stack(path):
            for entry in os.scandir(directory):
                if entry.name in hidden or entry.name in found:
                    continue
                if is_whiteout(entry.stat(follow_symlinks=False)):
                    hidden.add(entry.name)
                else:
                    found.add(entry.name)
        return found

    def _stack(self, path: bytes) -> list[bytes]:
        """The real directories that make up the merged directory at `path`."""
        known = self._stacks.get(path)
        if known is None:
            info, stack = self._find(path)
            known = stack if info is not None and stat.S_ISDIR(info.st_mode) else []
            self._stacks[path] = known
        return known

    def _find(self, path: bytes) -> tuple[os.stat_result | None, list[bytes]]:
        if not path:
            roots = self._stacks[b""]
            return (os.lstat(roots[0]), roots) if roots else (None, [])
        above, _, name = path.rpartition(b"/")
        first: os.stat_result | None = None
        stack: list[bytes] = []
        for directory in self._stack(above):
            place = directory + b"/" + name
            try:
                info = os.lstat(place)
            except FileNotFoundError:
                continue
            if is_whiteout(info) or (first is not None and not stat.S_ISDIR(info.st_mode)):
                break
            stack.append(place)
            first = first or info
            if not stat.S_ISDIR(info.st_mode) or is_opaque(place):
                break
        return first, stack


class UnknownLower:
    """Stands for layers that are not known yet: whoever has to look at them cannot go on."""

    def lookup(self, path: bytes) -> os.stat_result | None:
        raise ParentNeeded(f"{os.fsdecode(path)} is only in the layers below")

    def names(self, path: bytes) -> set[bytes]:
        raise ParentNeeded(f"what lies below /{os.fsdecode(path)} is hidden name by name")
