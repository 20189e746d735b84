"""The mount points that a command's mounts make in the image's files: they leave no trace there.

Directories of VOLUMEs are made as well, where the image has none, since Docker's classic builder mounts
volumes there; what the command writes below them stays, as with BuildKit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from sampan.building.layers import opened
from sampan.engine import Core
from sampan.linux import beneath


class Stubs:
    """What is missing of mount points before a command runs: afterwards it goes again, where it is empty.

    Args:
        targets: where something will be mounted, from the root.
        directories: what is made at once.
    """

    def __init__(
        self, core: Core, container_id: str, targets: Sequence[str], directories: Sequence[str] = ()
    ) -> None:
        self._core = core
        self._id = container_id
        self._missing: list[str] = []
        self._with_root(lambda root: self._look(root, targets, directories))

    def remove(self) -> None:
        """The command has ended."""
        if self._missing:
            self._with_root(self._remove)

    def _with_root(self, work: Callable[[int], None]) -> None:
        path = self._core.driver.mount(self._id)
        try:
            with opened(path) as root:
                work(root)
        finally:
            self._core.driver.unmount(self._id)

    def _look(self, root: int, targets: Sequence[str], directories: Sequence[str]) -> None:
        missing = set()
        for target in (*targets, *directories):
            path = beneath.real_path(root, target)
            while path != "/" and not _is_there(root, path):
                missing.add(path)
                path = os.path.dirname(path)
        self._missing = sorted(missing, key=lambda path: path.count("/"), reverse=True)
        for directory in directories:
            with suppress(OSError):  # something else is there: the command will see it
                os.close(beneath.make_directory(root, directory))

    def _remove(self, root: int) -> None:
        for path in self._missing:
            above, name = os.path.split(path)
            try:
                parent = beneath.open_path(root, above, os.O_RDONLY | os.O_DIRECTORY, follow=False)
            except OSError:  # the command has put something else there
                continue
            try:
                _remove_empty(parent, name)
            finally:
                os.close(parent)


def _remove_empty(parent: int, name: str) -> None:
    """Remove an empty directory or file; the directory's times stay as they are."""
    times = os.fstat(parent)
    with suppress(OSError):  # not there, or not empty: then it is the command's
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(name, dir_fd=parent)
        elif stat.S_ISREG(info.st_mode) and not info.st_size:
            os.unlink(name, dir_fd=parent)
        os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))


def _is_there(root: int, path: str) -> bool:
    try:
        os.close(beneath.open_path(root, path, nofollow_last=True))
    except OSError:
        return False
    return True
