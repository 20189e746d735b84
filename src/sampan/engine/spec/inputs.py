"""What `build_spec` is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.engine.model import Container, MountPoint


@dataclass(slots=True)
class SpecInputs:
    """A container, and what has been made ready for this run of it.

    Attributes:
        rootfs: the mounted root, an absolute path.
        mounts: binds, volumes and tmpfs, their sources resolved.
        files_dir: where `hosts`, `hostname` and `resolv.conf` lie; those that exist are mounted.
        netns_path: the network namespace's file; None for the host's.
        joins: `pid`, `ipc`, `uts`: files of namespaces of another container's to join.
        cgroups_path: below the hierarchies' roots.
        init_binary: the program that `--init` runs first; None for the built-in one.
    """

    container: Container
    rootfs: str
    mounts: list[MountPoint]
    files_dir: str | None
    netns_path: str | None
    cgroups_path: str
    joins: Mapping[str, str] = field(default_factory=dict)
    init_binary: str | None = None
