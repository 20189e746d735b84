"""What an exec must know of its container."""

from __future__ import annotations

from sampan.dataclasses import dataclass
from sampan.linux import seccomp
from sampan.runtime.bundle import ContainerSpec

Filters = tuple[bytes, int] | None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a further process of a container belongs.

    Attributes:
        namespaces: the kinds to join.
        cgroups_path: the container's cgroup, "" for none.
        filters: compiled seccomp program and flags.
        tasks: the `tasks` files of its v1 cgroups, opened by `joining.open_tasks`; empty to open each anew.
    """

    namespaces: list[str]
    cgroups_path: str
    filters: Filters
    tasks: tuple[int, ...] = ()


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
    return make_target(spec, filters_of(spec))


def make_target(spec: ContainerSpec, filters: Filters, tasks: tuple[int, ...] = ()) -> Target:
    """As `target_of`, where the filters are known."""
    return Target(list(spec.namespaces), spec.cgroups_path, filters, tasks)
