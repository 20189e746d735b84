"""What an exec's process has in its hands, and what it tells on its channel."""

from __future__ import annotations

import struct

from sampan.dataclasses import dataclass

# A number of these, or the address of the step that failed, and a result: a pid, or minus an errno.
BORN, MOVED, TERMINAL, PROGRAM, SEARCHED, NO_DEVPTS, OUTSIDE = range(1, 8)
TOLD = struct.Struct("<Qq")
# Behind SEARCHED, for each file: the results of execve(2), of opening it as a directory, of faccessat2(2).
CANDIDATE = struct.Struct("<qqq")
UNTRIED = 1
GO = b"go"


@dataclass(frozen=True, slots=True)
class Hands:
    """The process's descriptors, by the numbers that they have here too.

    Attributes:
        channel: where it tells what happens, and hears that it may go on.
        report: where the reaper hears that its program is known, and tells the program's status; negative
            where there is to be no reaper.
        container: a pidfd of the container's first process.
        unified: the directory of the cgroup in the unified hierarchy; negative for none.
        tasks: the `tasks` files of the v1 cgroups.
        stdio: what becomes 0, 1 and 2; what is below 3 is so already.
        owned: those of 0, 1 and 2 that are to be the user's: pipes and terminals.
        spaces: namespaces and their kinds, where a pidfd does not join them all.
    """

    channel: int
    report: int
    container: int
    unified: int
    tasks: tuple[int, ...]
    stdio: tuple[int, int, int]
    owned: tuple[int, ...] = ()
    spaces: tuple[tuple[int, int], ...] = ()

    def all(self) -> list[int]:
        """All but 0, 1 and 2."""
        some = {self.channel, self.report, self.container, self.unified, *self.tasks, *self.stdio}
        return sorted(fd for fd in some.union(fd for fd, _ in self.spaces) if fd > 2)
