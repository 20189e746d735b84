"""What the daemon's flags and `daemon.json` decide for the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampan.engine.model import Ulimit


@dataclass(slots=True)
class EngineOptions:
    """Roots and defaults; the names are dockerd's.

    Attributes:
        data_root: what must outlive a reboot.
        exec_root: what lives as long as the processes do (a tmpfs).
        cgroup_parent: the cgroup below which each container gets its own.
        default_shm_size: bytes of `/dev/shm` when a container does not say.
        log_opts: options of `log_driver` for containers that name none.
        shutdown_timeout_s: how long `--shutdown-containers` waits for a container that has no timeout itself.
    """

    data_root: Path
    exec_root: Path
    cgroup_parent: str = "/sampan"
    default_ulimits: list[Ulimit] = field(default_factory=list)
    default_shm_size: int = 64 * 1024 * 1024
    log_driver: str = "json-file"
    log_opts: dict[str, str] = field(default_factory=dict)
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_opts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    init: bool = False
    debug: bool = False
    shutdown_timeout_s: int = 15
    warnings: list[str] = field(default_factory=list)
