"""What an exec must know of its container, kept since reading config.json costs a tenth of that."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass

from sampan.linux import seccomp
from sampan.runtime import bundle
from sampan.runtime.bundle import ContainerSpec

Filters = tuple[bytes, int] | None

_KEPT = 64


@dataclass(frozen=True, slots=True)
class Target:
    """Where a further process of a container belongs.

    Attributes:
        namespaces: the kinds to join.
        cgroups_path: the container's cgroup, "" for none.
        filters: compiled seccomp program and flags.
    """

    namespaces: list[str]
    cgroups_path: str
    filters: Filters


def filters_of(spec: ContainerSpec) -> Filters:
    """The compiled seccomp program of a configuration, and its flags.

    Raises:
        SampanError: the profile is refused.
    """
    profile = spec.seccomp
    return (seccomp.compile_filter(profile), seccomp.flags_of(profile)) if profile else None


def target_of(spec: ContainerSpec) -> Target:
    """What of a configuration matters to an exec.

    Raises:
        SampanError: its seccomp profile is refused.
    """
    return Target(list(spec.namespaces), spec.cgroups_path, filters_of(spec))


class Targets:
    """The targets of the bundles that were asked for last, each as long as its config.json stays the same."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[tuple[int, int], Target]] = OrderedDict()

    def get(self, path: str) -> Target:
        """The target of a bundle.

        Raises:
            OSError, SampanError: its config.json is missing or refused.
        """
        found = os.stat(f"{path}/config.json")
        version = (found.st_ino, found.st_mtime_ns)
        known = self._known.pop(path, None)
        if known is None or known[0] != version:
            known = (version, target_of(bundle.parse_config(bundle.load(path))))
        self._known[path] = known
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known[1]
