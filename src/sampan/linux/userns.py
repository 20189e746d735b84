"""Whether we live in a user namespace below the machine's first one (user_namespaces(7))."""

from __future__ import annotations

from functools import cache

_EVERYBODY = ["0", "0", "4294967295"]


@cache
def nested() -> bool:
    """Whether root here is not the machine's: its rights end at what belongs to the namespace."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() != _EVERYBODY
    except OSError:
        return False  # a kernel without user namespaces


@cache
def groups_may_be_set() -> bool:
    """Whether setgroups(2) is permitted: not where an ordinary user has mapped one id alone."""
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            return file.read().strip() != "deny"
    except OSError:
        return True


def has(uid: int, gid: int) -> bool:
    """Whether this user and this group exist here, so that a file can be theirs."""
    return exists("uid", uid) and exists("gid", gid)


def exists(kind: str, number: int) -> bool:
    """Whether a user ("uid") or group ("gid") exists here."""
    return any(first <= number < first + count for first, _, count in _ranges(kind))


def _ranges(kind: str) -> list[tuple[int, ...]]:
    """The lines of uid_map or gid_map: first id here, first id outside, how many; by the first."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        return sorted(tuple(map(int, line.split())) for line in file)


def highest(kind: str, most: int) -> int:
    """The highest user ("uid") or group ("gid") that exists here without a gap below it.

    Args:
        most: what to say where there are more.
    """
    beyond = 0
    for first, _, count in _ranges(kind):
        if first > beyond:
            break
        beyond = first + count
    return min(beyond - 1, most)
