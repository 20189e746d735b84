"""A user's subordinate ids (subuid(5), subgid(5)) and the map of a user namespace made of them."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterable

from sampan.dataclasses import dataclass

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/bin"
Range = tuple[int, int]  # the first, and how many


@dataclass(frozen=True, slots=True)
class SubordinateIds:
    """What a user may map.

    Attributes:
        uids, gids: the ranges; none when the user has none, or nothing to map them with.
        lacking: why there are none, with the command that mends it; "" when there are.
        newuidmap, newgidmap: the programs that map them.
    """

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    lacking: str = ""
    newuidmap: str = ""
    newgidmap: str = ""


def find(uid: int) -> SubordinateIds:
    """The subordinate ids of a user."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    uids, gids = (_ranges(f"/etc/sub{kind}", {name, str(uid)}) for kind in ("uid", "gid"))
    programs = [shutil.which(program, path=_PATH) or "" for program in ("newuidmap", "newgidmap")]
    if not all(programs):
        return SubordinateIds((), (), "newuidmap is not installed: sudo apt-get install uidmap")
    if not uids or not gids:
        file = "/etc/subuid" if not uids else "/etc/subgid"
        return SubordinateIds(
            (), (), f"{name} has no ids in {file}: sudo usermod --add-subuids 100000-165535 --add-subgids "
            f"100000-165535 {name}, with a range that nobody else has"
        )  # fmt: skip
    return SubordinateIds(uids, gids, "", *programs)


def _ranges(path: str, names: set[str]) -> tuple[Range, ...]:
    found = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, numbers = line.strip().partition(":")
                first, _, count = numbers.partition(":")
                if name in names and first.isdecimal() and count.isdecimal() and int(count):
                    found.append((int(first), int(count)))
    except OSError:
        pass  # nobody has any
    return tuple(found)


def lines(own: int, ranges: Iterable[Range]) -> list[tuple[int, int, int]]:
    """The map of a user namespace whose root is the user: first inside, first outside, how many."""
    made, inside = [(0, own, 1)], 1
    for first, count in ranges:
        made.append((inside, first, count))
        inside += count
    return made
