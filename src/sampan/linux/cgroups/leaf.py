"""A cgroup below a container's that sets no limits: it only knows who is in it, and can end them all.

It lives in one hierarchy: the unified one, or the freezer's on a machine that has v1 alone
(cgroup-v2.rst, "cgroup.kill", kernel 5.14, and "cgroup.freeze", 5.2; cgroup-v1/freezer-subsystem.rst).
"""

from __future__ import annotations

import errno
import os
import time

from sampan.linux.cgroups import files
from sampan.linux.cgroups.manager import Manager, kill_each

_FREEZING_S = 1.0


class Leaf:
    """One such cgroup; its directory is made at once.

    Args:
        parent: the container's.
        name: of the directory.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, parent: Manager, name: str) -> None:
        paths = parent.paths()
        self.unified = "" in paths
        self.path = f"{paths['' if self.unified else 'freezer']}/{name}"
        os.mkdir(self.path, 0o755)

    def pids(self) -> list[int]:
        """The processes in it, as seen from this pid namespace; empty when it is gone."""
        text = files.read_optional(f"{self.path}/cgroup.procs") or ""
        return [int(line) for line in text.split() if line != "0"]

    def kill(self, spared: int = 0) -> None:
        """Send SIGKILL to all in it, so that none forks away meanwhile.

        Args:
            spared: a process that is left alone.
        """
        if not spared and self.unified and self._kill_at_once():
            return
        frozen = self._freeze()
        try:
            kill_each(lambda: [pid for pid in self.pids() if pid != spared], frozen)
        finally:
            if frozen:
                self._set_freezer(False)

    def remove(self) -> bool:
        """Remove the directory; False when somebody is still in it."""
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            return False
        return True

    def _kill_at_once(self) -> bool:
        try:
            files.write(f"{self.path}/cgroup.kill", "1")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return not os.path.isdir(self.path)
            raise
        return True

    def _freeze(self) -> bool:
        """Whether all have stopped; a process deep in the kernel may not within a second."""
        name, wanted = ("cgroup.events", "frozen 1") if self.unified else ("freezer.state", "FROZEN")
        try:
            self._set_freezer(True)
        except OSError:
            return False
        deadline = time.monotonic() + _FREEZING_S
        while wanted not in (files.read_optional(f"{self.path}/{name}") or wanted):
            if time.monotonic() > deadline:
                self._set_freezer(False)
                return False
            time.sleep(0.001)
        return True

    def _set_freezer(self, frozen: bool) -> None:
        if self.unified:
            files.write(f"{self.path}/cgroup.freeze", "1" if frozen else "0")
        else:
            files.write(f"{self.path}/freezer.state", "FROZEN" if frozen else "THAWED")
