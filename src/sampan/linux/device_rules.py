"""Rules on which devices a cgroup may use (OCI runtime spec, config-linux.md, "Allowed Device list")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampan.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """One rule; a later one wins over an earlier one.

    Attributes:
        kind: "a" for all, "c" or "b".
        major, minor: None for any.
        access: letters of "rwm".
    """

    allow: bool
    kind: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def __str__(self) -> str:
        """As the v1 files `devices.allow` and `devices.deny` take it."""
        if self.kind == "a":
            return "a"
        major = "*" if self.major is None else self.major
        minor = "*" if self.minor is None else self.minor
        return f"{self.kind} {major}:{minor} {self.access}"


# What every container may use, as the spec's default devices need it; a node of any device may be made, since
# making one gives no access to it.
DEFAULT_RULES: tuple[DeviceRule, ...] = (
    DeviceRule(True, "c", None, None, "m"),
    DeviceRule(True, "b", None, None, "m"),
    DeviceRule(True, "c", 1, 3),  # null
    DeviceRule(True, "c", 1, 5),  # zero
    DeviceRule(True, "c", 1, 7),  # full
    DeviceRule(True, "c", 1, 8),  # random
    DeviceRule(True, "c", 1, 9),  # urandom
    DeviceRule(True, "c", 5, 0),  # tty
    DeviceRule(True, "c", 5, 2),  # ptmx
    DeviceRule(True, "c", 136, None),  # pts/*
)


def parse(rules: Iterable[Mapping[str, Any]]) -> list[DeviceRule]:
    """Rules from OCI objects.

    Raises:
        ValueError: a type or an access that the spec does not know.
    """
    parsed = []
    for rule in rules:
        kind = rule.get("type") or "a"
        access = rule.get("access") or "rwm"
        if kind not in ("a", "c", "b", "u"):
            raise ValueError(f"device rule: unknown type {kind!r}")
        if set(access) - set("rwm"):
            raise ValueError(f"device rule: unknown access {access!r}")
        numbers = [rule.get(name) for name in ("major", "minor")]
        major, minor = (None if number is None or number < 0 else int(number) for number in numbers)
        if kind == "a" and (major is not None or minor is not None or access != "rwm"):
            # v1 would take this for "everything"; both kinds by themselves say what is meant.
            parsed += [DeviceRule(bool(rule.get("allow")), each, major, minor, access) for each in "cb"]
        else:
            letter = "c" if kind == "u" else kind
            parsed.append(DeviceRule(bool(rule.get("allow")), letter, major, minor, access))
    return parsed


def with_defaults(rules: Iterable[Mapping[str, Any]]) -> list[DeviceRule]:
    """The rules, and the default ones where the given ones begin by refusing everything.

    The defaults follow the last rule for all devices, so that the more special ones given may still refuse.
    """
    parsed = parse(rules)
    last = max((index for index, rule in enumerate(parsed) if rule.kind == "a"), default=-1)
    if last >= 0 and parsed[last].allow:
        return parsed
    return [*parsed[: last + 1], *DEFAULT_RULES, *parsed[last + 1 :]]
