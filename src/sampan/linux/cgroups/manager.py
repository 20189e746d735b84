"""What both versions of cgroups have in common: one object to make, fill and remove a cgroup."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sampan.errors import InvalidParameter
from sampan.linux.cgroups import files
from sampan.linux.cgroups.stats import CgroupStats

Resources = Mapping[str, Any]  # OCI `linux.resources` (config-linux.md, "Control groups")
_PATIENCE_S = 5.0


def checked_path(cgroups_path: str) -> str:
    """The path below a hierarchy's root, with one slash in front.

    Raises:
        InvalidParameter: it is empty or climbs out.
    """
    parts = [part for part in cgroups_path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise InvalidParameter(f"invalid cgroups path {cgroups_path!r}")
    return "/" + "/".join(parts)


class Manager(ABC):
    """A container's cgroup in all hierarchies. It holds nothing but paths: any process may make its own."""

    version: int

    def __init__(self, directories: Mapping[str, str]) -> None:
        self._paths = dict(directories)
        self._directories = tuple(dict.fromkeys(self._paths.values()))
        self._before: list[tuple[str, str]] | None = None  # what an update has overwritten

    def paths(self) -> dict[str, str]:
        """Controller to the container's directory; "" is the unified hierarchy."""
        return dict(self._paths)

    def exists(self) -> bool:
        """Whether the cgroup is there, in any hierarchy."""
        return any(os.path.isdir(path) for path in self._directories)

    # --- life ---

    def create(self, resources: Resources | None) -> list[str]:
        """Make the cgroup and set its limits.

        Args:
            resources: OCI `linux.resources`; None for no limits.

        Returns:
            Warnings: things asked for that this kernel can only do differently.

        Raises:
            OSError: a limit cannot be set; it names the file. What was made is removed again.
            InvalidParameter: a limit that means nothing on this version of cgroups.
        """
        try:
            self._make(resources or {})
            return self._set(resources or {}, new=True)
        except BaseException:
            try:
                self.remove()
            except OSError:
                pass  # the first failure is the one to tell; start-up sweeps up what stayed
            raise

    def update(self, resources: Resources) -> list[str]:
        """Change limits of a cgroup that exists, all or none; what `resources` does not name stays.

        Returns:
            Warnings, as `create`.

        Raises:
            OSError: the kernel refuses a value; those written before it are as they were.
            InvalidParameter: a limit that means nothing on this version of cgroups.
        """
        self._before = []
        try:
            return self._set(resources, new=False)
        except BaseException:
            self.revert()
            raise

    def revert(self) -> None:
        """Undo the last `update` of this manager, the last write first: each step was allowed forwards."""
        for path, value in reversed(self._before or []):
            with contextlib.suppress(OSError):  # the cgroup is gone, and its limits with it
                files.write(path, value or "\n")
        self._before = None

    def _put(self, path: str, value: str) -> None:
        """Write a limit, and remember what it was when this is an update."""
        if self._before is not None:
            present = files.read_optional(path)
            if present is not None:
                self._before.append((path, present))
        files.write(path, value)

    def add(self, pid: int) -> None:
        """Move a process into the cgroup.

        Args:
            pid: 0 for the calling process.
        """
        for path in self._directories:
            files.write(f"{path}/cgroup.procs", str(pid))

    @abstractmethod
    def open_dirfd(self) -> int | None:
        """A descriptor for CLONE_INTO_CGROUP, the caller's to close; None on v1, which has no such thing."""

    def remove(self) -> None:
        """Remove the cgroup and those made below it. Idempotent.

        Raises:
            OSError: it is still in use after a few seconds of trying.
        """
        deadline = time.monotonic() + _PATIENCE_S
        for path in self._directories:
            _remove_tree(path, deadline)

    # --- processes ---

    @abstractmethod
    def _process_directory(self) -> str:
        """The directory whose `cgroup.procs` tells who is in."""

    def pids(self) -> list[int]:
        """The processes in the cgroup and below it, as seen from this pid namespace."""
        found: list[int] = []
        for directory in _descend(self._process_directory()):
            text = files.read_optional(f"{directory}/cgroup.procs") or ""
            found += [int(line) for line in text.split() if line != "0"]
        return found

    @abstractmethod
    def freeze(self) -> None:
        """Stop all processes and return when they have stopped."""

    @abstractmethod
    def thaw(self) -> None:
        """Let the processes go on."""

    @abstractmethod
    def _kill_at_once(self) -> bool:
        """Kill by one write, where the kernel can; False where it cannot."""

    def kill_all(self) -> None:
        """Send SIGKILL to every process in the cgroup and below. Idempotent.

        Without `cgroup.kill` (kernel 5.14) they are frozen first, so that none forks away or ends
        between being read and being signalled.
        """
        if self._kill_at_once() or not self.pids():
            return
        frozen = True
        try:
            self.freeze()
        except OSError:
            frozen = False  # no freezer: repeat until none is left
        kill_each(self.pids, frozen)
        if frozen:
            self.thaw()

    # --- numbers ---

    @abstractmethod
    def oom_kills(self) -> int:
        """How many processes the out-of-memory killer has ended here; 0 when the cgroup is gone."""

    @abstractmethod
    def stats(self) -> CgroupStats:
        """Usage now."""

    # --- what the versions do differently ---

    @abstractmethod
    def _make(self, resources: Resources) -> None: ...

    @abstractmethod
    def _set(self, resources: Resources, new: bool) -> list[str]: ...


def kill_each(pids: Callable[[], Iterable[int]], frozen: bool) -> None:
    """Send SIGKILL to processes that `pids` lists; while they are not frozen, until it lists none."""
    for _ in range(1 if frozen else 100):
        found = list(pids())
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not found:
            break


def _descend(directory: str) -> Iterator[str]:
    """The directory and those below it, parents first; nothing when it is not there."""
    try:
        with os.scandir(directory) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, OSError) as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return
        raise
    yield directory
    for path in below:
        yield from _descend(path)


def _remove_tree(path: str, deadline: float) -> None:
    delay = 0.0005
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            for below in list(_descend(path))[:0:-1]:
                try:
                    os.rmdir(below)
                except OSError as inner:
                    if inner.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                        raise
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "cannot remove the cgroup: it still has processes", path) from None
            time.sleep(delay)
            delay = min(delay * 2, 0.05)
        else:
            return


def make_directory(path: str) -> bool:
    """Make one directory; False when it was there. FileNotFoundError when its parent is missing."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True
