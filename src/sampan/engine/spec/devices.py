"""Devices of a container: `--device`, `--device-cgroup-rule`, and all of the host's for `--privileged`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Any

from sampan.engine.model import DeviceMapping, HostConfig
from sampan.errors import InvalidParameter

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
# Parts of /dev that a container has of its own, or that are no devices.
_NOT_SHARED = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"))

Device = dict[str, Any]
Rule = dict[str, Any]


def container_devices(host_config: HostConfig) -> tuple[list[Device], list[Rule]]:
    """OCI `linux.devices` and the rules of `linux.resources.devices`.

    The rules begin with "none"; the runtime adds what every container may use.

    Raises:
        InvalidParameter: a path that is no device, or a rule that means nothing.
    """
    devices: dict[str, Device] = {}
    if host_config.privileged:
        for device in _beneath("/dev", "/dev", top=True):
            devices[device["path"]] = device
        for mapping in host_config.devices or []:
            if mapping.path_on_host != mapping.path_in_container:
                devices.update((device["path"], device) for device in _mapped(mapping))
        return list(devices.values()), [{"allow": True, "access": "rwm"}]
    rules: list[Rule] = [{"allow": False, "access": "rwm"}]
    for mapping in host_config.devices or []:
        for device in _mapped(mapping):
            devices[device["path"]] = device
            rules.append(
                {
                    "allow": True,
                    "type": device["type"],
                    "major": device["major"],
                    "minor": device["minor"],
                    "access": permissions(mapping),
                }
            )
    rules += [parse_rule(text) for text in host_config.device_cgroup_rules or []]
    return list(devices.values()), rules


def permissions(mapping: DeviceMapping) -> str:
    """The letters of "rwm" that a mapping grants; all when it does not say.

    Raises:
        InvalidParameter: other letters, or one twice.
    """
    letters = mapping.cgroup_permissions or "rwm"
    if set(letters) - set("rwm") or len(set(letters)) != len(letters):
        raise InvalidParameter(
            f"invalid device mode {letters!r} of {mapping.path_on_host}: use letters of rwm"
        )
    return letters


def parse_rule(text: str) -> Rule:
    """An OCI rule from `--device-cgroup-rule "c 1:3 rwm"`.

    Raises:
        InvalidParameter: in Docker's words.
    """
    matched = _RULE.fullmatch(text)
    if matched is None:
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    rule: Rule = {"allow": True, "type": matched[1], "access": matched[4]}
    for name, number in (("major", matched[2]), ("minor", matched[3])):
        if number != "*":
            rule[name] = int(number)
    return rule


def _mapped(mapping: DeviceMapping) -> list[Device]:
    source = mapping.path_on_host
    inside = os.path.normpath(mapping.path_in_container or source)

    def refuse(reason: str) -> InvalidParameter:
        return InvalidParameter(
            f'error gathering device information while adding custom device "{source}": {reason}'
        )

    if not source.startswith("/") or not inside.startswith("/"):
        raise refuse("the path must be absolute")
    resolved = os.path.realpath(source)
    try:
        found = os.stat(resolved)
    except OSError as error:
        raise refuse((error.strerror or str(error)).lower()) from None
    if stat.S_ISDIR(found.st_mode):
        devices = list(_beneath(resolved, inside, top=False))
    else:
        devices = [device] if (device := _describe(found, inside)) is not None else []
    if not devices:
        raise refuse("not a device node")
    return devices


def _beneath(directory: str, inside: str, top: bool) -> Iterator[Device]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if top and (entry.name in _NOT_SHARED or entry.name == "console"):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _beneath(entry.path, f"{inside}/{entry.name}", top=False)
                elif not entry.is_symlink():
                    device = _describe(entry.stat(follow_symlinks=False), f"{inside}/{entry.name}")
                    if device is not None:
                        yield device
            except (FileNotFoundError, PermissionError):
                continue  # unplugged meanwhile, or not ours to see


def _describe(found: os.stat_result, path: str) -> Device | None:
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        return None
    return {
        "path": path,
        "type": kind,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }
