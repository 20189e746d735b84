"""Seccomp profiles as Docker's users write them (with includes, excludes and archMap), turned into OCI's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from sampan.engine.profiles import seccomp as defaults
from sampan.errors import InvalidParameter

_ALLOW = "SCMP_ACT_ALLOW"
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def default_profile(capabilities: Collection[str]) -> dict[str, Any]:
    """The default profile for a container with these capabilities in its bounding set."""
    return _default(frozenset(capabilities), os.uname().machine)


@lru_cache(maxsize=16)
def _default(capabilities: frozenset[str], machine: str) -> dict[str, Any]:
    names = [*defaults.ALWAYS, *defaults.BY_ARCHITECTURE.get(machine, ())]
    for capability, more in defaults.BY_CAPABILITY.items():
        if capability in capabilities:
            names += more
    rules: list[dict[str, Any]] = [
        {"names": sorted(set(names)), "action": _ALLOW},
        _rule("socket", defaults.NO_SOCKET_FAMILY, "SCMP_CMP_NE"),
        *(_rule("personality", value, "SCMP_CMP_EQ") for value in defaults.PERSONALITIES),
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(_rule("clone", defaults.CLONE_NAMESPACES, "SCMP_CMP_MASKED_EQ"))
        # Its flags lie in memory, where a filter cannot look: libraries fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": list(defaults.ARCHITECTURES.get(machine, ())),
        "syscalls": rules,
    }


def _rule(name: str, value: int, operator: str) -> dict[str, Any]:
    return {"names": [name], "action": _ALLOW, "args": [{"index": 0, "value": value, "op": operator}]}


def parse_profile(text: str, capabilities: Collection[str]) -> dict[str, Any]:
    """The OCI profile for the text of a profile file, in Docker's format or in OCI's.

    Args:
        text: JSON.
        capabilities: the container's bounding set, which decides which rules are included.

    Raises:
        InvalidParameter: it is no profile.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: {error}") from None
    if not isinstance(given, dict):
        raise InvalidParameter("Decoding seccomp profile failed: expected a JSON object")
    machine = os.uname().machine
    architectures = list(given.get("architectures") or [])
    mapping = given.get("archMap") or []
    if architectures and mapping:
        raise InvalidParameter(
            "'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' "
            "or 'archMap'"
        )
    for entry in mapping:
        if entry.get("architecture") == _NATIVE.get(machine):
            architectures += [entry["architecture"], *(entry.get("subArchitectures") or [])]
    profile: dict[str, Any] = {"defaultAction": given.get("defaultAction") or ""}
    for member in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if given.get(member) is not None:
            profile[member] = given[member]
    if architectures:
        profile["architectures"] = architectures
    profile["syscalls"] = [
        _oci_rule(rule)
        for rule in given.get("syscalls") or []
        if _applies(rule, capabilities, _GO_NAMES.get(machine, machine))
    ]
    return profile


def _oci_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    names = list(rule.get("names") or [])
    if rule.get("name") and names:
        raise InvalidParameter(
            "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'"
        )
    oci: dict[str, Any] = {"names": names or [rule.get("name") or ""], "action": rule.get("action") or ""}
    if rule.get("errnoRet") is not None:
        oci["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        oci["args"] = [
            {
                "index": argument.get("index", 0),
                "value": argument.get("value", 0),
                "valueTwo": argument.get("valueTwo", 0),
                "op": argument.get("op", ""),
            }
            for argument in rule["args"]
        ]
    return oci


def _applies(rule: Mapping[str, Any], capabilities: Collection[str], architecture: str) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if architecture in (excludes.get("arches") or []):
        return False
    if any(name in capabilities for name in excludes.get("caps") or []):
        return False
    if excludes.get("minKernel") and _kernel() >= _version(excludes["minKernel"]):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if not all(name in capabilities for name in includes.get("caps") or []):
        return False
    return not (includes.get("minKernel") and _kernel() < _version(includes["minKernel"]))


def _version(text: str) -> tuple[int, int]:
    matched = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", str(text))
    if matched is None:
        raise InvalidParameter(
            f"invalid kernel version {text!r} in the seccomp profile: expected <major>.<minor>"
        )
    return int(matched[1]), int(matched[2])


def _kernel() -> tuple[int, int]:
    matched = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(matched[1]), int(matched[2])) if matched else (0, 0)
